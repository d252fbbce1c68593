package legacy

import (
	"time"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

const (
	// alive is how long somebody who sends no connection_alive is kept.
	alive = 18 * time.Second
	// aliveBound is when everybody has heard that he is not, on a busy machine.
	aliveBound = alive + harness.Within
)

// announcements: coming, leaving on purpose, hanging up and getting lost are told to everybody, each once.
func announcements(e *env) {
	names := e.register("watcher", "lisa")
	watcher := e.signIn(names[0])
	e.sees(watcher, names[1], false)
	want := ""

	lisa := e.signIn(names[1])
	watcher.online(lisa.user)
	e.sees(watcher, lisa.user, true)
	lisa.emit("client_disconnection", map[string]string{"client": lisa.user, "jwt": lisa.jwt})
	watcher.offline(lisa.user)
	lisa.do(command{Do: "disconnect"})
	want += "+-"

	// The library's own disconnect, without the good-bye of this protocol.
	lisa = e.signIn(names[1])
	watcher.online(lisa.user)
	lisa.do(command{Do: "disconnect"})
	watcher.offline(lisa.user)
	want += "+-"

	// The whole program dies. On WebSocket the server sees the connection's end, on polling it misses connection_alive.
	d := startDriver(e.t, e.way.library, e.base)
	lost := e.connect(d, names[1], e.login(names[1], harness.Password))
	e.joinAll(lost)
	watcher.online(lost.user)
	d.kill()
	watcher.offline(lost.user)
	want += "+-"

	// Nobody is told twice.
	lisa = e.signIn(names[1])
	watcher.online(lisa.user)
	lisa.sure(roomOf(names[0], names[1]), "here again")
	watcher.message("here again")
	settle()
	if got := watcher.told(lisa.user); got != want+"+" {
		e.t.Errorf("the watcher was told %s, want %s", got, want+"+")
	}
}

// keepAlive: who does not tell that he is there is offline after 18 s while his connection is open; who does stays.
func keepAlive(e *env) {
	names := e.register("watcher", "silent", "faithful")
	watcher, faithful := e.signIn(names[0]), e.signIn(names[2])
	start := time.Now()
	silent := e.connect(e.d, names[1], e.login(names[1], harness.Password))
	e.joinAll(silent)
	watcher.online(silent.user)
	gone := watcher.expectIn(aliveBound, "announcement of somebody who is silent", func(ev event) bool {
		return ev.name == "user_has_gone_offline" && ev.fields().Username == silent.user
	})
	if d := gone.at.Sub(start); d < alive {
		e.t.Errorf("who is silent was taken for gone after %s", d)
	}
	room := roomOf(watcher.user, silent.user)
	silent.refused(silent.user, silent.jwt, room) // over the connection that is open
	e.contactsAnswer(silent.user, silent.jwt).is(e.t, "contacts after a silence", `{"error":"Invalid JWT"}`)
	if n := silent.disconnects(); n != 0 {
		e.t.Error("the connection of who was silent was closed")
	}
	watcher.sure(room, "hello?")
	silent.jwt = e.login(silent.user, harness.Password)
	e.joinAll(silent)
	e.keepAlive(silent)
	watcher.online(silent.user)
	silent.has(room, []string{"hello?"})

	// Longer than anybody could be silent.
	time.Sleep(time.Until(start.Add(alive + 2*time.Second))) // nothing to wait for: the proof is that nothing comes
	for _, c := range []*client{watcher, faithful} {
		if got := watcher.told(c.user); got != "+" {
			e.t.Errorf("the watcher was told %s of %s", got, c.user)
		}
	}
	if got := watcher.told(silent.user); got != "+-+" {
		e.t.Errorf("the watcher was told %s of who was silent", got)
	}
	e.sees(watcher, faithful.user, true)
	faithful.sure(roomOf(watcher.user, faithful.user), "still here")
	watcher.message("still here")
}

// lateHandlers: an old client registers its handlers after connecting and joining, and loses what comes before. So nothing comes
// for three seconds.
func lateHandlers(e *env) {
	names := e.register("lisa", "avi")
	avi := e.signIn(names[1])
	room := roomOf(names[0], names[1])
	var want []string
	say := func(text string) {
		want = append(want, text)
		avi.sure(room, text)
	}
	for _, text := range numbered("before", 20) {
		say(text)
	}
	jwt := e.login(names[0], harness.Password)
	lisa := e.d.client(e.t, names[0], jwt)
	lisa.do(command{Do: "connect", Transports: e.way.transports, Late: true})
	say("connected")
	start := time.Now()
	e.joinAll(lisa)
	say("joined")
	for i := range 4 {
		time.Sleep(500 * time.Millisecond) // the habit of these clients: some time goes by before they listen
		say(numbered("deaf", 4)[i])
	}
	if n := len(lisa.came()); n != 0 {
		e.t.Errorf("%d events came before the handlers: %s", n, lisa.came()[0].name)
	}
	if got := avi.told(lisa.user); got != "" {
		e.t.Errorf("avi was told %q too early", got)
	}
	lisa.do(command{Do: "handlers"})
	e.keepAlive(lisa)
	say("listening")
	at := avi.online(lisa.user).at
	if d := at.Sub(start); d < e.delay {
		e.t.Errorf("announced after %s", d)
	}
	lisa.online(lisa.user)
	say("announced")
	lisa.has(room, want)
	if d := lisa.came()[0].at.Sub(start); d < e.delay {
		e.t.Errorf("the first event came after %s", d)
	}
	settle()
	lisa.exactly(room, want)
	lisa.handledAll(room, len(want))
	lisa.say(room, "thank you")
	avi.message("thank you")
	testx.Eventually(e.t, "lisa's own", harness.Within, func() bool { return lisa.handled(room) == len(want)+1 })
}
