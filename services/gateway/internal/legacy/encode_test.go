package legacy

import (
	"strings"
	"testing"

	"parley.example/client/wire"
)

func BenchmarkEncode(b *testing.B) {
	l := &Legacy{}
	m := &wire.Message{Sender: "u1234", Content: strings.Repeat("x", 100), Room: "u1234&u1235", ID: "0123456789abcdefghijkl", Seq: 123456}
	b.ReportAllocs()
	for b.Loop() {
		l.encode(m)
	}
}
