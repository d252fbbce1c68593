package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/inbox"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session/sessiontest"
)

func TestMain(m *testing.M) { testx.Main(m) }

// world is everything around sessions, and a hub.
type world struct {
	*sessiontest.World
	hub    *Hub
	opened []*Session
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	c := Config{FrameBytes: 65536, ContentBytes: 16384, MessagesPerMinute: 600, MessageBurst: 300, FramesPerSecond: 100, Heartbeat: 25 * time.Second,
		AuthTimeout: 10 * time.Second, UserConnections: 1000, CatchUpPatience: 20 * time.Second, TokenGrace: time.Hour}
	if change != nil {
		change(&c)
	}
	w := &world{World: sessiontest.New(t)}
	w.hub = NewHub(c, Deps{
		Log: testx.Logger(t), Registry: w.Registry, Router: w.Router, CatchUps: w.CatchUps, Confirmer: w.Confirmer, Bus: w, Directory: w, Presence: w,
		Verifier: w, Services: w.Services(),
	})
	t.Cleanup(func() {
		for _, s := range w.opened { // those that a failed test left
			s.cancel()
		}
		w.hub.Wait(context.Background())
	})
	return w
}

func (w *world) open(user string) (*Session, *sessiontest.Wire) {
	l := sessiontest.NewWire()
	s := w.hub.Open(l, token.Claims{Username: user, SID: "x", Expires: time.Now().Add(time.Hour)}, false)
	w.opened = append(w.opened, s)
	return s, l
}

func isLive(s *Session) bool { return s.in.Live(sessiontest.AvisLisa) }

// under makes m, which Say stored, a message that s has under way.
func under(s *Session, retry bool, m api.StoredMessage) *outgoing {
	var p bus.Publisher
	o := &outgoing{retry: retry, pub: p.New(bus.Publication{Room: room.Room{A: m.A, B: m.B}, P: m.P, ID: m.ID, Content: m.Content})}
	_, _ = s.sends.add(o)
	return o
}

func TestJoinGetsWhatWasMissedThenLive(t *testing.T) {
	w := newWorld(t, nil)
	w.Page = 7
	for range 100 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
		w.Say(sessiontest.ErasLisa, "Era", true)
	}
	w.Apply(1000, false)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	if err := s.Join(sessiontest.Everyone, ""); err != nil {
		t.Fatal(err)
	}
	l.WaitCaughtUp(t)
	for range 10 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Delivered(l, "Lisa", nil)
}

// TestJoinsWhileEverythingMoves is the property: whatever is live, lost, late or slow, each session gets each message once, in order but for late
// ones.
func TestJoinsWhileEverythingMoves(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience time.Duration
		delay    time.Duration
		sql      int // ms that history waits for it
	}{
		{"history is quick", 20 * time.Second, 0, 200},
		{"history is slow", 20 * time.Second, 20 * time.Millisecond, 200},
		{"history is slower than joins wait", 5 * time.Millisecond, 40 * time.Millisecond, 200},
		{"SQL is behind", 20 * time.Second, 0, 0},
		{"SQL is behind for longer than joins wait", 5 * time.Millisecond, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.CatchUpPatience = c.patience })
			w.Page, w.Delay, w.HistoryPatience = 300, c.delay, c.sql
			end := w.talk()
			type joined struct {
				s     *Session
				l     *sessiontest.Wire
				rooms []room.Room
				since map[room.Room]int64
			}
			var all []joined
			for i := range 40 {
				s, l := w.open("Lisa")
				j := joined{s: s, l: l}
				req := sessiontest.Everyone
				if i%3 == 1 {
					req = wire.Join{Room: "Lisa&Avi"}
					j.rooms = []room.Room{sessiontest.AvisLisa}
				}
				if i%3 == 2 { // a client that comes back
					w.Mu.Lock()
					j.since = map[room.Room]int64{sessiontest.AvisLisa: w.Seqs[sessiontest.AvisLisa] / 2, sessiontest.ErasLisa: w.Seqs[sessiontest.ErasLisa]}
					w.Mu.Unlock()
					req.Since = map[string]int64{"Avi&Lisa": j.since[sessiontest.AvisLisa], "Era&Lisa": j.since[sessiontest.ErasLisa]}
				}
				if err := s.Join(req, ""); err != nil {
					t.Fatal(err)
				}
				all = append(all, j)
				if i%2 == 0 {
					l.WaitCaughtUp(t)
				}
			}
			end()
			defer w.settle()()
			for _, j := range all {
				w.Delivered(j.l, "Lisa", j.since, j.rooms...)
				j.s.Gone(true)
			}
		})
	}
}

func TestResumeTokenContinuesWhereItStood(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	_ = s.Join(sessiontest.Everyone, "")
	l.WaitCaughtUp(t)
	for range 10 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Delivered(l, "Lisa", nil)
	w.Apply(1000, false)
	testx.Eventually(t, "the router has checked", 10*time.Second, func() bool {
		return w.Router.VerifiedAt(subject.Partition(sessiontest.AvisLisa, sessiontest.Partitions)) == 10
	})
	s.Alive("1")
	tok := l.Resume
	s.Gone(false)
	for range 5 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Apply(1000, false)
	s2, l2 := w.open("Lisa")
	defer s2.Gone(true)
	if err := s2.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: tok}, ""); err != nil {
		t.Fatal(err)
	}
	l2.WaitCaughtUp(t)
	w.Delivered(l2, "Lisa", map[room.Room]int64{sessiontest.AvisLisa: 10})
	for _, bad := range []string{"x", "AQ", "AQEB", tok + "AA", "\x00"} {
		if err := s2.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: bad}, ""); !errors.Is(err, inbox.ErrResume) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
}

func TestJoinWhileHistoryIsAwayMakesItLate(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
	var last api.StoredMessage
	for range 5 {
		last = w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	testx.Eventually(t, "the gateway knows of all", 10*time.Second, func() bool { return w.Router.Routed()[last.P] == last.Seq })
	w.Mu.Lock()
	w.Down = true
	w.Mu.Unlock()
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	testx.Eventually(t, "the session is live", 10*time.Second, func() bool { return isLive(s) })
	w.Say(sessiontest.AvisLisa, "Avi", true)
	testx.Eventually(t, "the live one comes", 10*time.Second, func() bool { l.Mu.Lock(); defer l.Mu.Unlock(); return len(l.Messages) == 1 })
	if l.Messages[0].Seq != 6 || l.Messages[0].Late {
		t.Fatalf("got %+v", l.Messages[0])
	}
	w.Mu.Lock()
	w.Down = false
	w.Mu.Unlock()
	w.Apply(1000, false)
	l.WaitCaughtUp(t)
	w.Delivered(l, "Lisa", nil)
	for _, m := range l.Messages[1:] {
		if !m.Late {
			t.Fatalf("not late: %+v", m)
		}
	}
}

// SQL that cannot be written to (a full disk) is behind for as long as that lasts: what it has comes at once.
func TestJoinWhileHistoryIsBehindGivesWhatItHas(t *testing.T) {
	w := newWorld(t, nil)
	w.Page = 2
	var last api.StoredMessage
	for range 5 {
		last = w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Apply(3, false)
	other := room.Room{A: "A", B: "Lisa"} // in the other partition, of which SQL has nothing
	for subject.Partition(other, sessiontest.Partitions) == last.P {
		other.A += "a"
	}
	far := w.Say(other, other.A, true)
	testx.Eventually(t, "the gateway knows of all", 10*time.Second, func() bool {
		return w.Router.Routed()[last.P] >= last.Seq && w.Router.Routed()[far.P] >= far.Seq
	})
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	testx.Eventually(t, "what SQL has comes", 10*time.Second, func() bool { return slices.Equal(l.Seqs(sessiontest.AvisLisa), []int64{1, 2, 3}) })
	l.Mu.Lock()
	begin := l.Begins[0]
	l.Mu.Unlock()
	w.Apply(1000, false)
	l.WaitCaughtUp(t)
	w.Delivered(l, "Lisa", nil)
	for _, m := range l.Messages {
		if m.Late {
			t.Errorf("late: %+v", m)
		}
	}
	// A connection that breaks there and comes back with that token misses nothing that SQL lacked.
	again, got := w.open("Lisa")
	defer again.Gone(true)
	_ = again.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: begin}, "")
	got.WaitCaughtUp(t)
	w.Delivered(got, "Lisa", nil)
}

func TestSendsAcceptedAreNotReceivedAsWell(t *testing.T) {
	w := newWorld(t, nil)
	w.Mu.Lock()
	w.Down = true
	w.Mu.Unlock()
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	// While the join waits for history, one message is accepted and another is under way.
	first, second := w.Say(sessiontest.AvisLisa, "Lisa", false), w.Say(sessiontest.AvisLisa, "Lisa", false)
	one := under(s, false, first)
	under(s, false, second)
	third := w.Say(sessiontest.AvisLisa, "Avi", false)
	s.sends.mu.Lock()
	s.accept(one, &wire.Message{ID: first.ID, Seq: first.Seq})
	s.sends.mu.Unlock()
	s.countAccepted(sessiontest.AvisLisa, first.P, first.Seq)
	w.Mu.Lock()
	w.Down = false
	w.Mu.Unlock()
	w.Apply(10, false)
	w.verifyOnly(l, third.ID)
}

// What is stored and whose outcome could not be told is accepted as soon as it is seen: its sender would not get it otherwise.
func TestSendsOfUnknownOutcomeThatWereSeen(t *testing.T) {
	w := newWorld(t, nil)
	w.Mu.Lock()
	w.Down = true
	w.Mu.Unlock()
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	send := func(m api.StoredMessage) *outgoing { return under(s, true, m) }
	accepted := func(n int) {
		t.Helper()
		l.Mu.Lock()
		defer l.Mu.Unlock()
		got := 0
		for _, e := range l.Events {
			if e == wire.EvAccepted {
				got++
			}
		}
		if got != n || len(l.Messages) > 0 {
			t.Fatalf("%d accepted, want %d; received %+v", got, n, l.Messages)
		}
	}
	// Read by the catch-up.
	o := send(w.Say(sessiontest.AvisLisa, "Lisa", false))
	w.Mu.Lock()
	w.Down = false
	w.Mu.Unlock()
	w.Apply(10, false)
	l.WaitCaughtUp(t)
	s.done(o, nil, bus.ErrUnknown)
	accepted(1)
	// It comes live while SQL is asked for it, and that fails.
	m := w.Say(sessiontest.AvisLisa, "Lisa", false)
	o = send(m)
	d := router.FromStored(&m)
	s.Deliver(d)
	s.done(o, nil, bus.ErrUnknown)
	accepted(2)
	// Nobody has seen it: its outcome is not known.
	s.done(send(m), nil, bus.ErrUnknown)
	accepted(2)
}

// Where own messages are shown like others, they come in the order of all, whatever a catch-up still has to read and whoever tells their outcome.
func TestSendsEchoesKeepTheOrder(t *testing.T) {
	w := newWorld(t, nil)
	w.SetDeaf(true)
	s, l := w.open("Lisa")
	s.sends.echo = true
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	testx.Eventually(t, "the catch-up runs", 10*time.Second, func() bool { return s.CatchingUp() })
	send := func(m api.StoredMessage) *outgoing { return under(s, false, m) }
	peer := func() {
		m := w.Say(sessiontest.AvisLisa, "Avi", false)
		s.Deliver(router.FromStored(&m))
	}
	both := func(answerFirst bool) {
		peer()
		m := w.Say(sessiontest.AvisLisa, "Lisa", false)
		o, d := send(m), router.FromStored(&m)
		if answerFirst {
			s.done(o, &d.Message, nil)
		}
		s.Deliver(d)
		if !answerFirst {
			s.done(o, nil, bus.ErrUnknown) // what was seen is stored
		}
	}
	both(true)
	both(false)
	// One that the catch-up sees before its outcome is known.
	peer()
	last := w.Say(sessiontest.AvisLisa, "Lisa", false)
	o := send(last)
	w.Apply(10, false)
	w.SetDeaf(false)
	l.WaitCaughtUp(t)
	s.done(o, &router.FromStored(&last).Message, nil)
	s.Deliver(router.FromStored(&last))
	// Live; past the router, which would find them missing if SQL were said to have them.
	both(true)
	both(false)
	w.Delivered(l, "Lisa", nil)
	for _, m := range l.Messages {
		if m.Late {
			t.Fatalf("late: %+v", m)
		}
	}
	if n := strings.Count(strings.Join(l.Events, " "), wire.EvAccepted); n != 5 {
		t.Fatalf("%d were accepted, want 5", n)
	}
}

// verifyOnly checks that one message arrives and nothing else.
func (w *world) verifyOnly(l *sessiontest.Wire, id string) {
	w.T.Helper()
	l.WaitCaughtUp(w.T)
	testx.Eventually(w.T, "the message arrives", 10*time.Second, func() bool { l.Mu.Lock(); defer l.Mu.Unlock(); return len(l.Messages) > 0 })
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if len(l.Messages) != 1 || l.Messages[0].ID != id {
		w.T.Fatalf("got %+v", l.Messages)
	}
}
