package scenario

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/tests/harness"
)

// badFrames: each gets its named error, and a good message goes through on the same connection afterwards.
func badFrames(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	a := avi.Joined(e.at(1))
	quoted, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	send := func(data string) string { return `{"event":"client_sends_message","data":` + data + `,"id":"x"}` }
	for _, tc := range []struct {
		name, frame string
		kind        int
		want        wire.Code
		re          string
	}{
		{"not JSON", "hello", websocket.TextMessage, wire.InvalidFrame, ""},
		{"empty", "", websocket.TextMessage, wire.InvalidFrame, ""},
		{"half of an object", `{"event":"join"`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"two objects", `{"event":"typing"}{"event":"typing"}`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"an array", `["join"]`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"a number", `7`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"no event", `{"data":{}}`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"the event is a number", `{"event":7}`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"a long frame id", `{"event":"typing","id":"` + strings.Repeat("x", 65) + `"}`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"binary", "\x00\x01\x02", websocket.BinaryMessage, wire.InvalidFrame, ""},
		{"binary that looks like JSON", `{"event":"connection_alive"}`, websocket.BinaryMessage, wire.InvalidFrame, ""},
		{"deep nesting", strings.Repeat(`{"event":`, 5000), websocket.TextMessage, wire.InvalidFrame, ""},
		{"deep nesting in data", `{"event":"typing","data":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, websocket.TextMessage, wire.InvalidFrame, ""},
		{"unknown event", `{"event":"drop_tables","id":"x"}`, websocket.TextMessage, wire.UnknownEvent, "x"},
		{"an event of the server", `{"event":"received_message","data":{},"id":"x"}`, websocket.TextMessage, wire.UnknownEvent, "x"},
		{"no data", `{"event":"client_sends_message","id":"x"}`, websocket.TextMessage, wire.InvalidArgument, "x"},
		{"data of another type", `{"event":"client_sends_message","data":[1],"id":"x"}`, websocket.TextMessage, wire.InvalidArgument, "x"},
		{"authenticated twice", `{"event":"authenticate","data":{"token":"x"},"id":"x"}`, websocket.TextMessage, wire.InvalidArgument, "x"},
		{"no text", send(`{"conversation_room":` + string(quoted) + `,"content":""}`), websocket.TextMessage, wire.InvalidArgument, "x"},
		{"NUL in the text", send(`{"conversation_room":` + string(quoted) + `,"content":"a\u0000b"}`), websocket.TextMessage, wire.InvalidArgument, "x"},
		{"a text that is too long", send(`{"conversation_room":` + string(quoted) + `,"content":"` + strings.Repeat("x", 16<<10+1) + `"}`), websocket.TextMessage, wire.TooLarge, "x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lisa.In(t).Connect(e.at(0))
			if err := l.Raw(tc.kind, []byte(tc.frame)); err != nil {
				t.Fatal(err)
			}
			if code := l.Error(tc.re); code != tc.want {
				t.Errorf("got %s, want %s", code, tc.want)
			}
			l.MustSend(r, "after "+tc.name)
			a.Message("after " + tc.name)
			l.Drop()
		})
	}
	for name, tc := range map[string]struct {
		kind  int
		frame string
		code  int
	}{
		"2 MB":           {websocket.TextMessage, send(`{"content":"` + strings.Repeat("x", 2<<20) + `"}`), websocket.CloseMessageTooBig},
		"2 MB of binary": {websocket.BinaryMessage, strings.Repeat("\x00", 2<<20), websocket.CloseMessageTooBig},
	} {
		l := lisa.Connect(e.at(0))
		_ = l.Raw(tc.kind, []byte(tc.frame)) // the server may have closed before all was written
		if code := l.Error(""); code != wire.TooLarge {
			t.Errorf("%s: %s", name, code)
		}
		if code := l.Closed(harness.Within); code != tc.code {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
	// Invalid UTF-8 in a text frame: the connection may not live (RFC 6455).
	l := lisa.Connect(e.at(0))
	l.Text("{\"event\":\"\xff\"}")
	if code := l.Closed(harness.Within); code != wire.CloseNotUTF8.Code {
		t.Errorf("invalid UTF-8: closed with %d", code)
	}
	// A frame that is too large, though not by far, is skipped; the next one is taken.
	l = lisa.Connect(e.at(1))
	l.Text(send(`{"content":"` + strings.Repeat("x", 70_000) + `"}`))
	if code := l.Error(""); code != wire.TooLarge {
		t.Errorf("70 KB: %s", code)
	}
	l.MustSend(r, "after one that was too large")
	a.Message("after one that was too large")
	// The largest text that is allowed, of characters that take six bytes in JSON.
	big := strings.Repeat("\x01", 8<<10)
	l = lisa.Connect(e.at(2))
	l.MustSend(r, big)
	a.Message(big)
}

// badRooms: a room of two others, with oneself, of nobody.
func badRooms(t *testing.T, e *env) {
	lisa, avi, mia := e.User("lisa"), e.User("avi"), e.User("mia")
	l := lisa.Joined(e.at(0))
	a, m := avi.Joined(e.at(1)), mia.Joined(e.at(2))
	others := harness.Room(avi, mia)
	for _, tc := range []struct {
		room string
		want wire.Code
	}{
		{others, wire.Forbidden},
		{client.Room(avi.Name, "nobody-at-all"), wire.Forbidden},
		{lisa.Name + "&" + lisa.Name, wire.InvalidArgument},
		{lisa.Name + "&" + strings.ToUpper(lisa.Name), wire.InvalidArgument},
		{lisa.Name + "&nobody-at-all", wire.UnknownUser},
		{lisa.Name, wire.InvalidArgument},
		{"", wire.InvalidArgument},
		{"&", wire.InvalidArgument},
		{lisa.Name + "&*", wire.InvalidArgument},
		{lisa.Name + "&>", wire.InvalidArgument},
		{"*&" + lisa.Name, wire.InvalidArgument},
		{lisa.Name + "&" + avi.Name + "&" + mia.Name, wire.InvalidArgument},
		{lisa.Name + ".*", wire.InvalidArgument},
		{lisa.Name + "&../" + avi.Name, wire.InvalidArgument},
		{lisa.Name + "&" + avi.Name + "\u202e", wire.InvalidArgument},
		{lisa.Name + "&😀", wire.InvalidArgument},
	} {
		for what, re := range map[string]string{
			"send":   l.Send(tc.room, "psst", "", false),
			"join":   l.Say(wire.EvJoin, map[string]any{"room": tc.room}),
			"typing": l.Say(wire.EvTyping, wire.Marker{Room: tc.room}),
			"read":   l.Say(wire.EvRead, wire.Marker{Room: tc.room, Seq: 1}),
		} {
			if what == "join" && tc.room == "" {
				continue // no room at all: invalid_argument for its own reason
			}
			if code := l.Error(re); code != tc.want {
				t.Errorf("%s %q: %s, want %s", what, tc.room, code, tc.want)
			}
		}
	}
	if code := l.Error(l.Say(wire.EvJoin, map[string]any{"rooms": []string{others}})); code != wire.Forbidden {
		t.Errorf("a list of a room of others: %s", code)
	}
	ack := harness.Data[wire.Ack](t, l.Answer(l.Say(wire.EvJoin, map[string]any{"rooms": []string{harness.Room(lisa, avi), others}})))
	if !slices.Equal(ack.Joined, []string{harness.Room(lisa, avi)}) || !slices.Equal(ack.Refused, []wire.Refusal{{Room: others, Code: wire.Forbidden}}) {
		t.Errorf("a list with a room of others: %+v", ack)
	}
	if a := e.Do(http.MethodGet, e.at(0)+"/v1/rooms/"+others+"/messages", lisa.Tokens.AccessToken, nil); a.Status != http.StatusForbidden || a.Code() != wire.Forbidden {
		t.Errorf("reading a room of others: %d %s", a.Status, a.Body)
	}
	a.MustSend(others, "between us")
	m.Message("between us")
	l.MustSend(harness.Room(lisa, avi), "still here")
	a.Message("still here")
	settle()
	if got := l.Received(""); len(got) != 0 {
		t.Errorf("a third person got %q", texts(got))
	}
	if got := texts(a.Received("")); len(got) != 1 {
		t.Errorf("avi got %q", got)
	}
}

// tooManyBadFrames: more than thirty a minute end the connection.
func tooManyBadFrames(t *testing.T, e *env) {
	l := e.User("lisa").Connect(e.at(0))
	for range 30 {
		l.Text("nonsense")
	}
	l.Barrier() // thirty are endured
	if n := len(l.All(wire.EvError)); n != 30 {
		t.Errorf("%d errors for 30 bad frames", n)
	}
	l.Text("nonsense")
	if code := l.Closed(harness.Within); code != wire.CloseBadFrames.Code {
		t.Errorf("closed with %d", code)
	}
}

// names: which can be registered, and that those which look like something else to NATS or to a file system are just names.
func names(t *testing.T, e *env) {
	register := func(name string) harness.Answer {
		return e.Do(http.MethodPost, e.at(1)+"/v1/users", "", map[string]string{"username": name, "password": harness.Password})
	}
	for _, bad := range []string{
		"", "*", ">", ".", "..", "../x", "a/b", "a&b", "&", "a b", " a", "a\n", "a\x00", "-a", "_a", "@a", "😀", "a😀", "a\u202eb", "a\u200bb", "\ufeffa",
		"$SYS", "a*", "a>", strings.Repeat("x", 65), strings.Repeat("é", 65), "a\u2066b", "a\tb", "a'b", `a"b`, "a%26b",
	} {
		if a := register(bad); a.Status != http.StatusBadRequest || a.Code() != wire.InvalidUsername {
			t.Errorf("registering %q: %d %s", bad, a.Status, a.Body)
		}
	}
	// One suffix of this run keeps two runs on one deployment apart.
	suffix := strings.TrimPrefix(e.User("n").Name, "n")
	type person struct {
		name string
		ws   *harness.WS
	}
	var people []person
	for i, base := range []string{"a.b", "a_b", "a-b", "a@b", "a+b", "שלום", "مرحبا", "東京", "éa", strings.Repeat("y", 64-len(suffix)), "7up", "_SYS"[1:]} {
		name := base + suffix
		if a := register(name); a.Status != http.StatusCreated {
			t.Fatalf("registering %q: %d %s", name, a.Status, a.Body)
		}
		u := e.Login(name)
		if u.Name != name {
			t.Errorf("%q became %q", name, u.Name)
		}
		people = append(people, person{name, u.Joined(e.at(i))})
	}
	for i, p := range people {
		q := people[(i+1)%len(people)]
		text := p.name + " to " + q.name
		p.ws.MustSend(client.Room(p.name, q.name), text)
		if m := q.ws.Message(text); m.Sender != p.name {
			t.Errorf("%q came from %q", text, m.Sender)
		}
	}
	for _, p := range people {
		p.ws.Barrier()
		if got := p.ws.Received(""); len(got) != 1 {
			t.Errorf("%q got %q", p.name, texts(got))
		}
	}

	// Names that differ in case only are one name; the registered form is what everybody sees.
	ada := e.User("Ada")
	for _, same := range []string{strings.ToLower(ada.Name), strings.ToUpper(ada.Name), ada.Name} {
		if a := register(same); a.Status != http.StatusConflict || a.Code() != wire.UsernameTaken {
			t.Errorf("registering %q: %d %s", same, a.Status, a.Body)
		}
		if u := e.Login(same); u.Name != ada.Name {
			t.Errorf("%q logs in as %q", same, u.Name)
		}
	}
	bob := e.User("bob")
	at, b := ada.Joined(e.at(0)), bob.Joined(e.at(1))
	if m := b.MustSend(bob.Name+"&"+strings.ToUpper(ada.Name), "whatever the case"); m.Room != harness.Room(ada, bob) {
		t.Errorf("the room came back as %q", m.Room)
	}
	at.Message("whatever the case")
	for _, short := range []string{"", "1234567"} {
		if a := e.Do(http.MethodPost, e.at(0)+"/v1/users", "", map[string]string{"username": "short" + suffix, "password": short}); a.Status != http.StatusBadRequest || a.Code() != wire.InvalidArgument {
			t.Errorf("password %q: %d %s", short, a.Status, a.Body)
		}
	}
}

// origins: pages of others may not open a socket; the server's own may.
func origins(t *testing.T, e *env) {
	tok := e.User("lisa").Tokens.AccessToken
	for _, origin := range []string{"https://evil.example", "null", strings.Replace(e.at(0), "http://", "http://evil.", 1), "http://127.0.0.1:1"} {
		c, resp, err := harness.DialWS(t, e.at(0), harness.DialOptions{Token: tok, Origin: origin})
		if err == nil {
			c.Drop()
			t.Errorf("origin %s was let in", origin)
			continue
		}
		if resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %s: %v", origin, err)
		}
	}
	c, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{Token: tok, Origin: e.at(0)})
	if err != nil {
		t.Fatalf("the server's own page: %v", err)
	}
	c.Expect(wire.EvWelcome, nil)
}
