package presence

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/tests/harness"
)

// neverHeardOf fails if any presence event so far, or the contacts, name somebody.
func neverHeardOf(t *testing.T, v *harness.View, p *picture, of *harness.User, secret *harness.User) {
	t.Helper()
	for _, f := range p.ws.All(wire.EvPresence) {
		if strings.Contains(string(f.Data), `"`+secret.Name+`"`) {
			t.Errorf("%s was told of %s: %.200s", p.name, secret.Name, f.Data)
		}
	}
	for _, c := range contacts(t, v, of, at(v, 0), 100) {
		if c.Username == secret.Name {
			t.Errorf("%s is in the contacts of %s: %+v", secret.Name, of.Name, c)
		}
	}
}

// TestPresenceRoster: with contacts by consent, presence is for contacts only, from the moment of the consent to its end, also on open connections.
func TestPresenceRoster(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 2, Settings: map[string]string{"directory-mode": "roster"}})
	befriend := func(t *testing.T, v *harness.View, a, b *harness.User) {
		relation(t, v, http.MethodPut, "contacts", a, b)
		relation(t, v, http.MethodPut, "contacts", b, a)
	}
	t.Run("strangers see nothing", func(t *testing.T) {
		v := s.For(t)
		lisa, avi, eva := v.User("lisa"), v.User("avi"), v.User("eva")
		befriend(t, v, lisa, avi)
		relation(t, v, http.MethodPut, "contacts", eva, lisa) // asked, never agreed
		l := viewer(t, lisa, at(v, 0))
		asks := viewer(t, lisa, at(v, 1), avi.Name, eva.Name, "nobody-at-all")
		e := viewer(t, eva, at(v, 1), lisa.Name, avi.Name)
		a := avi.Joined(at(v, 1))
		l.sees(enough, avi.Name)
		asks.sees(enough, avi.Name)
		for range 3 { // eva's changes, then one that has to come after them
			eva2 := eva.Joined(at(v, 0))
			leave(eva2, e.ws)
			leave(a)
			l.sees(enough)
			asks.sees(enough)
			e = viewer(t, eva, at(v, 1), lisa.Name, avi.Name)
			a = avi.Joined(at(v, 1))
			l.sees(enough, avi.Name)
			asks.sees(enough, avi.Name)
		}
		e.sees(enough)
		neverHeardOf(t, v, l, lisa, eva)
		neverHeardOf(t, v, asks, lisa, eva)
		neverHeardOf(t, v, e, eva, lisa)
		neverHeardOf(t, v, e, eva, avi)
		list := contacts(t, v, lisa, at(v, 0), 1)
		if len(list) != 1 || list[0].Username != avi.Name || list[0].Online == nil || !*list[0].Online {
			t.Errorf("the contacts of %s: %+v", lisa.Name, list)
		}
	})
	t.Run("consent and its end count on open connections", func(t *testing.T) {
		v := s.For(t)
		lisa, avi := v.User("lisa"), v.User("avi")
		l, asks := viewer(t, lisa, at(v, 0)), viewer(t, lisa, at(v, 1), avi.Name)
		a := viewer(t, avi, at(v, 1))
		both := func(names ...string) {
			t.Helper()
			l.sees(enough, names...)
			asks.sees(enough, names...)
		}
		both()
		befriend(t, v, lisa, avi)
		both(avi.Name)
		a.sees(enough, lisa.Name)
		relation(t, v, http.MethodDelete, "contacts", avi, lisa)
		both()
		a.sees(enough)
		befriend(t, v, lisa, avi)
		both(avi.Name)
		relation(t, v, http.MethodPut, "blocks", lisa, avi)
		both()
		a.sees(enough)
		// What avi does now is not told, in neither direction.
		told := len(l.ws.All(wire.EvPresence)) + len(asks.ws.All(wire.EvPresence))
		second := avi.Joined(at(v, 0))
		leave(second, a.ws)
		mia := v.User("mia")
		befriend(t, v, lisa, mia)
		mia.Joined(at(v, 1))
		l.sees(enough, mia.Name)
		asks.sees(enough)
		for _, p := range []*picture{l, asks} {
			for _, f := range p.ws.All(wire.EvPresence)[min(told/2, len(p.ws.All(wire.EvPresence))-1):] {
				if d := harness.Data[wire.Presence](t, f); !d.Snapshot && strings.Contains(string(f.Data), avi.Name) {
					t.Errorf("told of who is blocked: %s", f.Data)
				}
			}
		}
	})
	t.Run("a watch list before the first join", func(t *testing.T) {
		v := s.For(t)
		lisa, avi := v.User("lisa"), v.User("avi")
		befriend(t, v, lisa, avi)
		ws := lisa.Connect(at(v, 0))
		narrow(ws, []string{avi.Name})
		p := watch(t, lisa.Name, ws)
		avi.Joined(at(v, 1))
		p.sees(enough, avi.Name)
		relation(t, v, http.MethodDelete, "contacts", avi, lisa)
		p.sees(enough)
		befriend(t, v, lisa, avi)
		ws.Join(map[string]any{"rooms": "*"})
		p.sees(enough, avi.Name)
	})
	t.Run("who joins at once gets the whole roster", func(t *testing.T) {
		v := s.For(t)
		lisa := v.User("lisa")
		lisa.Joined(at(v, 0))
		var friends []*harness.User
		for range 12 {
			f := v.User("friend")
			befriend(t, v, lisa, f)
			friends = append(friends, f)
		}
		v.KillGateway(1)
		v.RestartGateway(1) // it knows nobody
		pictures := make([]*picture, len(friends))
		together(len(friends), func(i int) { pictures[i] = viewer(t, friends[i].In(t), at(v, 1)) })
		for _, p := range pictures {
			p.sees(enough, lisa.Name)
		}
	})
}

// TestPresenceBlocking: where everybody sees everybody, those who block each other do not.
func TestPresenceBlocking(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 2, Settings: map[string]string{"directory-limit": "8"}})
	v := s.For(t)
	lisa, avi, eva := v.User("lisa"), v.User("avi"), v.User("eva")
	relation(t, v, http.MethodPut, "blocks", avi, eva)
	l, a := viewer(t, lisa, at(v, 0)), viewer(t, avi, at(v, 1))
	e := viewer(t, eva, at(v, 0))
	l.sees(enough, avi.Name, eva.Name)
	a.sees(enough, lisa.Name)
	e.sees(enough, lisa.Name)
	neverHeardOf(t, v, e, eva, avi)
	neverHeardOf(t, v, a, avi, eva)

	relation(t, v, http.MethodPut, "blocks", lisa, avi)
	l.sees(enough, eva.Name)
	a.sees(enough)
	leave(l.ws)
	e.sees(enough)
	l = viewer(t, lisa, at(v, 0))
	e.sees(enough, lisa.Name)
	a.sees(enough)
	asks := viewer(t, avi, at(v, 0), lisa.Name, eva.Name)
	asks.sees(enough)

	relation(t, v, http.MethodDelete, "blocks", lisa, avi)
	l.sees(enough, avi.Name, eva.Name)
	a.sees(enough, lisa.Name)
	asks.sees(enough, lisa.Name)

	// The directory outgrows the limit: nobody gets everybody any more, watch lists stay.
	var more []*harness.User
	for range 6 {
		more = append(more, v.User("more"))
	}
	l.sees(2 * enough)
	asks.sees(enough, lisa.Name)
	late := viewer(t, more[0], at(v, 1))
	late.sees(enough)
	narrow(late.ws, []string{lisa.Name, eva.Name, more[1].Name})
	late.sees(enough, lisa.Name, eva.Name)
}

// TestPresenceLargeDirectory: with more people than the limit a client gets the presence of those whom it names.
func TestPresenceLargeDirectory(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 3, Presence: 2, Accounts: 120, Settings: map[string]string{"directory-limit": "20"}})
	all := s.Accounts
	t.Run("a watch list, narrowed and replaced", func(t *testing.T) {
		v := s.For(t)
		users := all[:6]
		me := users[0].In(t)
		everybody := viewer(t, me, at(v, 0))
		p := viewer(t, me, at(v, 1), users[1].Name, users[2].Name, users[1].Name, me.Name, "nobody-at-all")
		conns := connected(t, users[1:4], func(i int) string { return at(v, i) })
		p.sees(enough, users[1].Name, users[2].Name)
		narrow(p.ws, names(users[2:6]))
		p.sees(enough, users[2].Name, users[3].Name)
		leave(conns[1], conns[0])
		p.sees(leaveBound+5*time.Second, users[3].Name)
		narrow(p.ws, []string{})
		p.sees(enough)
		leave(conns[2])
		everybody.sees(enough)
		if n := len(everybody.changes); n != 0 {
			t.Errorf("who has named nobody was told %d changes", n)
		}
		// The last one counts, however fast they come.
		for i := range 20 {
			p.ws.Say(wire.EvWatch, wire.Watch{Usernames: names(all[20+i : 60+i])})
		}
		last := connected(t, all[70:80], func(i int) string { return at(v, i) })
		p.sees(enough, names(all[70:79])...)
		narrow(p.ws, names(all[70:80]))
		p.sees(enough, names(all[70:80])...)
		leave(last...)
		p.sees(enough)
		if reply := p.ws.Answer(p.ws.Say(wire.EvWatch, wire.Watch{Usernames: slices.Repeat([]string{"x"}, 1001)})); reply.Event != wire.EvError {
			t.Errorf("a list of 1001: %s", reply.Data)
		}
	})
	t.Run("contacts have presence and last seen", func(t *testing.T) {
		v := s.For(t)
		users := all[80:110]
		conns := connected(t, users, func(i int) string { return at(v, i) })
		p := viewer(t, all[0].In(t), at(v, 0), names(users)...)
		p.sees(enough, names(users)...)
		before := time.Now().Add(-time.Second)
		leave(conns[:10]...)
		p.sees(enough, names(users[10:])...)
		for i := range v.Gateways {
			gone, there := names(users[:10]), names(users[10:])
			var list int
			eventually(t, "the contacts are right", enough, func() bool {
				right := 0
				rows := contacts(t, v, all[0].In(t), at(v, i), 7)
				list = len(rows)
				for _, c := range rows {
					online := c.Online != nil && *c.Online
					switch {
					case slices.Contains(there, c.Username):
						if online && c.LastSeen.IsZero() {
							right++
						}
					case slices.Contains(gone, c.Username):
						if c.Online != nil && !online && c.LastSeen.After(before) && c.LastSeen.Before(time.Now().Add(time.Second)) {
							right++
						}
					}
				}
				return right == len(users)
			})
			if list != len(all)-1 {
				t.Errorf("%d contacts in all pages, of %d", list, len(all)-1)
			}
		}
		leave(conns[10:]...)
	})
	t.Run("one picture, then changes, and no gap", func(t *testing.T) {
		v := s.For(t)
		users := all[1:60]
		stop := make(chan struct{})
		var wg sync.WaitGroup
		final := make([]bool, len(users))
		for w := range 4 { // each has users of its own
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(w)))
				open := map[int]*harness.WS{}
				for {
					select {
					case <-stop:
						return
					default:
					}
					i := w + 4*r.IntN(len(users)/4)
					if c := open[i]; c != nil {
						leave(c)
						c.Closed(enough)
						delete(open, i)
					} else if c, err := users[i].In(t).TryJoined(at(v, r.IntN(3))); err == nil {
						open[i] = c
					}
					final[i] = open[i] != nil
				}
			})
		}
		var late []*picture
		for i := range 20 {
			p := viewer(t, all[0].In(t), at(v, i))
			narrow(p.ws, names(users))
			late = append(late, p)
			narrow(late[i/2].ws, names(users[:40+i])) // another list, in the middle
			narrow(late[i/2].ws, names(users))
			late[i/2].follow()
		}
		close(stop)
		wg.Wait()
		var want []string
		for i, on := range final {
			if on {
				want = append(want, users[i].Name)
			}
		}
		for i, p := range late {
			p.name = fmt.Sprintf("viewer %d", i)
			p.sees(enough, want...)
		}
		t.Logf("%d of %d online at the end", len(want), len(users))
	})
}
