package session

import (
	"context"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/bus"
)

// accept makes m, which say stored, the answer to a message that s has under way.
func accept(s *Session, m api.StoredMessage) {
	rm := room.Room{A: m.A, B: m.B}
	var p bus.Publisher
	o := &outgoing{pub: p.New(bus.Publication{Room: rm, P: m.P, ID: m.ID, Content: m.Content})}
	s.mu.Lock()
	if s.queues == nil {
		s.queues = map[room.Room]*outgoing{}
	}
	s.queues[rm] = o
	s.queued++
	s.queueBytes += len(m.Content)
	s.mu.Unlock()
	s.done(o, &wire.Message{Room: rm.String(), Sender: m.Sender, ID: m.ID, Content: m.Content, Seq: m.Seq}, nil)
}

func (w *world) setDeaf(deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = deaf
}

func (w *world) confirmedOf(user string, rm room.Room) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.confirmed[user+" "+rm.String()]
}

// checked waits until the router knows of all messages of the room's partition.
func (w *world) checked(rm room.Room) {
	w.t.Helper()
	w.apply(1<<40, false)
	p := subject.Partition(rm, partitions)
	w.mu.Lock()
	n := int64(len(w.streams[p]))
	w.mu.Unlock()
	testx.Eventually(w.t, "the router has checked", 10*time.Second, func() bool { return w.router.CheckedAt(p) == n })
}

// A message that comes live, or is accepted, while older ones of its room are still to be read proves nothing about these: a gateway that died
// then would lose them for a client that brings neither since nor resume.
func TestCursorStaysBehindARunningCatchUp(t *testing.T) {
	for name, young := range map[string]func(w *world, s *Session, l *wireLog){
		"delivered live": func(w *world, s *Session, l *wireLog) {
			w.say(avisLisa, "Avi", true)
			testx.Eventually(t, "the live one comes", 10*time.Second, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.messages) == 1 })
		},
		"accepted": func(w *world, s *Session, l *wireLog) { accept(s, w.say(avisLisa, "Lisa", false)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
			for range 5 {
				w.say(avisLisa, "Avi", true)
			}
			w.checked(avisLisa)
			w.setDeaf(true)
			s, l := w.open("Lisa")
			defer s.gone(true)
			_ = s.Join(everyone, "")
			testx.Eventually(t, "the session is live", 10*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.floor != nil })
			young(w, s, l)
			w.checked(avisLisa)
			s.tick(time.Now())
			if len(l.probes) != 0 {
				t.Fatal("the cursor is about to pass five messages that were not read")
			}
			// The gateway dies: the next session gets them, and this one too when it does not.
			w.setDeaf(false)
			testx.Eventually(t, "the catch-up ends", 10*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.joining })
			s.tick(time.Now())
			if len(l.probes) != 1 {
				t.Fatal("everything was sent, and is not asked about")
			}
			s.Answered(l.probes[0])
			testx.Eventually(t, "history is told", 10*time.Second, func() bool { return w.confirmedOf("Lisa", avisLisa) == 6 })
		})
	}
}

func TestCursorFollowsThePagesOfARunningCatchUp(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
	for range 5 {
		w.say(avisLisa, "Avi", true)
	}
	w.checked(avisLisa)
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(wire.Join{Room: "Avi&Lisa"}, "")
	testx.Eventually(t, "the catch-up ends", 10*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.joining })
	// Another room's catch-up does not end: what was read before counts all the same, what comes live after it waits.
	w.setDeaf(true)
	_ = s.Join(wire.Join{Room: "Era&Lisa"}, "")
	s.tick(time.Now())
	if len(l.probes) != 1 {
		t.Fatal("a page that was read does not count")
	}
	s.Answered(l.probes[0])
	testx.Eventually(t, "history is told", 10*time.Second, func() bool { return w.confirmedOf("Lisa", avisLisa) == 5 })
	s.gone(true) // and what waits is dropped with the session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ahead != nil || s.dirty != nil {
		t.Fatal("something is left")
	}
}

// reads is a history whose SQL is behind for some requests.
type reads struct {
	History
	mu     sync.Mutex
	behind int
	asked  int
}

func (h *reads) HistoryRead(_ context.Context, req api.ReadRequest) (api.ReadResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.asked <= h.behind {
		return api.ReadResponse{Behind: true}, nil
	}
	return api.ReadResponse{Seq: req.Seq, Moved: true, Behind: req.Seq > 1}, nil
}

// A read marker must not stop short of its message because SQL does not have that yet.
func TestReadMarkerWaitsForSQL(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	l.waitCaughtUp(t)
	w.say(avisLisa, "Avi", true)
	w.verify(l, "Lisa", nil)
	for _, c := range []struct {
		what          string
		seq           int64
		behind, asked int
		answer        string
	}{
		{"SQL gets there", 1, 3, 4, wire.EvAck},
		{"it does not", 1, 1000, readTries, wire.EvError},
		{"no message has this seq", 7, 0, 1, wire.EvAck},
	} {
		h := &reads{behind: c.behind}
		w.hub.History = h
		l.mu.Lock()
		l.events = nil
		l.mu.Unlock()
		if err := s.Read("Avi&Lisa", c.seq, "re"); err != nil {
			t.Fatal(err)
		}
		testx.Eventually(t, c.what+": it is answered", 10*time.Second, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.events) > 0 && l.events[len(l.events)-1] == c.answer
		})
		h.mu.Lock()
		if h.asked != c.asked {
			t.Errorf("%s: asked %d times, want %d", c.what, h.asked, c.asked)
		}
		h.mu.Unlock()
	}
}

func TestTypingInTwoRoomsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	s, _ := w.open("Lisa")
	defer s.gone(true)
	for _, name := range []string{"Avi&Lisa", "Era&Lisa", "Avi&Lisa", "Lisa&Era"} {
		if err := s.Typing(name); err != nil {
			t.Fatal(err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.notices) != 2 {
		t.Errorf("%d notices, want one a room", len(w.notices))
	}
}

func TestTypingThatWaitedTooLongIsNotTold(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	l.waitCaughtUp(t)
	for _, ago := range []time.Duration{7 * time.Second, 0} {
		s.Notify(avisLisa, &api.Ephemeral{Event: wire.EvTyping, Username: "Avi", Session: "other", At: time.Now().Add(-ago).UnixMilli()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.events {
		if e == wire.EvTyping {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times, want once", n)
	}
}
