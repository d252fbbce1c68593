package outage

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// healed is the promise: so long after there is room again, messages are stored again.
const healed = 30 * time.Second

// TestDiskFullAllInOne: the disk under `parley serve` is full while people chat, then there is room. Nobody starts anything again.
func TestDiskFullAllInOne(t *testing.T) {
	t.Run("with a floor", func(t *testing.T) { diskFull(t, 24<<20, 30*time.Second) })
	// Its stores meet the end of the disk themselves.
	t.Run("without a floor", func(t *testing.T) { diskFull(t, 0, 10*time.Second) })
}

func diskFull(t *testing.T, floor int, full time.Duration) {
	disk := harness.NewDisk(t, 96<<20)
	p := harness.Start(t, "parley serve", "parley", map[string]string{"http-rate": "100000", "http-burst": "100000", "message-burst": "100000"},
		"serve", "--demo=false", "--http", "127.0.0.1:0", "--data", filepath.Join(disk.Dir, "data"), "--free-space-floor", fmt.Sprint(floor))
	base := p.LogMatch(t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
	admin := p.LogMatch(t, regexp.MustCompile(`(?m)^private +(http://\S+)/metrics`))
	v := harness.Outside(t, base)
	chats := startChats(t, v, base, 3)
	probe, peer := v.User("probe"), v.User("peer")
	c := probe.Joined(base)
	room := harness.Room(probe, peer)
	kept := c.MustSend(room, "before")
	ready := func(base string) bool { return v.Do("GET", base+"/readyz", "", nil).Status == http.StatusOK }
	chats.more(20)

	disk.Fill()
	began := time.Now()
	if floor > 0 {
		testx.Eventually(t, "it says that it is full", harness.Within, func() bool { return !ready(admin) && !ready(base) })
		if n := v.Metric(admin, "parley_serve_disk_full"); n != 1 {
			t.Errorf("parley_serve_disk_full %v", n)
		}
		e := harness.Data[wire.Error](t, c.Answer(c.Send(room, "refused", "refused", false)))
		if e.Code != wire.Unavailable || !strings.Contains(e.Message, "disk is full") || e.RetryAfterMS == 0 {
			t.Errorf("a message on a full disk: %+v", e)
		}
		a := v.Do("POST", base+"/v1/users", "", map[string]string{"username": "late", "password": harness.Password})
		if a.Code() != wire.Unavailable || !strings.Contains(string(a.Body), "disk is full") {
			t.Errorf("a registration on a full disk: %d %s", a.Status, a.Body)
		}
	} else {
		testx.Eventually(t, "it says that it cannot store", full, func() bool { return !ready(admin) })
	}
	testx.Eventually(t, "what was said before can be read", harness.Within, func() bool {
		list := peer.History(t, base, room, 1)
		return len(list) == 1 && list[0].ID == kept.ID
	})
	// Nobody is told caught_up for as long as what NATS has cannot get into SQL; what is there comes.
	reader := peer.Connect(base)
	reader.Say(wire.EvJoin, map[string]any{"rooms": "*"})
	reader.Message("before")
	time.Sleep(full - time.Since(began)) // the length of the fault
	if ready(admin) {
		t.Error("the disk is full, and it is ready")
	}
	disk.Empty()
	room0 := time.Now()
	testx.Eventually(t, "it is ready", healed, func() bool { return ready(admin) && ready(base) })
	if _, err := c.TrySend(room, "after", "after", false); err != nil {
		t.Errorf("there is room, it is ready, and a message is refused: %v", err)
	}
	chats.more(20)
	if took := time.Since(room0); took > healed {
		t.Errorf("everybody is accepted again after %s", took)
	} else {
		t.Logf("everybody is accepted again after %s", took)
	}
	t.Logf("starts of the embedded NATS: %v", v.Metric(admin, "parley_serve_nats_restarts_total"))
	v.Do("POST", base+"/v1/users", "", map[string]string{"username": "late", "password": harness.Password})
	chats.check()
	p.Signal(t, syscall.SIGTERM)
	if status := p.Exited(t, 30*time.Second); status != 0 {
		t.Errorf("SIGTERM ended it with status %d", status)
	}
}

// chats are pairs of whom one talks without end and the other listens, through the SDK.
type chats struct {
	t                *testing.T
	base             string
	quiet, stop      context.CancelFunc // ends the talking; ends the listening
	talking, hearing sync.WaitGroup
	all              []*oneChat
}

type oneChat struct {
	from, to *harness.User
	acked    accepted

	mu  sync.Mutex
	got []wire.Message
}

func startChats(t *testing.T, v *harness.View, base string, pairs int) *chats {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	talk, quiet := context.WithCancel(ctx)
	cs := &chats{t: t, base: base, quiet: quiet, stop: stop}
	o := client.Options{MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second}
	for range pairs {
		c := &oneChat{from: v.User("talks"), to: v.User("hears")}
		cs.all = append(cs.all, c)
		from, to := c.from.Dial(o, base), c.to.Dial(o, base)
		cs.talking.Go(func() {
			for n := 0; talk.Err() == nil; n++ {
				text := fmt.Sprintf("text %d", n)
				m := client.Outgoing{Room: harness.Room(c.from, c.to), Content: text}
				if a, err := from.SendMessage(talk, m); err == nil {
					c.acked.add(wire.Message{Seq: a.Seq, ID: a.ID, Content: text})
				}
				time.Sleep(30 * time.Millisecond) // the pace of the chat
			}
		})
		cs.hearing.Go(func() {
			for {
				select {
				case ev, ok := <-to.Events():
					if !ok {
						if ctx.Err() == nil {
							t.Errorf("a connection ended: %v", to.Err())
						}
						return
					}
					if m, ok := ev.(client.Message); ok {
						c.mu.Lock()
						c.got = append(c.got, m.Message)
						c.mu.Unlock()
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	t.Cleanup(func() { stop(); cs.talking.Wait(); cs.hearing.Wait() })
	return cs
}

// more waits until everybody was accepted n more times.
func (cs *chats) more(n int) {
	cs.t.Helper()
	for _, c := range cs.all {
		was := len(c.acked.texts())
		testx.Eventually(cs.t, c.from.Name+" is accepted", time.Minute, func() bool { return len(c.acked.texts()) >= was+n })
	}
}

// check ends the chats: what was accepted is with the other side and in history, in order, once.
func (cs *chats) check() {
	cs.t.Helper()
	cs.quiet()
	cs.talking.Wait()
	for _, c := range cs.all {
		sent := c.acked.texts()
		testx.Eventually(cs.t, c.to.Name+" hears", harness.Within, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			got := map[string]bool{} // what is late may come after the last one
			for _, m := range c.got {
				got[m.Content] = true
			}
			return !slices.ContainsFunc(sent, func(text string) bool { return !got[text] })
		})
	}
	cs.stop()
	cs.hearing.Wait()
	for _, c := range cs.all {
		want := c.acked.texts()
		c.mu.Lock()
		got := inOrder(cs.t, c.got)
		c.mu.Unlock()
		cs.contains(c.to.Name, got, want)
		cs.contains("history", c.from.History(cs.t, cs.base, harness.Room(c.from, c.to), len(want)), want)
	}
}

// contains: all of want, in its order, and nothing twice. What was never acknowledged may be there as well.
func (cs *chats) contains(who string, got []wire.Message, want []string) {
	cs.t.Helper()
	seen, next := map[string]bool{}, 0
	for _, m := range got {
		if seen[m.ID] {
			cs.t.Errorf("%s has %q twice", who, m.Content)
		}
		seen[m.ID] = true
		if next < len(want) && m.Content == want[next] {
			next++
		}
	}
	if next < len(want) {
		cs.t.Errorf("%s lacks %q, which was accepted (has %d, of %d accepted)", who, want[next], len(got), len(want))
	}
}
