package outage

import (
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/tests/harness"
)

// cutOff: the NATS server of the receiver's gateway loses its peers, one last message is said, the cut heals. Nobody speaks again, no
// client does anything: the message arrives. (The server-side republish to a node that is away is lost, and nothing tells so.)
func cutOff(t *testing.T, v *harness.View) {
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(at(v, 0)), avi.Joined(at(v, 2))
	l.MustSend(room, "before")
	a.Message("before")

	v.Cluster.Cut(2)
	m := sendPatiently(t, l, room, "the last word")
	settle() // long enough for a message to arrive that has a way
	if n := a.Count("the last word"); n != 0 {
		t.Fatalf("the cut lets messages through: %d", n)
	}
	v.Cluster.Heal()
	f := a.ExpectIn(30*time.Second, "the last word", func(f wire.Frame) bool {
		return f.Event == wire.EvReceived && harness.Data[wire.Message](t, f).Content == "the last word"
	})
	if got := harness.Data[wire.Message](t, f); got.Seq != m.Seq || got.ID != m.ID {
		t.Errorf("accepted %+v, received %+v", m, got)
	}
	settle()
	if n := a.Count("the last word"); n != 1 {
		t.Errorf("it came %d times", n)
	}
	// And it is a working deployment again, in both directions.
	back := sendPatiently(t, a, room, "heard you")
	l.Message("heard you")
	if back.Seq <= m.Seq {
		t.Errorf("seq %d after %d", back.Seq, m.Seq)
	}
	sameTexts(t, "history", avi.History(t, at(v, 2), room, 3), []string{"before", "the last word", "heard you"})
}

// sendPatiently sends until it is accepted, under one id, as a client does whose server says unavailable: a stream whose leader was cut off
// needs some seconds to find another.
func sendPatiently(t *testing.T, c *harness.WS, room, text string) wire.Message {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	id := "patient-" + time.Now().Format("150405.000000000")
	for retry := false; ; retry = true {
		f := c.Answer(c.Send(room, text, id, retry))
		if f.Event == wire.EvAccepted {
			return harness.Data[wire.Message](t, f)
		}
		if code := harness.Data[wire.Error](t, f).Code; code != wire.Unavailable || time.Now().After(deadline) {
			t.Fatalf("%q was answered with %s", text, f.Data)
		}
		time.Sleep(200 * time.Millisecond) // a client's pause between two tries
	}
}
