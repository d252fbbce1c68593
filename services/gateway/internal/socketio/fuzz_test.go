package socketio

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "0", `0{"token":"123"}`, "0/custom,", `0/custom,{"token":"abc"}`, "0/random", "abc", "1", "1/custom", `2["message",1,"2",{"3":[true]}]`,
		`52-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, `2456["message-with-ack",1,"2",{"3":[false]}]`,
		`52-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, `62-789[{"_placeholder":true,"num":0}]`, "2{}",
		`2abc["message-with-ack"]`, `3456[1]`, `4/random,{"message":"Invalid namespace"}`, "50-[]", "0/,", "0//", "2/a,007[\"x\"]", "599999999999999999-[]", "2[\"\xff\"]", "2" + strings.Repeat("[", 100),
		`51-["x",{"_placeholder":true,"num":1e400}]`, `51-["x",{"_placeholder":true,"num":0,"num":5}]`, `51-["x",[[{"_placeholder":true,"num":9}]]]`, `2["disconnect"]`, "2[ \"x\" ]", "2[null]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decode(b)
		if err != nil {
			return
		}
		if !utf8.Valid(b) || len(p.namespace) > maxNamespace || len(p.data) > len(b) || p.id >= 1e15 || p.attachments < 0 || p.attachments > 1<<30 || p.namespace[0] != '/' {
			t.Fatalf("%q: %+v", b, p)
		}
		if len(p.data) > 0 && !json.Valid(p.data) {
			t.Fatalf("%q: data %q", b, p.data)
		}
		text := p.encode()
		again, err := decode(text)
		if err != nil || again.kind != p.kind || again.namespace != p.namespace || again.attachments != p.attachments || again.id != p.id || again.hasID != p.hasID ||
			!bytes.Equal(again.data, p.data) || !bytes.Equal(again.encode(), text) {
			t.Fatalf("%q: %+v became %+v (%v)", b, p, again, err)
		}
		name, args, err := event(p.data)
		if err == nil && (reserved[name] || !utf8.ValidString(name)) {
			t.Fatalf("%q: event %q", b, name)
		}
		size := 0
		for _, a := range args {
			size += len(a)
		}
		if size > len(b) {
			t.Fatalf("%q: %d bytes of arguments", b, size)
		}
		// With no attachments, whatever passes has no placeholder at all.
		if placeholders(p.data, 0) && !placeholders(p.data, 5) {
			t.Fatalf("%q: fewer attachments allow more", b)
		}
		if a := (Ack{p.namespace, p.id, p.hasID}); p.hasID {
			if back, err := ParseAck(a.String()); err != nil || back != a {
				t.Fatalf("%q: %+v became %+v (%v)", b, a, back, err)
			}
		}
	})
}
