package scenario

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/tests/harness"
)

// chat: both directions, gateways of their own, two devices each; everybody gets everything once, and the sending session
// gets message_accepted instead.
func chat(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	room := harness.Room(lisa, avi)
	l1, l2 := lisa.Joined(e.at(0)), lisa.Joined(e.at(1))
	a1, a2 := avi.Joined(e.at(1)), avi.Joined(e.at(2))

	var all, ofLisa, ofAvi []string
	prev := int64(0)
	for i := range 20 {
		from, mine := l1, &ofLisa
		if i%2 == 1 {
			from, mine = a2, &ofAvi
		}
		text := fmt.Sprintf("message %d", i)
		m := from.MustSend(room, text)
		if m.Room != room || m.ID == "" || m.SentAt.IsZero() || !follows(m, prev) || m.Seq <= prev {
			t.Fatalf("accepted %+v after seq %d", m, prev)
		}
		prev = m.Seq
		all, *mine = append(all, text), append(*mine, text)
	}
	for c, want := range map[*harness.WS][]string{l1: ofAvi, l2: all, a1: all, a2: ofLisa} {
		c.Message(want[len(want)-1])
	}
	settle()
	sameTexts(t, "the sender's session", l1.Received(room), ofAvi)
	sameTexts(t, "the sender's other session", l2.Received(room), all)
	sameTexts(t, "the peer's other session", a1.Received(room), all)
	sameTexts(t, "the peer's session", a2.Received(room), ofLisa)
	if n, m := len(l1.All(wire.EvAccepted)), len(l2.All(wire.EvAccepted)); n != len(ofLisa) || m != 0 {
		t.Errorf("the sending session has %d acceptances, the other one %d", n, m)
	}
	last := int64(0)
	for _, m := range l2.Received(room) {
		if !follows(m, last) {
			t.Errorf("%q has prev %v, the message before is %d", m.Content, m.Prev, last)
		}
		if want := lisa.Name; (m.Sender == want) != (l1.Count(m.Content) == 0) {
			t.Errorf("%q has sender %s", m.Content, m.Sender)
		}
		last = m.Seq
	}
	sameTexts(t, "history", avi.History(t, e.at(2), room, len(all)), all)

	// Sending to a room joins it: one line is enough to chat. Either order of the names will do.
	line := lisa.Connect(e.at(2))
	if m := line.MustSend(avi.Name+"&"+lisa.Name, "without a join"); m.Room != room {
		t.Errorf("the room came back as %s", m.Room)
	}
	a1.Message("without a join")
	a1.MustSend(room, "an answer")
	line.Message("an answer")
}

// nextPage: history is written behind the stream, and a page waits for what its gateway has accepted or delivered.
func nextPage(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(e.at(0)), avi.Joined(e.at(1))
	asked, behind := 0, 0
	has := func(gateway string, user *harness.User, m wire.Message) {
		t.Helper()
		get := func(path string, page any) {
			t.Helper()
			answer := e.Do(http.MethodGet, gateway+path, user.Tokens.AccessToken, nil)
			if err := json.Unmarshal(answer.Body, page); answer.Status != http.StatusOK || err != nil {
				t.Fatalf("%s: %d %s", path, answer.Status, answer.Body)
			}
		}
		var convs client.ConversationsPage
		get("/v1/conversations", &convs)
		var page client.MessagesPage
		get(fmt.Sprintf("/v1/rooms/%s/messages?after=%d", url.PathEscape(room), m.Seq-1), &page)
		asked++
		switch {
		case convs.Behind || page.Behind: // it says so, after it has waited
			behind++
		case len(page.Messages) == 0 || page.Messages[0].Seq != m.Seq:
			t.Errorf("seq %d is not in the page after it was accepted: %+v", m.Seq, page)
		case len(convs.Conversations) == 0 || convs.Conversations[0].LastMessage.Seq < m.Seq:
			t.Errorf("seq %d is not in the conversations after it was accepted", m.Seq)
		}
	}
	for i := range 30 {
		text := fmt.Sprintf("at once %d", i)
		m := l.MustSend(room, text)
		has(e.at(0), lisa, m)
		a.Message(text)
		has(e.at(1), avi, m)
	}
	if 2*behind > asked { // waiting helps unless the machine is very busy
		t.Errorf("history was behind in %d of %d answers, as if nobody waited for it", behind, asked)
	}
}

// follows checks prev. Whether a message is the first of its room the server need not know at once.
func follows(m wire.Message, before int64) bool {
	if m.Prev == nil {
		return before == 0
	}
	return *m.Prev == before
}

// joinRace: a user connects through one gateway while a message is published through another, again and again. Where in the
// joining the message falls changes from try to try.
func joinRace(t *testing.T, e *env) {
	const pairs = 10
	var wg sync.WaitGroup
	for p := range pairs {
		wg.Go(func() { joinRaces(t, e, p, e.tries/pairs) })
	}
	wg.Wait()
}

func joinRaces(t *testing.T, e *env, p, tries int) {
	lisa, avi := e.User("racer"), e.User("chaser")
	room := harness.Room(lisa, avi)
	sender := lisa.Joined(e.at(p))
	token, useToken := "", p%2 == 0
	for k := range tries {
		text := fmt.Sprintf("try %d", k)
		accepted := make(chan wire.Message, 1)
		send := func(now int) {
			if now == (k+p)%5 {
				re := sender.Send(room, text, "", false)
				go func() { accepted <- harness.Data[wire.Message](t, sender.Answer(re)) }()
			}
		}
		send(0)
		c, _, err := harness.DialWS(t, e.at(p+1+k%2), harness.DialOptions{Token: avi.Tokens.AccessToken})
		if err != nil {
			t.Errorf("connect: %v", err)
			return
		}
		send(1)
		c.Expect(wire.EvWelcome, nil)
		send(2)
		join := map[string]any{"rooms": "*"}
		if useToken && token != "" {
			join["resume"] = token
		}
		re := c.Say(wire.EvJoin, join)
		send(3)
		c.Expect(wire.EvAck, func(f wire.Frame) bool { return f.Re == re })
		send(4)
		if m := <-accepted; m.Seq == 0 {
			t.Errorf("try %d was not accepted", k)
		}
		c.Message(text)
		token = harness.Data[wire.CaughtUp](t, c.Expect(wire.EvCaughtUp, nil)).Resume
		if n := c.Count(text); n != 1 {
			t.Errorf("try %d came %d times", k, n)
		}
		last := int64(0)
		for _, m := range c.Received(room) {
			if m.Seq <= last && !m.Late { // late: history did not answer in time
				t.Errorf("try %d: seq %d after %d", k, m.Seq, last)
			}
			last = max(last, m.Seq)
		}
		c.Drop()
	}
}
