package session

import (
	"context"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session/sessiontest"
)

// accept makes m, which Say stored, the answer to a message that s has under way.
func accept(s *Session, m api.StoredMessage) {
	s.done(under(s, false, m), &router.FromStored(&m).Message, nil)
}

func TestReceiptsMoveTheCursorOnlyUpToWhatIsChecked(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	l.WaitCaughtUp(t)
	w.Say(sessiontest.AvisLisa, "Avi", true)
	w.Delivered(l, "Lisa", nil)
	confirmed := func() int64 { w.Mu.Lock(); defer w.Mu.Unlock(); return w.Confirmed["Lisa Avi&Lisa"] }
	if s.Tick(time.Now()) != 0 {
		t.Fatal("history has not announced it: an older one may be missing")
	}
	w.Apply(10, false)
	testx.Eventually(t, "the router has checked", 10*time.Second, func() bool {
		return w.Router.VerifiedAt(subject.Partition(sessiontest.AvisLisa, sessiontest.Partitions)) == 1
	})
	question := s.Tick(time.Now())
	if question == 0 || confirmed() != 0 {
		t.Fatal("written is not received")
	}
	s.Answered(question + 1) // not the question that was asked
	w.Say(sessiontest.AvisLisa, "Avi", true)
	w.Apply(10, false)
	w.Delivered(l, "Lisa", nil)
	s.Answered(question)
	testx.Eventually(t, "history is told", 10*time.Second, func() bool { return confirmed() == 1 })
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Confirms != 1 || w.Last.PeerSeq != 1 || w.Last.Session != s.name() {
		t.Fatalf("%d confirmations, the last one %+v", w.Confirms, w.Last)
	}
}

// A message that comes live, or is accepted, while older ones of its room are still to be read proves nothing about these: a gateway that died
// then would lose them for a client that brings neither since nor resume.
func TestReceiptsKeepTheCursorBehindARunningCatchUp(t *testing.T) {
	for name, young := range map[string]func(w *world, s *Session, l *sessiontest.Wire){
		"delivered live": func(w *world, s *Session, l *sessiontest.Wire) {
			w.Say(sessiontest.AvisLisa, "Avi", true)
			testx.Eventually(t, "the live one comes", 10*time.Second, func() bool { l.Mu.Lock(); defer l.Mu.Unlock(); return len(l.Messages) == 1 })
		},
		"accepted": func(w *world, s *Session, l *sessiontest.Wire) { accept(s, w.Say(sessiontest.AvisLisa, "Lisa", false)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
			for range 5 {
				w.Say(sessiontest.AvisLisa, "Avi", true)
			}
			w.Checked(sessiontest.AvisLisa)
			w.SetDeaf(true)
			s, l := w.open("Lisa")
			defer s.Gone(true)
			_ = s.Join(sessiontest.Everyone, "")
			testx.Eventually(t, "the session is live", 10*time.Second, func() bool { return isLive(s) })
			young(w, s, l)
			w.Checked(sessiontest.AvisLisa)
			if s.Tick(time.Now()) != 0 {
				t.Fatal("the cursor is about to pass five messages that were not read")
			}
			// The gateway dies: the next session gets them, and this one too when it does not.
			w.SetDeaf(false)
			testx.Eventually(t, "the catch-up ends", 10*time.Second, func() bool { return !s.CatchingUp() })
			question := s.Tick(time.Now())
			if question == 0 {
				t.Fatal("everything was sent, and is not asked about")
			}
			s.Answered(question)
			testx.Eventually(t, "history is told", 10*time.Second, func() bool { return w.ConfirmedOf("Lisa", sessiontest.AvisLisa) == 6 })
		})
	}
}

func TestReceiptsCursorFollowsThePagesOfARunningCatchUp(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
	for range 5 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Checked(sessiontest.AvisLisa)
	s, _ := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(wire.Join{Room: "Avi&Lisa"}, "")
	testx.Eventually(t, "the catch-up ends", 10*time.Second, func() bool { return !s.CatchingUp() })
	// Another room's catch-up does not end: what was read before counts all the same, what comes live after it waits.
	w.SetDeaf(true)
	_ = s.Join(wire.Join{Room: "Era&Lisa"}, "")
	question := s.Tick(time.Now())
	if question == 0 {
		t.Fatal("a page that was read does not count")
	}
	s.Answered(question)
	testx.Eventually(t, "history is told", 10*time.Second, func() bool { return w.ConfirmedOf("Lisa", sessiontest.AvisLisa) == 5 })
	s.Gone(true) // and what waits is dropped with the session
	if r := &s.receipts; r.ahead != nil || r.unconfirmed != nil {
		t.Fatal("something is left")
	}
}

// reads is a history whose SQL is behind for some requests.
type reads struct {
	mu     sync.Mutex
	behind int
	asked  int
}

func (h *reads) read(_ context.Context, req api.ReadRequest) (api.ReadResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.asked <= h.behind {
		return api.ReadResponse{Behind: true}, nil
	}
	return api.ReadResponse{Seq: req.Seq, Moved: true, Behind: req.Seq > 1}, nil
}

// A read marker must not stop short of its message because SQL does not have that yet.
func TestReceiptsReadMarkerWaitsForSQL(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	l.WaitCaughtUp(t)
	w.Say(sessiontest.AvisLisa, "Avi", true)
	w.Delivered(l, "Lisa", nil)
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
		w.hub.Services = w.Services(api.HistoryRead.Handle(h.read))
		l.Mu.Lock()
		l.Events = nil
		l.Mu.Unlock()
		if err := s.Read("Avi&Lisa", c.seq, "re"); err != nil {
			t.Fatal(err)
		}
		testx.Eventually(t, c.what+": it is answered", 10*time.Second, func() bool {
			l.Mu.Lock()
			defer l.Mu.Unlock()
			return len(l.Events) > 0 && l.Events[len(l.Events)-1] == c.answer
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
	defer s.Gone(true)
	for _, name := range []string{"Avi&Lisa", "Era&Lisa", "Avi&Lisa", "Lisa&Era"} {
		if err := s.Typing(name); err != nil {
			t.Fatal(err)
		}
	}
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if len(w.Notices) != 2 {
		t.Errorf("%d notices, want one a room", len(w.Notices))
	}
}

func TestTypingThatWaitedTooLongIsNotTold(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	l.WaitCaughtUp(t)
	for _, ago := range []time.Duration{7 * time.Second, 0} {
		s.Notify(sessiontest.AvisLisa, &api.Ephemeral{Event: wire.EvTyping, Username: "Avi", Session: "other", At: time.Now().Add(-ago).UnixMilli()})
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	n := 0
	for _, e := range l.Events {
		if e == wire.EvTyping {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times, want once", n)
	}
}

// What the five rules of receipts are, without a session.
func TestReceiptsAlone(t *testing.T) {
	const again = 25 * time.Second
	now := time.Now()
	verified := int64(10)
	at := func(int) int64 { return verified }
	var r receipts
	w := func(seq, peer int64) written { return written{room: sessiontest.AvisLisa, seq: seq, peerSeq: peer} }
	r.wrote(w(5, 5), false)
	r.wrote(w(4, 0), false) // older, and one's own
	first := r.question(now, again, at)
	if first == 0 || r.question(now.Add(again-time.Second), again, at) != 0 {
		t.Fatal("asked not once")
	}
	second := r.question(now.Add(again), again, at)
	if second == first || second == 0 {
		t.Fatalf("asked with %d again", second)
	}
	if list, _ := r.answered(first); list != nil {
		t.Fatal("the answer to an earlier question counts")
	}
	if other := r.name("phone"); !other || r.name("phone") {
		t.Fatal("the device")
	}
	list, device := r.answered(second)
	if len(list) != 1 || list[0] != w(5, 5) || device != "phone" {
		t.Fatalf("confirmed %+v by %q", list, device)
	}
	// While a catch-up runs, what it read counts and what comes live waits; above what is verified nothing does.
	r.catchUp(true)
	r.wrote(w(9, 9), false)
	r.wrote(w(7, 0), true)
	if q := r.question(now, again, at); q == 0 {
		t.Fatal("what was read does not count")
	} else if list, _ := r.answered(q); len(list) != 1 || list[0].seq != 7 {
		t.Fatalf("confirmed %+v", list)
	}
	verified = 8
	r.catchUp(false)
	if r.question(now, again, at) != 0 {
		t.Fatal("asked about what is not verified")
	}
	verified = 9
	if r.question(now, again, at) == 0 {
		t.Fatal("not asked")
	}
	r.end()
	if r.wrote(w(99, 0), false); r.unconfirmed != nil || r.asked != nil {
		t.Fatal("something is left")
	}
}
