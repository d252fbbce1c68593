package scenario

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// apart: after a block, what was said stays readable and can be marked as read, other rooms of the same list are joined, and neither of the
// two hears what the other one does.
func apart(t *testing.T, e *env) {
	lisa, avi, mia := e.User("lisa"), e.User("avi"), e.User("mia")
	la, lm, others := harness.Room(lisa, avi), harness.Room(lisa, mia), harness.Room(avi, mia)
	l := lisa.Joined(e.at(0))
	sent := sendAll(t, avi.Joined(e.at(1)), la, contents("before", 3))
	l.Message("before 2")
	testx.Eventually(t, "it is unread", 20*time.Second, func() bool { return conversation(t, e, lisa, la).Unread == 3 })
	if a := e.Do(http.MethodPut, e.at(0)+"/v1/blocks/"+avi.Name, lisa.Tokens.AccessToken, nil); a.Status != http.StatusNoContent {
		t.Fatalf("blocking: %d %s", a.Status, a.Body)
	}
	a := avi.Connect(e.at(1))
	// A gateway learns of a block for one after the other.
	testx.Eventually(t, "neither may write any more", 20*time.Second, func() bool {
		refused := 0
		for _, c := range []*harness.WS{l, a} {
			if c.Answer(c.Say(wire.EvTyping, wire.Marker{Room: la})).Event == wire.EvError {
				refused++
			}
		}
		return refused == 2
	})
	ack := harness.Data[wire.Ack](t, a.Answer(a.Say(wire.EvJoin, map[string]any{"rooms": []string{la, others, lm, "rubbish"}})))
	slices.SortFunc(ack.Refused, func(x, y wire.Refusal) int { return len(x.Room) - len(y.Room) })
	if !slices.Equal(ack.Joined, []string{la, others}) || !slices.Equal(ack.Refused, []wire.Refusal{{Room: "rubbish", Code: wire.InvalidArgument}, {Room: lm, Code: wire.Forbidden}}) {
		t.Errorf("Avi joined %+v", ack)
	}
	if f := a.Answer(a.Send(la, "psst", "", false)); f.Event != wire.EvError || harness.Data[wire.Error](t, f).Code != wire.Forbidden {
		t.Errorf("Avi may write: %s %s", f.Event, f.Data)
	}
	// Both read what was said before, and nobody hears of it.
	if f := l.Answer(l.Say(wire.EvRead, wire.Marker{Room: la, Seq: sent[2].Seq})); f.Event != wire.EvAck {
		t.Errorf("reading: %s %s", f.Event, f.Data)
	}
	if c := conversation(t, e, lisa, la); c.Unread != 0 || c.ReadSeq != sent[2].Seq {
		t.Errorf("what is read stays unread: %+v", c)
	}
	if c := conversation(t, e, avi, la); c.PeerReadSeq != 0 || c.PeerDeliveredSeq != 0 {
		t.Errorf("Avi learns what Lisa has read: %+v", c)
	}
	if r := e.Do(http.MethodGet, e.at(2)+"/v1/rooms/"+la+"/messages", avi.Tokens.AccessToken, nil); r.Status != http.StatusOK {
		t.Errorf("reading the room: %d %s", r.Status, r.Body)
	}
	m := mia.Joined(e.at(2))
	m.MustSend(others, "hello")
	a.Message("hello")
	m.Expect(wire.EvDelivered, nil) // Avi's markers are on their way to who may see them
	settle()
	for name, c := range map[string]*harness.WS{"Avi": a, "Lisa": l} {
		for _, ev := range []string{wire.EvRead, wire.EvDelivered, wire.EvTyping} {
			for _, f := range c.All(ev) {
				if mk := harness.Data[wire.Marker](t, f); mk.Room == la && (c == a || mk.Seq > sent[2].Seq) {
					t.Errorf("%s hears %s %s", name, ev, f.Data)
				}
			}
		}
	}
}
