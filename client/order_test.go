package client

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"parley.example/client/wire"
)

func msg(seq, prev int64) *wire.Message {
	return &wire.Message{Room: "a&b", Sender: "a", ID: fmt.Sprint("m", seq), Seq: seq, Prev: &prev}
}

func TestGap(t *testing.T) {
	r := newLedger().room("a&b")
	check := func(m *wire.Message, wantAfter int64, want bool) {
		t.Helper()
		if after, got := r.gap(m); got != want || got && after != wantAfter {
			t.Errorf("gap before %d: after %d, %v; want %d, %v", m.Seq, after, got, wantAfter, want)
		}
	}
	check(msg(100, 90), 0, false) // the first that is seen of a room
	r.mark(msg(100, 90))
	check(msg(110, 100), 0, false)
	check(msg(130, 120), 100, true)
	check(msg(80, 70), 0, false) // older than all
	m := msg(130, 120)
	m.Late = true
	check(m, 0, false)
	m = msg(130, 0)
	m.Prev = nil
	check(m, 100, true)
	r.mark(msg(130, 120))
	check(msg(120, 110), 100, true)
}

func TestTwinWithAnotherSeq(t *testing.T) {
	r := newLedger().room("a&b")
	r.mark(msg(10, 0))
	twin := msg(20, 10)
	twin.ID = "m10"
	if !r.seen(twin) {
		t.Error("a twin passes")
	}
	twin.Sender = "b"
	if r.seen(twin) {
		t.Error("the same id of the other user is no twin")
	}
}

// Whatever order and however often messages come, as long as they are not older than what is remembered, each
// passes once; and memory has its bound.
func TestLedgerPassesEachOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := newLedger().room("a&b")
	passed := map[int64]int{}
	const n = 3000
	for i := range int64(n) {
		for range 3 {
			seq := max(1, i-rng.Int64N(maxSeen/2))
			if m := msg(seq, seq-1); !r.seen(m) {
				r.mark(m)
				passed[seq]++
			}
		}
		if len(r.seqs) > maxSeen || len(r.ids) > maxSeen || len(r.order) != len(r.ids) {
			t.Fatalf("grew to %d seqs, %d ids", len(r.seqs), len(r.ids))
		}
	}
	for seq, times := range passed {
		if times != 1 {
			t.Errorf("%d passed %d times", seq, times)
		}
	}
	for i := range int64(n) {
		if m := msg(i+1, i); !r.seen(m) && passed[i+1] > 0 {
			t.Fatalf("%d would pass again", i+1)
		}
	}
}

func TestLateBelowTheFloorPasses(t *testing.T) {
	r := newLedger().room("a&b")
	for i := range int64(maxSeen + 10) {
		r.mark(msg(1000+i, 999+i))
	}
	m := msg(5, 4)
	if !r.seen(m) {
		t.Error("an old one is new again")
	}
	if m.Late = true; r.seen(m) {
		t.Error("a late one is lost")
	}
}

func TestUnmark(t *testing.T) {
	r := newLedger().room("a&b")
	r.mark(msg(10, 0))
	r.unmark(msg(10, 0))
	if r.seen(msg(10, 0)) || len(r.ids)+len(r.order)+len(r.seqs) != 0 {
		t.Error("it is still there")
	}
}

func TestRoomsAreBounded(t *testing.T) {
	l := newLedger()
	first := l.room("first")
	for i := range maxRooms + 100 {
		l.room(fmt.Sprint(i))
		l.room("first")
	}
	if len(l.byName) != maxRooms || l.recent.Len() != maxRooms {
		t.Errorf("%d rooms", len(l.byName))
	}
	if l.room("first") != first {
		t.Error("a room in use was forgotten")
	}
}
