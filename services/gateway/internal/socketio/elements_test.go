package socketio

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// Taking an event apart must find what encoding/json finds.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`[]`, `[ ]`, `["a"]`, ` ["a"]`, `["a",{"b":[1,"],\"",{}]}, null ,"\\" ] `, `["a\u0062"]`, `["connect"]`, `["connec\u0074",1]`, `[1]`, `[""]`, `["\ud800"]`, `[["a"]]`, `["a","",{}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != '[' || !utf8.Valid(b) || !json.Valid(b) {
			t.Skip() // refused before
		}
		var want []json.RawMessage
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		var wantName string
		good := len(want) > 0 && want[0][0] == '"' && json.Unmarshal(want[0], &wantName) == nil && !reserved[wantName]
		name, args, err := event(b)
		if (err == nil) != good {
			t.Fatalf("%s: %v", b, err)
		}
		if !good {
			return
		}
		if name != wantName || len(args) != len(want)-1 {
			t.Fatalf("%s: got %q and %d, want %q and %d", b, name, len(args), wantName, len(want)-1)
		}
		for i, a := range args {
			if string(a) != string(want[i+1]) {
				t.Fatalf("%s: got %s, want %s", b, a, want[i+1])
			}
		}
	})
}

// What was not checked before is refused or taken apart somehow, without a panic.
func TestElementsOfWhatIsNoArray(t *testing.T) {
	for _, s := range []string{``, `[`, `["`, `["\`, `[,]`, `{"a`, `"a"`, `]`, `[[`, `[1`, `["a"`, `["a",`, `["]`} {
		_, _, _ = event(json.RawMessage(s))
	}
}

func BenchmarkEvent(b *testing.B) {
	p := []byte(`2["client_sends_message",{"sender":"u1234","content":"hello","conversation_room":"u1234&u1235","jwt":"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1MTIzNCIsInVpZCI6MX0.c2lnbmF0dXJl"}]`)
	b.ReportAllocs()
	for b.Loop() {
		d, err := decode(p)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := event(d.data); err != nil {
			b.Fatal(err)
		}
	}
}
