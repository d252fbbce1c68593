package outage

import (
	"fmt"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// natsRestarts: every NATS server ends and comes back at once.
func natsRestarts(t *testing.T, v *harness.View) { natsGone(t, v, 0) }

// natsAway: they stay away.
func natsAway(t *testing.T, v *harness.View) { natsGone(t, v, longOutage()) }

// natsGone: while NATS is away senders hear unavailable and nothing is acknowledged; when it is back, everything comes back by itself, and
// history has what was acknowledged and, of the rest, nothing twice.
func natsGone(t *testing.T, v *harness.View, away time.Duration) {
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(at(v, 0)), avi.Joined(at(v, 1))
	var acked []string
	say := func(text string) {
		t.Helper()
		sendPatiently(t, l, room, text)
		a.Message(text)
		acked = append(acked, text)
	}
	for i := range 5 {
		say(fmt.Sprintf("before %d", i))
	}
	// Who stays is not told to have gone, however long nobody hears anything of anybody.
	tom := v.User("tom")
	tom.Joined(at(v, 2))
	a.Answer(a.Say(wire.EvWatch, wire.Watch{Usernames: []string{tom.Name, lisa.Name}}))
	seen(t, a, tom, true, harness.Within)
	seen(t, a, lisa, true, harness.Within)
	known := len(a.All(wire.EvPresence))
	v.StopNats()
	end := time.Now().Add(away)
	for i := 0; i == 0 || time.Now().Before(end); i++ {
		f := l.Answer(l.Send(room, fmt.Sprintf("to nobody %d", i), "", false))
		if f.Event != wire.EvError || harness.Data[wire.Error](t, f).Code != wire.Unavailable {
			t.Fatalf("without NATS a message was answered with %s %s", f.Event, f.Data)
		}
		if v.Ready(v.Gateways[0].Admin) {
			t.Error("a gateway is ready without NATS")
		}
	}
	if !l.Open() || !a.Open() {
		t.Error("a connection did not outlive the outage")
	}
	v.StartNats()
	for i := range 5 {
		say(fmt.Sprintf("after %d", i))
	}
	sendPatiently(t, a, room, "the other way")
	l.Message("the other way")
	acked = append(acked, "the other way")
	for _, g := range v.Gateways {
		v.WaitReady(g.Admin)
	}
	testx.Eventually(t, "presence is known again", 30*time.Second, func() bool {
		frames := a.All(wire.EvPresence)
		return !harness.Data[wire.Presence](t, frames[len(frames)-1]).Unknown
	})
	for _, f := range a.All(wire.EvPresence)[known:] {
		for _, o := range harness.Data[wire.Presence](t, f).Offline {
			if o.Username == tom.Name || o.Username == lisa.Name {
				t.Errorf("%s stayed and was told to have gone: %s", o.Username, f.Data)
			}
		}
	}
	// Every part is back: logins, history, presence.
	sameTexts(t, "history", avi.History(t, at(v, 1), room, len(acked)), acked)
	mia := v.User("mia")
	a.Answer(a.Say(wire.EvWatch, wire.Watch{Usernames: []string{mia.Name}}))
	m := mia.Joined(at(v, 2))
	seen(t, a, mia, true, 30*time.Second)
	m.Say(wire.EvDisconnection, nil)
	seen(t, a, mia, false, 30*time.Second)
	settle()
	times := map[string]int{}
	for _, m := range a.Received(room) {
		times[m.Content]++
	}
	for text, n := range times {
		if n != 1 {
			t.Errorf("%q came %d times", text, n)
		}
	}
	if len(times) != len(acked)-1 {
		t.Errorf("received %d messages of %d: %v", len(times), len(acked)-1, times)
	}
	l.Drop()
	a.Drop()
}
