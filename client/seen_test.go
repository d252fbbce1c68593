package client

import (
	"math/rand/v2"
	"testing"
)

// Rules 7 and 8: however often and in whatever order messages come, each passes once while it is among the newest maxSeen, what is below a younger one is
// late, and memory has its bound.
func TestSeenPassesEachOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s seen
	rooms := []string{"a&b", "a&c", "a&d"}
	had, top, added := map[string]map[int64]bool{}, map[string]int64{}, 0
	for i := range int64(2 * maxSeen) {
		room := rooms[rng.IntN(len(rooms))]
		if had[room] == nil {
			had[room] = map[int64]bool{}
		}
		for range 2 {
			seq := max(1, i-rng.Int64N(maxSeen/4))
			twin, late := s.look(room, seq)
			if twin != had[room][seq] || late != (seq < top[room]) {
				t.Fatalf("%s %d, of %d: twin %t, late %t", room, seq, added, twin, late)
			}
			if !twin {
				s.add(room, seq)
				had[room][seq], top[room], added = true, max(top[room], seq), added+1
			}
		}
		n := 0
		for _, generation := range []map[string]*seenRoom{s.young, s.old} {
			for _, r := range generation {
				n += len(r.seqs)
			}
		}
		if n >= 2*maxSeen {
			t.Fatalf("%d are remembered", n)
		}
	}
	if added < 2*maxSeen {
		t.Fatalf("%d messages are too few to forget one", added)
	}
}
