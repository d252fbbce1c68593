package scenario

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// offline: who was away gets everything once and in order, and what it has confirmed not again.
func offline(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	l := lisa.Joined(e.at(0))
	list := contents("while away", 300)
	sendAll(t, l, r, list)

	a := avi.Joined(e.at(1))
	arrives(t, "who was away", a, r, list)
	last := l.MustSend(r, "live")
	a.Message("live")
	list = append(list, "live")
	confirmed(t, e, avi, last)
	a.Drop()

	a = avi.Joined(e.at(2))
	sameTexts(t, "who has confirmed everything", a.Received(r), nil)
	sameTexts(t, "history", avi.History(t, e.at(2), r, len(list)), list)
	var back []wire.Message // and the other way round
	for before := int64(0); ; {
		page, err := avi.Session(e.at(1)).Messages(t.Context(), r, client.MessagesQuery{Before: before, Limit: 77})
		if err != nil {
			t.Fatal(err)
		}
		back = append(page.Messages, back...)
		if !page.More {
			break
		}
		before = back[0].Seq
	}
	sameTexts(t, "history from its end", back, list)
}

// confirmed waits until history knows that user has received everything of the room up to last.
func confirmed(t *testing.T, e *env, user *harness.User, last wire.Message) {
	t.Helper()
	testx.Eventually(t, user.Name+" has confirmed everything", 20*time.Second, func() bool {
		return conversation(t, e, user, last.Room).DeliveredSeq >= last.Seq
	})
}

func conversation(t *testing.T, e *env, user *harness.User, room string) client.Conversation {
	t.Helper()
	a := e.Do(http.MethodGet, e.at(0)+"/v1/conversations", user.Tokens.AccessToken, nil)
	var page client.ConversationsPage
	if err := json.Unmarshal(a.Body, &page); a.Status != http.StatusOK || err != nil {
		t.Fatalf("conversations: %d %s", a.Status, a.Body)
	}
	for _, c := range page.Conversations {
		if c.Room == room {
			return c
		}
	}
	return client.Conversation{}
}

// resume: since and the resume token name exactly what is missed.
func resume(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	l := lisa.Joined(e.at(0))
	a := avi.Joined(e.at(1))
	list := contents("early", 40)
	sent := sendAll(t, l, r, list)
	a.Message(list[39])
	token := coversAll(t, e, avi, r, a)
	a.Drop()
	later := contents("later", 25)
	sendAll(t, l, r, later)
	all := append(list, later...)

	c := avi.Connect(e.at(2))
	c.Join(map[string]any{"rooms": "*", "resume": token})
	arrives(t, "with a resume token", c, r, later)
	coversAll(t, e, avi, r, c)
	c.Drop()

	for _, at := range []int{0, 9, 39} {
		c = avi.Connect(e.at(at))
		c.Join(map[string]any{"room": r, "since": map[string]int64{r: sent[at].Seq}})
		arrives(t, fmt.Sprintf("since message %d", at), c, r, all[at+1:])
		c.Drop()
	}
	// The sender resumes as well, and gets its own messages.
	c = lisa.Connect(e.at(1))
	c.Join(map[string]any{"room": r, "since": map[string]int64{r: 0}})
	arrives(t, "the sender since 0", c, r, all)
	for _, bad := range []any{
		map[string]any{"rooms": "*", "resume": "nonsense"}, map[string]any{"rooms": "*", "since": map[string]int64{r: -1}},
		map[string]any{"rooms": "everything"}, map[string]any{"room": r, "rooms": "*"}, map[string]any{}, map[string]any{"rooms": []string{}},
	} {
		if code := c.Error(c.Say(wire.EvJoin, bad)); code != wire.InvalidArgument {
			t.Errorf("join %v: %s", bad, code)
		}
	}
	c.MustSend(r, "still here")
}

// coversAll asks c for resume tokens until one names everything that c has received: a gateway answers for what it has checked against
// history, which is a moment behind.
func coversAll(t *testing.T, e *env, user *harness.User, room string, c *harness.WS) (token string) {
	t.Helper()
	testx.Eventually(t, "a resume token covers what was received", harness.Within, func() bool {
		token = c.Barrier()
		probe := user.Connect(e.at(0))
		defer probe.Drop()
		probe.Join(map[string]any{"rooms": "*", "resume": token})
		return len(probe.Received(room)) == 0
	})
	return token
}

// devices: what one device has confirmed another one still gets.
func devices(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	l := lisa.Joined(e.at(0))
	join := func(at int, device string) *harness.WS {
		c := avi.Connect(e.at(at))
		data := map[string]any{"rooms": "*"}
		if device != "" {
			data["device"] = device
		}
		c.Join(data)
		return c
	}
	phone, tablet := join(0, "phone"), join(1, "tablet")
	sent := sendAll(t, l, r, contents("both", 5))
	phone.Message("both 4")
	tablet.Message("both 4")
	confirmed(t, e, avi, sent[4])
	settle() // both devices have answered a ping by then; only the first answer shows outside
	phone.Drop()
	sent = sendAll(t, l, r, contents("tablet only", 5))
	tablet.Message("tablet only 4")
	confirmed(t, e, avi, sent[4])
	tablet.Drop()

	phone = join(2, "phone")
	arrives(t, "the phone", phone, r, contents("tablet only", 5))
	tablet = join(0, "tablet")
	sameTexts(t, "the tablet", tablet.Received(r), nil)
	sameTexts(t, "a client that knows nothing of devices", join(1, "").Received(r), nil)
	for c, name := range map[*harness.WS]string{phone: "phone", tablet: "tablet"} {
		l.MustSend(r, "for the "+name)
		c.Message("for the " + name)
	}
}

// markers: read, delivered and typing reach the sessions that they concern, and unread counts follow at once.
func markers(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	l1, l2 := lisa.Joined(e.at(0)), lisa.Joined(e.at(1))
	a1, a2 := avi.Joined(e.at(1)), avi.Joined(e.at(2))
	sent := sendAll(t, l1, r, contents("number", 10))
	a1.Message("number 9")
	a2.Message("number 9")

	by := func(user *harness.User, seq int64) func(wire.Frame) bool {
		return func(f wire.Frame) bool {
			m := harness.Data[wire.Marker](t, f)
			return m.Room == r && m.Username == user.Name && (m.Seq == seq || seq == 0)
		}
	}
	for _, c := range []*harness.WS{l1, l2} {
		c.Expect(wire.EvDelivered, by(avi, sent[9].Seq))
	}
	testx.Eventually(t, "history has all ten", 20*time.Second, func() bool { return conversation(t, e, avi, r).Unread == 10 })

	read := func(c *harness.WS, seq int64) {
		t.Helper()
		if f := c.Answer(c.Say(wire.EvRead, wire.Marker{Room: r, Seq: seq})); f.Event != wire.EvAck {
			t.Fatalf("read: %s %s", f.Event, f.Data)
		}
	}
	read(a1, sent[3].Seq)
	if c := conversation(t, e, avi, r); c.Unread != 6 || c.ReadSeq != sent[3].Seq {
		t.Errorf("after reading four of ten: %+v", c)
	}
	for _, c := range []*harness.WS{a2, l1, l2} {
		c.Expect(wire.EvRead, by(avi, sent[3].Seq))
	}
	read(a2, sent[1].Seq) // never back
	read(a2, sent[8].Seq)
	if c := conversation(t, e, avi, r); c.Unread != 1 || c.ReadSeq != sent[8].Seq {
		t.Errorf("after reading on with another device: %+v", c)
	}
	for _, c := range []*harness.WS{a1, l1, l2} {
		c.Expect(wire.EvRead, by(avi, sent[8].Seq))
	}
	if c := conversation(t, e, lisa, r); c.Unread != 0 || c.PeerReadSeq != sent[8].Seq {
		t.Errorf("the sender's side: %+v", c)
	}
	testx.Eventually(t, "what was delivered is kept", 20*time.Second, func() bool { return conversation(t, e, lisa, r).PeerDeliveredSeq == sent[9].Seq })
	if n := len(a2.All(wire.EvRead)) + len(a1.All(wire.EvRead)); n != 2 {
		t.Errorf("%d read events at the reader's sessions, want one at each other one", n)
	}

	l1.Answer(l1.Say(wire.EvTyping, wire.Marker{Room: r}))
	a1.Expect(wire.EvTyping, by(lisa, 0))
	a2.Expect(wire.EvTyping, by(lisa, 0))
	settle()
	if len(l1.All(wire.EvTyping))+len(l2.All(wire.EvTyping)) != 0 {
		t.Error("who types hears of it")
	}
	for _, bad := range []wire.Marker{{Room: r, Seq: 0}, {Room: r, Seq: -4}} {
		if code := a1.Error(a1.Say(wire.EvRead, bad)); code != wire.InvalidArgument {
			t.Errorf("read %+v: %s", bad, code)
		}
	}
}
