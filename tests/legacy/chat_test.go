package legacy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// handledAll waits until the program's handlers have had all that came: those of python-socketio run in threads of their own.
func (c *client) handledAll(room string, n int) {
	c.t.Helper()
	testx.Eventually(c.t, fmt.Sprintf("the handlers of %s got %d messages", c.user, n), harness.Within, func() bool { return c.handled(room) >= n })
	if got := c.handled(room); got != n {
		c.t.Errorf("the handlers of %s got %d messages, want %d", c.user, got, n)
	}
}

// conversation: three people online. Two of them talk with the first at the same time, with and without acks.
func conversation(e *env) {
	names := e.register("lisa", "avi", "era")
	lisa, avi, era := e.signIn(names[0]), e.signIn(names[1]), e.signIn(names[2])
	if got := lisa.do(command{Do: "transport"}).Text; got != e.way.transport() && !e.mixed {
		e.t.Errorf("the transport is %s", got)
	}
	withAvi, withEra := roomOf(lisa.user, avi.user), roomOf(lisa.user, era.user)

	lisa.say(withAvi, "how are you?")
	m := avi.message("how are you?")
	if m.Sender != lisa.user || m.ID == "" || m.Seq == 0 || m.Room != withAvi {
		e.t.Errorf("avi got %+v", m)
	}
	if _, err := time.Parse(time.RFC3339, m.SentAt); err != nil {
		e.t.Errorf("sent at %q", m.SentAt)
	}
	if own := lisa.message("how are you?"); own != m {
		e.t.Errorf("lisa's own copy is %+v, avi's %+v", own, m)
	}
	avi.sure(withAvi, "fine")

	// Several to two people, without waiting for anything.
	toAvi, toEra := numbered("to avi", 30), numbered("to era", 30)
	var acks []<-chan line
	for i := range toAvi {
		lisa.say(withAvi, toAvi[i])
		acks = append(acks, lisa.later("client_sends_message", lisa.data(withEra, toEra[i])))
	}
	last := int64(0)
	for _, a := range acks {
		seq := lisa.accepted(lisa.acked("client_sends_message", a))
		if seq <= last {
			e.t.Errorf("accepted seq %d after %d", seq, last)
		}
		last = seq
	}
	aviHas := append([]string{"how are you?", "fine"}, toAvi...)
	avi.has(withAvi, aviHas)
	era.has(withEra, toEra)

	// An unknown recipient, oneself, no room at all, and the room of two others: no harm, and nobody hears it.
	for _, room := range []string{roomOf(lisa.user, "nobody-of-this-name"), lisa.user + "&" + lisa.user, "", "&", roomOf(avi.user, era.user)} {
		lisa.say(room, "into the void")
		var got map[string]any
		if ack := lisa.ask("client_sends_message", lisa.data(room, "into the void")); json.Unmarshal(ack, &got) != nil || got["error"] == nil || len(got) != 1 {
			e.t.Errorf("a message to %q was answered with %s", room, ack)
		}
	}
	lisa.say(withAvi, "after the void")
	aviHas = append(aviHas, "after the void")
	avi.has(withAvi, aviHas)
	lisa.has(withAvi, aviHas)

	settle()
	for _, c := range []*client{lisa, avi, era} {
		want := map[string][]string{withAvi: aviHas, withEra: toEra}
		if c == avi {
			delete(want, withEra)
		} else if c == era {
			delete(want, withAvi)
		}
		n := 0
		for room, texts := range want {
			c.exactly(room, texts)
			c.handledAll(room, len(texts))
			n += len(texts)
		}
		if got := c.count("received_message"); got != n {
			e.t.Errorf("%s got %d messages in all rooms, want %d", c.user, got, n)
		}
	}
}

// contents: what a message may consist of, up to its largest size, also several at once.
func contents(e *env) {
	names := e.register("lisa", "avi")
	lisa, avi := e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, avi.user)
	want := []string{
		`"quotes" and 'others' and \ and / and \" and \u0041`, "42[\"event\"]\x1e4 and more", "two\nlines\tand\r\n", "<b>&amp;</b>\u2028\u2029",
		"👩‍👩‍👧‍👦 ✅ \U0001F600", "שלום", "e\u0301", " ", "null", "{}",
		strings.Repeat("a", 16<<10), strings.Repeat("😀", 4<<10), strings.Repeat(`"`, 16<<10), strings.Repeat("é", 8<<10),
	}
	for _, text := range want {
		lisa.sure(room, text)
	}
	avi.has(room, want)

	tooMuch := strings.Repeat("a", 16<<10+1)
	avi.say(room, tooMuch)
	for text, ack := range map[string]json.RawMessage{
		"too much":     avi.ask("client_sends_message", avi.data(room, tooMuch)),
		"nothing":      avi.ask("client_sends_message", avi.data(room, "")),
		"not a string": avi.ask("client_sends_message", map[string]any{"sender": avi.user, "content": 5, "conversation_room": room, "jwt": avi.jwt}),
	} {
		var got map[string]any
		if json.Unmarshal(ack, &got) != nil || got["error"] == nil || len(got) != 1 {
			e.t.Errorf("%s as a content was answered with %s", text, ack)
		}
	}

	// All at once: on polling, python-socketio puts what waits into one request, however large that gets.
	for i := range 10 {
		text := strings.Repeat(fmt.Sprint(i), 16<<10)
		want = append(want, text)
		avi.say(room, text)
	}
	lisa.has(room, want)
	avi.has(room, want)
	lisa.handledAll(room, len(want))
}

// offline: messages for somebody who is not there, before the first time and between two times; then he is there.
func offline(e *env) {
	lisaUser := e.view.User("lisa")
	names := e.register("avi", "era")
	lisa, era := e.signIn(lisaUser.Name), e.signIn(names[1])
	room := roomOf(lisa.user, names[0])
	want := numbered("while you were away", 40)
	for _, text := range want {
		lisa.say(room, text)
	}
	lisa.has(room, want)

	avi := e.signIn(names[0])
	avi.has(room, want)
	lisa.online(avi.user)
	avi.sure(room, "here I am")
	markers := lisaUser.Joined(e.natives)
	lisa.say(room, "there you are")
	want = append(want, "here I am", "there you are")
	avi.has(room, want)
	lisa.has(room, want)
	avi.handledAll(room, len(want))

	// A native client learns when all of it counts as delivered. What is younger than that would come again.
	last := lisa.received(room)[len(want)-1].Seq
	markers.Expect(wire.EvDelivered, func(f wire.Frame) bool {
		m := harness.Data[wire.Marker](e.t, f)
		return m.Room == room && m.Username == avi.user && m.Seq >= last
	})
	settle()
	avi.exactly(room, want)

	avi.emit("client_disconnection", map[string]string{"client": avi.user, "jwt": avi.jwt})
	lisa.offline(avi.user)
	again := numbered("away again", 3)
	for _, text := range again {
		lisa.say(room, text)
	}
	lisa.has(room, append(want, again...))
	back := e.signIn(names[0])
	back.has(room, again)
	lisa.say(room, "and now")
	back.has(room, append(again, "and now"))
	settle()
	back.exactly(room, append(again, "and now"))
	lisa.exactly(room, append(append(want, again...), "and now"))
	avi.exactly(room, want)
	if n := era.count("received_message"); n != 0 {
		e.t.Errorf("a third person got %d messages", n)
	}
}

// severalSessions: a user signs in twice and connects a native client beside it, and so does the peer. All of them have the same.
func severalSessions(e *env) {
	lisaUser, aviUser := e.view.User("lisa"), e.view.User("avi")
	room := harness.Room(lisaUser, aviUser)
	l1, l2, avi := e.signIn(lisaUser.Name), e.signIn(lisaUser.Name), e.signIn(aviUser.Name)
	native, peer := lisaUser.Joined(e.natives), aviUser.Joined(e.natives)
	var want []string
	for i := range 10 {
		for who, send := range map[string]func(string){
			"first":  func(s string) { l1.sure(room, s) },
			"second": func(s string) { l2.sure(room, s) },
			"native": func(s string) { native.MustSend(room, s) },
			"peer":   func(s string) { avi.sure(room, s) },
			"other":  func(s string) { peer.MustSend(room, s) },
		} {
			text := fmt.Sprintf("%s %d", who, i)
			want = append(want, text)
			send(text)
		}
	}
	for _, c := range []*client{l1, l2, avi} {
		c.has(room, want)
	}
	native.Message(lastNot(want, "native"))
	peer.Message(lastNot(want, "other"))
	sameAsNative(e.t, native, room, avi.received(room))
	sameAsNative(e.t, peer, room, avi.received(room))

	// One session ends, the other one works, and the user has not gone.
	l1.emit("client_disconnection", map[string]string{"client": l1.user, "jwt": l1.jwt})
	l2.sure(room, "still here")
	avi.message("still here")
	avi.sure(room, "I see")
	l2.has(room, append(want, "still here", "I see"))
	settle()
	if got := avi.told(l1.user); strings.Contains(got, "-") {
		e.t.Errorf("avi was told %s of a user with two sessions, one of which has ended", got)
	}
	e.sees(avi, l1.user, true)
	l2.handledAll(room, len(want)+2)
}

// lastNot is the last of list without prefix.
func lastNot(list []string, prefix string) string {
	for _, s := range slices.Backward(list) {
		if !strings.HasPrefix(s, prefix) {
			return s
		}
	}
	return ""
}

// sameAsNative checks that a native client has exactly what an old one has; of what it sent itself, it was told seq and id only.
func sameAsNative(t *testing.T, c *harness.WS, room string, want []fields) {
	t.Helper()
	all := c.Received(room)
	for _, f := range c.All(wire.EvAccepted) {
		all = append(all, harness.Data[wire.Message](t, f))
	}
	slices.SortFunc(all, func(a, b wire.Message) int { return int(a.Seq - b.Seq) })
	same := slices.EqualFunc(all, want, func(m wire.Message, f fields) bool {
		return m.Seq == f.Seq && m.ID == f.ID && (m.Content == "" || m.Content == f.Content)
	})
	if !same {
		t.Errorf("a native client has %d messages:\n%.2000v\nan old one has %d:\n%.2000v", len(all), all, len(want), want)
	}
}

// nativeClients: a native and an old client send to each other at the same time; the order is the same for both.
func nativeClients(e *env) {
	const n = 40
	lisaUser, aviUser := e.view.User("lisa"), e.view.User("avi")
	room := harness.Room(lisaUser, aviUser)
	lisa, avi := e.signIn(lisaUser.Name), aviUser.Joined(e.natives)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			avi.Send(room, fmt.Sprintf("native %d", i), "", false)
		}
	}()
	for i := range n {
		lisa.say(room, fmt.Sprintf("old %d", i))
	}
	<-sent
	avi.Message(fmt.Sprintf("old %d", n-1))
	lisa.message(fmt.Sprintf("native %d", n-1))
	testx.Eventually(e.t, "everything is there", harness.Within, func() bool {
		return len(lisa.received(room)) >= 2*n && len(avi.All(wire.EvAccepted)) >= n
	})
	settle()
	var want []string
	next := map[string]int{}
	for _, m := range lisa.received(room) {
		who, number, _ := strings.Cut(m.Content, " ")
		if number != fmt.Sprint(next[who]) {
			e.t.Errorf("%s comes after %s %d", m.Content, who, next[who]-1)
		}
		next[who]++
		want = append(want, m.Content)
	}
	if len(want) != 2*n {
		e.t.Errorf("%d messages, want %d", len(want), 2*n)
	}
	lisa.exactly(room, want) // by seq as well
	lisa.handledAll(room, 2*n)
	sameAsNative(e.t, avi, room, lisa.received(room))
	// The same user comes with an old client as well.
	late := e.signIn(aviUser.Name)
	late.say(room, "late")
	late.message("late")
	lisa.message("late")
	avi.Message("late")
}

// bot: Leonid answers everybody with the same text, in an event of its own.
func bot(e *env) {
	names := e.register("lisa", "era")
	lisa, second, era := e.signIn(names[0]), e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, "Leonid")
	want := numbered("hello, Leonid", 3)
	for _, text := range want {
		lisa.say(room, text)
		for _, c := range []*client{lisa, second} {
			f := c.expect("an answer of the bot", func(ev event) bool { return ev.name == "ai_response_received" }).fields()
			if f.Sender != "Leonid" || f.Content != text {
				e.t.Errorf("the bot answered with %+v", f)
			}
		}
	}
	settle()
	for _, c := range []*client{lisa, second} {
		if a, m := c.count("ai_response_received"), c.count("received_message"); a != 3 || m != 3 {
			e.t.Errorf("%d answers of the bot and %d messages, want 3 and 3", a, m)
		}
	}
	if n := era.count("ai_response_received") + era.count("received_message"); n != 0 {
		e.t.Errorf("a third person got %d of them", n)
	}
	if got := e.contacts(lisa.user, lisa.jwt).Contacts["Leonid"]; got != room {
		e.t.Errorf("the bot's room is %q", got)
	}
	e.sees(lisa, "Leonid", true)
}
