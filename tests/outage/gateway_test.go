package outage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// seen waits until c sees user come or go.
func seen(t *testing.T, c *harness.WS, user *harness.User, online bool, within time.Duration) {
	t.Helper()
	testx.Eventually(t, fmt.Sprintf("%s is seen with online=%t", user.Name, online), within, func() bool {
		state, known := c.Online()[user.Name]
		return known && state == online
	})
}

// crashBound is the promise: after a gateway has crashed, its users are offline for everybody else within this time.
const crashBound = 12 * time.Second

// gatewayKilled: kill -9 right after an acceptance. Its users go offline, nothing accepted is lost.
func gatewayKilled(t *testing.T, v *harness.View) {
	watcher, lisa, avi := v.User("watcher"), v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	w := watcher.Joined(at(v, 0))
	w.Answer(w.Say(wire.EvWatch, wire.Watch{Usernames: []string{lisa.Name, avi.Name}}))
	l, a := lisa.Joined(at(v, 1)), avi.Joined(at(v, 0))
	seen(t, w, lisa, true, harness.Within)
	seen(t, w, avi, true, harness.Within)
	l.MustSend(room, "accepted")
	v.KillGateway(1)
	killed := time.Now()
	seen(t, w, lisa, false, crashBound)
	t.Logf("offline after %s", time.Since(killed))
	a.Message("accepted")
	for _, f := range w.All(wire.EvPresence) {
		p := harness.Data[wire.Presence](t, f)
		// The snapshot that began the watch names avi as offline, and rightly: the session of avi is younger.
		if !p.Snapshot && slices.ContainsFunc(p.Offline, func(o wire.Offline) bool { return o.Username == avi.Name }) {
			t.Error("a user of another gateway was announced as offline")
		}
	}
	back := lisa.Joined(at(v, 2))
	seen(t, w, lisa, true, harness.Within)
	back.MustSend(room, "back")
	a.Message("back")
	v.RestartGateway(1)
	again := lisa.Joined(at(v, 1))
	again.MustSend(room, "at the old place")
	a.Message("at the old place")
	back.Message("at the old place")
	sameTexts(t, "the peer", a.Received(room), []string{"accepted", "back", "at the old place"})
	for _, c := range []*harness.WS{w, a, back, again} {
		c.Drop()
	}
}

// gatewayDrains: SIGTERM. Clients are told when to leave, those that stay are closed with 4001, messages under way are settled.
func gatewayDrains(t *testing.T, v *harness.View) {
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(at(v, 1)), avi.Joined(at(v, 0))
	stays := avi.Joined(at(v, 1))
	l.MustSend(room, "before")
	var acked accepted
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // lisa goes on talking, and reconnects as she is told
		c := l
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			text := fmt.Sprintf("under way %d", i)
			m, err := c.TrySend(room, text, fmt.Sprintf("drain-%d", i), false)
			for err != nil {
				if c, err = lisa.TryJoined(at(v, 2)); err == nil {
					m, err = c.TrySend(room, text, fmt.Sprintf("drain-%d", i), true)
				}
			}
			m.Content = text
			acked.add(m)
		}
	})
	v.Gateways[1].Signal(t, syscall.SIGTERM)
	g := harness.Data[wire.GoingAway](t, stays.Expect(wire.EvGoingAway, nil))
	if g.ReconnectInMS < 0 || g.ReconnectInMS > 60_000 {
		t.Errorf("reconnect in %d ms", g.ReconnectInMS)
	}
	if code := stays.Closed(30 * time.Second); code != wire.CloseDraining.Code {
		t.Errorf("who stayed was closed with %d", code)
	}
	if status := v.Gateways[1].Exited(t, 60*time.Second); status != 0 {
		t.Errorf("the drained gateway ended with status %d", status)
	}
	if code := l.Closed(time.Second); code != wire.CloseDraining.Code {
		t.Errorf("the sender was closed with %d", code)
	}
	n := len(acked.texts())
	testx.Eventually(t, "she goes on elsewhere", 30*time.Second, func() bool { return len(acked.texts()) > n+5 })
	close(stop)
	wg.Wait()
	want := append([]string{"before"}, acked.texts()...)
	a.Message(want[len(want)-1])
	settle()
	sameTexts(t, "the peer", a.Received(room), want)
	sameTexts(t, "history", avi.History(t, at(v, 2), room, len(want)), want)
	v.RestartGateway(1)
	a.Drop()
}

// inOrder sorts by seq what came late, as a client that shows messages does. What comes out of order without saying so is an error.
func inOrder(t *testing.T, list []wire.Message) []wire.Message {
	t.Helper()
	youngest, late := int64(0), 0
	for _, m := range list {
		if m.Late {
			late++
		} else if m.Seq < youngest {
			t.Errorf("%q comes after younger ones and is not marked as late", m.Content)
		}
		youngest = max(youngest, m.Seq)
	}
	if late > 0 {
		t.Logf("%d of %d messages came late", late, len(list))
	}
	return slices.SortedStableFunc(slices.Values(list), func(a, b wire.Message) int { return int(a.Seq - b.Seq) })
}

// killedInTurn: gateways die one after the other while people chat through a load balancer. Nothing accepted is lost, doubled or
// out of order, and nobody does anything about it but the SDK.
func killedInTurn(t *testing.T, v *harness.View) {
	const pairs, each = 6, 60
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	o := client.Options{MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second}
	type side struct {
		user *harness.User
		conn *client.Conn
		got  []wire.Message
	}
	var wg sync.WaitGroup
	sent := make(chan struct{}, pairs*2*each)
	var rooms [pairs]struct {
		room string
		side [2]*side
	}
	for p := range pairs {
		x, y := v.User("left"), v.User("right")
		rooms[p].room = harness.Room(x, y)
		for i, u := range []*harness.User{x, y} {
			rooms[p].side[i] = &side{user: u, conn: u.Dial(o, v.Balancer.URL)}
		}
		for i, s := range rooms[p].side {
			wg.Go(func() {
				for n := range each {
					if _, err := s.conn.Send(ctx, rooms[p].room, fmt.Sprintf("%d says %d", i, n)); err != nil {
						t.Errorf("send: %v", err)
						return
					}
					sent <- struct{}{}
					time.Sleep(20 * time.Millisecond) // the pace of the chat: it has to last longer than the killing
				}
			})
			wg.Go(func() {
				for len(s.got) < each {
					select {
					case ev, ok := <-s.conn.Events():
						if !ok {
							t.Errorf("a connection ended: %v", s.conn.Err())
							return
						}
						// After a resume one's own come as well: what was stored and not acknowledged when the gateway died.
						if m, ok := ev.(client.Message); ok && m.Sender != s.user.Name {
							s.got = append(s.got, m.Message)
						}
					case <-ctx.Done():
						t.Errorf("%s has received %d messages of %d", s.user.Name, len(s.got), each)
						return
					}
				}
			})
		}
	}
	for i := range v.Gateways {
		for range pairs * 2 * each / 8 { // some more messages between two deaths
			select {
			case <-sent:
			case <-ctx.Done():
				t.Fatal("the chat has stopped")
			}
		}
		v.KillGateway(i)
		v.RestartGateway(i)
	}
	wg.Wait()
	for _, r := range rooms {
		var want [2][]string
		for i := range want {
			want[i] = numbered(fmt.Sprintf("%d says", i), 0, each)
			sameTexts(t, r.side[1-i].user.Name, inOrder(t, r.side[1-i].got), want[i])
		}
		x := r.side[0].user
		var of [2][]wire.Message
		for _, m := range x.History(t, at(v, 0), r.room, 2*each) {
			if m.Sender == x.Name {
				of[0] = append(of[0], m)
			} else {
				of[1] = append(of[1], m)
			}
		}
		sameTexts(t, "history of the one", of[0], want[0])
		sameTexts(t, "history of the other", of[1], want[1])
		for _, s := range r.side {
			_ = s.conn.Close() // the end is no failure
		}
	}
}
