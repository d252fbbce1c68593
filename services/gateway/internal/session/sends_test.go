package session

import (
	"fmt"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/session/sessiontest"
)

func outgoingOf(r room.Room, id, content string) *outgoing {
	return &outgoing{pub: new(bus.Publisher).New(bus.Publication{Room: r, ID: id, Content: content})}
}

// Of each room one is under way, the others follow in their order, and all of it has a limit.
func TestSendsKeepTheOrderAndTheirLimits(t *testing.T) {
	var q sends
	var avi []*outgoing
	for i := range 3 {
		o := outgoingOf(sessiontest.AvisLisa, fmt.Sprint(i), "c")
		avi = append(avi, o)
		if head, err := q.add(o); head != (i == 0) || err != nil {
			t.Fatalf("%d: %v, %v", i, head, err)
		}
	}
	if head, _ := q.add(outgoingOf(sessiontest.ErasLisa, "e", "c")); !head {
		t.Fatal("another room waits")
	}
	if q.pop(avi[0]) != avi[1] || q.pop(avi[1]) != avi[2] || q.pop(avi[2]) != nil || q.heads[sessiontest.ErasLisa] == nil || q.count != 1 || q.bytes != 1 {
		t.Fatalf("%+v", q.heads)
	}
	q = sends{}
	n := 0
	for ; ; n++ {
		if _, err := q.add(outgoingOf(sessiontest.AvisLisa, "x", strings.Repeat("c", 16<<10))); err != nil {
			break
		}
	}
	if n != maxQueueBytes/(16<<10) {
		t.Errorf("%d large ones", n)
	}
	q = sends{}
	for n = 0; ; n++ {
		if _, err := q.add(outgoingOf(sessiontest.AvisLisa, "x", "c")); err != nil {
			if wire.AsError(err).Code != wire.RateLimited {
				t.Error(err)
			}
			break
		}
	}
	if n != maxQueued {
		t.Errorf("%d small ones", n)
	}
}

// What a catch-up reads of the session's own is passed over as long as its acceptance stands for it, and not where own messages are echoed.
func TestSendsKnowWhatTheirAcceptanceStandsFor(t *testing.T) {
	stored := func(seq int64, id, content string) *api.StoredMessage {
		return &api.StoredMessage{A: "Avi", B: "Lisa", Sender: "Lisa", Seq: seq, ID: id, Content: content}
	}
	for _, echo := range []bool{false, true} {
		q := sends{echo: echo}
		o := outgoingOf(sessiontest.AvisLisa, "1", "c")
		_, _ = q.add(o)
		q.begin(o, 7)
		if q.answered(stored(9, "1", "other")) || q.answered(stored(9, "2", "c")) || q.answered(stored(7, "1", "c")) || o.stored != nil {
			t.Error("another message is taken for the one under way")
		}
		if q.answered(stored(9, "1", "c")) == echo || o.stored == nil {
			t.Errorf("echo %v: the one under way", echo)
		}
	}
	var q sends
	q.catchUp(true)
	q.accepted = note(q.accepted, seqKey{0, 3})
	if !q.answered(stored(3, "1", "c")) || q.answered(stored(4, "1", "c")) {
		t.Error("what was accepted meanwhile")
	}
	q.catchUp(false)
	if q.answered(stored(3, "1", "c")) {
		t.Error("it is remembered for ever")
	}
	set := map[seqKey]struct{}{}
	for i := range int64(3 * maxNoted) {
		set = note(set, seqKey{0, i})
	}
	if len(set) > maxNoted {
		t.Errorf("%d are remembered", len(set))
	}
}
