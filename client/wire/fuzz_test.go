package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzDecodeFrame(f *testing.F) {
	for _, g := range frames() {
		f.Add(g.bytes)
	}
	for _, s := range []string{"", "[]", `{"event":"x"}}`, `{"event":"\ud800"}`, nest(MaxDepth), nest(MaxDepth + 1), `{"event":"x","data":"\\\"}]"}`, `}{"event":"x"}`, `{"EVENT":"x","event":"y"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeFrame(b)
		if err != nil {
			if code(err) != InvalidFrame {
				t.Fatalf("%v", err)
			}
			// What encoding/json takes as a frame is refused for one of the stated reasons only.
			var f Frame
			if utf8.Valid(b) && json.Valid(b) && Check(b) == nil && json.Unmarshal(exactKeys(b, &f), &f) == nil && f.Event != "" && utf8.RuneCountInString(f.ID) <= MaxIDChars && depth(b) <= MaxDepth {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if !json.Valid(b) || !utf8.Valid(b) || bytes.TrimSpace(b)[0] != '{' || got.Event == "" || utf8.RuneCountInString(got.ID) > MaxIDChars || depth(b) > MaxDepth {
			t.Fatalf("taken: %+v", got)
		}
		if len(got.Data) > 0 && !json.Valid(got.Data) {
			t.Fatalf("data %s", got.Data)
		}
	})
}

// depth is the nesting as a tokenizer sees it.
func depth(b []byte) int {
	d := json.NewDecoder(bytes.NewReader(b))
	deepest, now := 0, 0
	for {
		tok, err := d.Token()
		if err != nil {
			return deepest
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			now++
			deepest = max(deepest, now)
		case json.Delim('}'), json.Delim(']'):
			now--
		}
	}
}

// dataTypes has the data of every event that has any.
func dataTypes() map[string]func() any {
	return map[string]func() any{
		EvAuthenticate: func() any { return &Authenticate{} }, EvRefreshToken: func() any { return &Authenticate{} }, EvJoin: func() any { return &Join{} },
		EvSend: func() any { return &Send{} }, EvTyping: func() any { return &Marker{} }, EvRead: func() any { return &Marker{} }, EvWatch: func() any { return &Watch{} },
		EvWelcome: func() any { return &Welcome{} }, EvAck: func() any { return &Ack{} }, EvAccepted: func() any { return &Message{} }, EvReceived: func() any { return &Message{} },
		EvPresence: func() any { return &Presence{} }, EvDelivered: func() any { return &Marker{} }, EvContactAdded: func() any { return &Contact{} },
		EvContactRemoved: func() any { return &Contact{} }, EvGoingAway: func() any { return &GoingAway{} }, EvCatchingUp: func() any { return &CatchingUp{} }, EvCaughtUp: func() any { return &CaughtUp{} }, EvError: func() any { return &Error{} },
	}
}

func TestEventsHaveDataTypes(t *testing.T) {
	types := dataTypes()
	for _, e := range append(append([]string{}, ClientEvents...), ServerEvents...) {
		if none := e == EvAlive || e == EvDisconnection; none == (types[e] != nil) {
			t.Errorf("%s: %v", e, types[e] != nil)
		}
	}
}

func FuzzDecodeData(f *testing.F) {
	for _, g := range frames() {
		fr, err := DecodeFrame(g.bytes)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(fr.Data))
	}
	for _, s := range []string{`{"rooms":"*"}`, `{"rooms":["a&b",null]}`, `{"rooms":null}`, `{"since":{"a":-1}}`, `{"usernames":null}`, `{"seq":1e3}`, `null`, `[]`, `{"sent_at":"9999-12-31T23:59:59.999999999Z"}`,
		`{"sent_at":"0000-01-01T00:00:00+23:59"}`, `{"offline":[{"last_seen":null}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for event, fresh := range dataTypes() {
			v := fresh()
			if err := DecodeData(Frame{Event: event, Data: b}, v); err != nil {
				if code(err) != InvalidArgument {
					t.Fatalf("%s: %v", event, err)
				}
				continue
			}
			// What was understood comes back when it is said again.
			again := fresh()
			frame, err := DecodeFrame(Encode(event, v, ""))
			if err != nil {
				t.Fatalf("%s: %v", event, err)
			}
			if err := DecodeData(frame, again); err != nil {
				t.Fatalf("%s: %s: %v", event, frame.Data, err)
			}
			one, two := Encode(event, v, ""), Encode(event, again, "")
			if !bytes.Equal(one, two) {
				t.Fatalf("%s: %s became %s", event, one, two)
			}
		}
	})
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", full().Content, "\xed\xa0\x80", "\xf4\x90\x80\x80", strings.Repeat("\"\\", 50), "�"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := AppendString([]byte("prefix"), s)
		got, ok := bytes.CutPrefix(got, []byte("prefix"))
		if !ok || !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("%q became %s", s, got)
		}
		if bytes.ContainsAny(got, "\n\r\u2028\u2029") {
			t.Fatalf("a line end stands in %s", got)
		}
		std, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var a, b string
		if json.Unmarshal(got, &a) != nil || json.Unmarshal(std, &b) != nil || a != b {
			t.Fatalf("%q reads %q, with encoding/json %q", s, a, b)
		}
		if utf8.ValidString(s) && a != s {
			t.Fatalf("%q reads %q", s, a)
		}
	})
}

// FuzzAppendMessage holds the hot path against encoding/json.
func FuzzAppendMessage(f *testing.F) {
	f.Add("Avi", "hello", "Avi&Lisa", "m-1", int64(7), int64(3), true, false, int64(1767225600123), "re")
	f.Add("", full().Content, "\"", "\\", int64(-1), int64(0), false, true, int64(0), "")
	f.Fuzz(func(t *testing.T, sender, content, room, id string, seq, prev int64, hasPrev, late bool, ms int64, re string) {
		if ms < 0 || ms > time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli() {
			return // RFC 3339 has no such year
		}
		m := &Message{Sender: sender, Content: content, Room: room, ID: id, Seq: seq, SentAt: Millis(ms), Late: late}
		if hasPrev {
			m.Prev = &prev
		}
		for _, accepted := range []bool{false, true} {
			want, event := *m, EvReceived
			if accepted {
				want.Sender, want.Content, want.Late, event = "", "", false, EvAccepted
			}
			var a, b map[string]any
			if err := json.Unmarshal(AppendMessage(nil, m, accepted, re), &a); err != nil {
				t.Fatalf("%s: %v", AppendMessage(nil, m, accepted, re), err)
			}
			if err := json.Unmarshal(Encode(event, want, re), &b); err != nil {
				t.Fatal(err)
			}
			// An empty sender, which no message has, is written by one and left out by the other; an acceptance has no content.
			for _, k := range []string{"sender", "content"} {
				for _, f := range []map[string]any{a, b} {
					if data := f["data"].(map[string]any); data[k] == "" && (k == "sender" || accepted) {
						delete(data, k)
					}
				}
			}
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("%v\n%v", a, b)
			}
		}
	})
}

func FuzzValidMessageID(f *testing.F) {
	for _, s := range []string{"", "a", "a b", strings.Repeat("x", 65), "é", "a\n"} {
		f.Add(s)
	}
	re := regexp.MustCompile(`\A[A-Za-z0-9_.:-]{1,64}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if ValidMessageID(s) != re.MatchString(s) {
			t.Fatalf("%q: %v", s, ValidMessageID(s))
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	f.Add("2026-03-01T09:30:00.123Z")
	f.Add("0000-01-01T00:00:00+23:59")
	f.Add("9999-12-31T23:59:59-23:59")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var ts, again Timestamp
		if json.Unmarshal(in, &ts) != nil {
			return
		}
		out, err := json.Marshal(ts)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || ts.Sub(again.Time) < 0 || ts.Sub(again.Time) >= time.Millisecond {
			t.Fatalf("%s became %s: %v", s, out, err)
		}
	})
}
