package scenario

import (
	"slices"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/tests/harness"
)

// online and offline accept a presence event that names user.
func online(t *testing.T, user *harness.User) func(wire.Frame) bool {
	return func(f wire.Frame) bool { return slices.Contains(harness.Data[wire.Presence](t, f).Online, user.Name) }
}

// offlineIs is a change: a snapshot names those, too, who were not there before.
func offlineIs(t *testing.T, user *harness.User) func(wire.Frame) bool {
	return func(f wire.Frame) bool {
		p := harness.Data[wire.Presence](t, f)
		return !p.Snapshot && slices.ContainsFunc(p.Offline, func(o wire.Offline) bool { return o.Username == user.Name })
	}
}

// graceBound is the default grace of a lost connection, and the time to tell it.
const graceBound = 12 * time.Second

func presence(t *testing.T, e *env) {
	watcher, lisa := e.User("watcher"), e.User("lisa")
	w := watcher.Joined(e.at(1))
	w.Answer(w.Say(wire.EvWatch, wire.Watch{Usernames: []string{lisa.Name}}))

	// Connected is not online yet: the first join is.
	l := lisa.Joined(e.at(0))
	w.Expect(wire.EvPresence, online(t, lisa))
	second := lisa.Joined(e.at(2))
	l.Say(wire.EvDisconnection, nil)
	if code := l.Closed(harness.Within); code != wire.CloseNormal.Code {
		t.Errorf("a deliberate leave was closed with %d", code)
	}
	second.Barrier()
	var took []time.Duration
	for range 5 {
		start := time.Now()
		second.Say(wire.EvDisconnection, nil)
		f := w.Expect(wire.EvPresence, offlineIs(t, lisa))
		took = append(took, time.Since(start))
		for _, o := range harness.Data[wire.Presence](t, f).Offline {
			if o.Username == lisa.Name && time.Since(o.LastSeen.Time) > time.Minute {
				t.Errorf("last seen at %s", o.LastSeen)
			}
		}
		second = lisa.Joined(e.at(0))
		w.Expect(wire.EvPresence, online(t, lisa))
	}
	// The promise is a second. The median, because one turn may meet a full machine.
	slices.Sort(took)
	if took[2] > time.Second {
		t.Errorf("clean leaves took %v", took)
	}

	// A newcomer's snapshot has who is there.
	late := e.User("late").Joined(e.at(2))
	late.Answer(late.Say(wire.EvWatch, wire.Watch{Usernames: []string{lisa.Name, watcher.Name, "nobody-at-all"}}))
	late.Expect(wire.EvPresence, func(f wire.Frame) bool {
		p := harness.Data[wire.Presence](t, f)
		return p.Snapshot && slices.Contains(p.Online, lisa.Name) && slices.Contains(p.Online, watcher.Name)
	})

	second.Drop()
	start := time.Now()
	w.ExpectIn(graceBound, "offline after the grace", func(f wire.Frame) bool { return f.Event == wire.EvPresence && offlineIs(t, lisa)(f) })
	if d := time.Since(start); d < 5*time.Second { // the default
		t.Errorf("a lost connection was announced after %s, without a grace", d)
	}
}

// shortAbsence: a connection that is back within the grace was never gone.
func shortAbsence(t *testing.T, e *env) {
	watcher, lisa := e.User("watcher"), e.User("lisa")
	w := watcher.Joined(e.at(1))
	w.Answer(w.Say(wire.EvWatch, wire.Watch{Usernames: []string{lisa.Name}}))
	l := lisa.Joined(e.at(0))
	w.Expect(wire.EvPresence, online(t, lisa))
	before := len(w.All(wire.EvPresence))
	for i := range 3 {
		l.Drop()
		l = lisa.Joined(e.at(i + 1))
	}
	time.Sleep(8 * time.Second) // longer than the grace: the proof is that nothing comes
	for _, f := range w.All(wire.EvPresence)[before:] {
		if offlineIs(t, lisa)(f) {
			t.Errorf("a short absence was announced: %s", f.Data)
		}
	}
	w.Barrier()
}
