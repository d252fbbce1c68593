package engineio

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

func FuzzPacket(f *testing.F) {
	for _, s := range []string{"", "4hello", "2probe", "3probe", "5", "6", "2", "3", "1", `0{"sid":"x"}`, "abc", "7", "b", "4\xff", "4é"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePacket(b)
		if valid := len(b) > 0 && b[0] >= '0' && b[0] <= '6' && utf8.Valid(b); valid != (err == nil) {
			t.Fatalf("%q: %v", b, err)
		}
		if err == nil && (p.binary || !bytes.Equal(append([]byte{p.kind}, p.data...), b)) {
			t.Fatalf("%q: %+v", b, p)
		}
	})
}

// encodePayload is what a client would have sent.
func encodePayload(packets []packet) []byte {
	var list [][]byte
	for _, p := range packets {
		if p.binary {
			list = append(list, encodeBinary(p.data))
		} else {
			list = append(list, append([]byte{p.kind}, p.data...))
		}
	}
	return bytes.Join(list, []byte{separator})
}

func FuzzPayload(f *testing.F) {
	for _, s := range []string{
		"", "4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "abc", "1", "3", "4\x1e", "\x1e4", "b", "b=", "bAQI", "bAQ==\x1ebAR==", "bAQ\nI=", "4\xff\x1e4",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(b []byte) (out []packet, err error) {
			err = decodePayload(b, func(p packet) bool { out = append(out, p); return true })
			return out, err
		}
		packets, err := read(b)
		separators := bytes.Count(b, []byte{separator})
		if err != nil {
			if len(packets) > 0 {
				t.Fatalf("%q: refused after %d packets", b, len(packets))
			}
			return
		}
		if len(packets) != separators+1 {
			t.Fatalf("%q: %d packets", b, len(packets))
		}
		size := 0
		for _, p := range packets {
			size += len(p.data)
		}
		if size > len(b) {
			t.Fatalf("%q: %d bytes of packets", b, size)
		}
		again, err := read(encodePayload(packets))
		if err != nil || len(again) != len(packets) {
			t.Fatalf("%q: %v", b, err)
		}
		for i, p := range packets {
			if q := again[i]; p.kind != q.kind || p.binary != q.binary || !bytes.Equal(p.data, q.data) {
				t.Fatalf("%q: %+v became %+v", b, p, q)
			}
		}
		// It stops where it is told to.
		n := 0
		if err := decodePayload(b, func(packet) bool { n++; return n < 2 }); err != nil || n != min(2, len(packets)) {
			t.Fatalf("%q: %d packets, %v", b, n, err)
		}
	})
}
