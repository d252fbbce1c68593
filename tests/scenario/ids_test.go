package scenario

import (
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/tests/harness"
)

// clientIDs: an id is its sender's; nobody's message is swallowed by somebody's id.
func clientIDs(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	both := harness.Room(lisa, avi)
	l, a := lisa.Joined(e.at(0)), avi.Joined(e.at(1))
	var peers []*harness.User // all there before the window begins to run
	for range 6 {
		peers = append(peers, e.User("mia"))
	}

	// Two users, one id, one room.
	begin := time.Now()
	l.Expect(wire.EvAccepted, after(l.Send(both, "by lisa", "same", false)))
	a.Expect(wire.EvAccepted, after(a.Send(both, "by avi", "same", false)))
	l.Message("by avi")
	a.Message("by lisa")

	// One user, one id, several rooms: either refused or stored like any other.
	want := map[string][]string{both: {"by lisa", "by avi"}}
	for _, mia := range peers {
		r := harness.Room(lisa, mia)
		m := mia.Joined(e.at(2))
		f := l.Answer(l.Send(r, "again", "same", false))
		switch {
		case f.Event == wire.EvAccepted:
			if samePartition(t, r, both) && time.Since(begin) < dedupeWindow {
				t.Errorf("inside the window of one partition the id was taken twice")
			}
			m.Message("again")
			want[r] = []string{"again"}
		case harness.Data[wire.Error](t, f).Code != wire.IDConflict:
			t.Errorf("got %s %s", f.Event, f.Data)
		default:
			want[r] = nil
		}
		l.MustSend(r, "a good one") // the connection goes on
		m.Message("a good one")
		want[r] = append(want[r], "a good one")
	}
	for r, list := range want {
		sameTexts(t, "history of "+r, lisa.History(t, e.at(0), r, len(list)), list)
	}

	// One user, one id, one room, another text: refused. The same text: the same message.
	first := l.MustSendID(both, "once", "mine")
	if code := l.Error(l.Send(both, "something else", "mine", false)); code != wire.IDConflict {
		t.Errorf("another text under the same id: %s", code)
	}
	if second := l.MustSendID(both, "once", "mine"); second.Seq != first.Seq {
		t.Errorf("sent twice, stored as %d and %d", first.Seq, second.Seq)
	}
	a.Message("once")
	for _, id := range []string{"with blank ", "ä", "a/b", strings.Repeat("x", 65)} {
		if code := l.Error(l.Send(both, "text", id, false)); code != wire.InvalidArgument {
			t.Errorf("id %q: %s", id, code)
		}
	}
	settle()
	if n := a.Count("once"); n != 1 {
		t.Errorf("the message came %d times", n)
	}
}

// sentAgain: the outcome of a send is unknown, and it is sent again, elsewhere, at once and after the stream has forgotten the id.
func sentAgain(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	a := avi.Joined(e.at(2))
	lost := lisa.Joined(e.at(0))
	first := lost.MustSendID(r, "said once", "unknown-1")
	lost.Send(r, "lost on the way", "unknown-2", false)
	lost.Drop() // whether that one was stored is not known

	l := lisa.Joined(e.at(1))
	again := func(c *harness.WS, text, id string) wire.Message {
		t.Helper()
		f := c.Answer(c.Send(r, text, id, true))
		if f.Event != wire.EvAccepted {
			t.Fatalf("sent again: %s %s", f.Event, f.Data)
		}
		return harness.Data[wire.Message](t, f)
	}
	if m := again(l, "said once", "unknown-1"); m.Seq != first.Seq {
		t.Errorf("stored as %d and as %d", first.Seq, m.Seq)
	}
	second := again(l, "lost on the way", "unknown-2")
	third := again(l, "never said before", "unknown-3")

	time.Sleep(dedupeWindow + time.Second) // the stream must have forgotten the ids
	l2 := lisa.Joined(e.at(2))
	for text, m := range map[string]wire.Message{"said once": first, "lost on the way": second, "never said before": third} {
		if got := again(l2, text, m.ID); got.Seq != m.Seq {
			t.Errorf("after the window %q was stored as %d and as %d", text, m.Seq, got.Seq)
		}
	}
	if code := l2.Error(l2.Send(r, "another text", "unknown-1", true)); code != wire.IDConflict {
		t.Errorf("another text under an old id: %s", code)
	}
	// Without retry:true the stream takes an old id again; nobody may see it twice.
	if f := l2.Answer(l2.Send(r, "said once", "unknown-1", false)); f.Event != wire.EvAccepted {
		t.Errorf("got %s %s", f.Event, f.Data)
	}
	l2.MustSend(r, "the end")
	a.Message("the end")
	settle()
	want := []string{"said once", "lost on the way", "never said before", "the end"}
	sameTexts(t, "history", avi.History(t, e.at(0), r, len(want)), want)
	sameIDs(t, a.Received(r), 4)
}

// sameIDs checks that there are n messages, counted by id: a client drops what it has seen by seq or id.
func sameIDs(t *testing.T, list []wire.Message, n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range list {
		seen[m.Sender+":"+m.ID] = true
	}
	if len(seen) != n {
		t.Errorf("%d different messages, want %d: %q", len(seen), n, texts(list))
	}
}

func after(re string) func(wire.Frame) bool {
	return func(f wire.Frame) bool { return f.Re == re }
}

func samePartition(t *testing.T, a, b string) bool {
	t.Helper()
	ra, err := room.Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := room.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return subject.Partition(ra, harness.Partitions) == subject.Partition(rb, harness.Partitions)
}
