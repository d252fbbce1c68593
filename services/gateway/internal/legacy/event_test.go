package legacy

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// The short way to read an event must find what the long one finds.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `7`, `"x"`, `{"client":"Avi"}`, ` { "room" : "Avi&Lisa" , "client":"Avi", "jwt":"e.y.J" } `,
		`{"sender":"Avi","content":"hi","conversation_room":"Avi&Lisa","jwt":"x"}`, `{"sender":"Avi","content":"a\"b\\","id":"7","retry":true}`,
		`{"content":"é\u00e9\ud800"}`, `{"content":null,"content":"x"}`, `{"content":"x","content":null}`, `{"content":"x","content":"y"}`,
		`{"Content":"x"}`, `{"CONTENT":"x","content":"y"}`, `{"room":7}`, `{"id":7}`, `{"room":{"room":"x"}}`, `{"other":"x","room":"y"}`, `{"room":"","":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) || !json.Valid(b) {
			t.Skip() // refused before
		}
		var got, want event
		gotErr, wantErr := got.read(b), want.readKeys(b)
		if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%s:\ngot  %s (%v)\nwant %s (%v)", b, text(got), gotErr, text(want), wantErr)
		}
	})
}

func text(e event) string {
	b, _ := json.Marshal(e) // for a person
	return string(b)
}

func BenchmarkEvent(b *testing.B) {
	for name, s := range map[string]string{
		"alive":   `{"client":"u1234"}`,
		"message": `{"sender":"u1234","content":"` + string(make100()) + `","conversation_room":"u1234&u1235","jwt":"` + string(make100()) + string(make100()) + `"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var e event
				if e.read([]byte(s)) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

func make100() []byte {
	b := make([]byte, 100)
	for i := range b {
		b[i] = 'x'
	}
	return b
}
