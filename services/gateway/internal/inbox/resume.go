package inbox

import (
	"encoding/base64"
	"encoding/binary"

	"parley.example/client/wire"
)

// Resume tokens: a version, then the position in each partition. They are no secret and give no right: a forged one
// changes only what of his own rooms its user is sent.
const resumeVersion = 1

// ErrResume says that a token is none of this protocol.
var ErrResume = wire.E(wire.InvalidArgument, "resume is not a token of this server; join without it")

func encodeResume(v []int64) string {
	b := make([]byte, 0, 2+len(v)*5)
	b = append(b, resumeVersion)
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, n := range v {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// DecodeResume gives the position in each partition of which a token speaks.
func DecodeResume(s string, partitions int) ([]int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 2 || len(s) > 1024 || b[0] != resumeVersion {
		return nil, ErrResume
	}
	b = b[1:]
	n, k := binary.Uvarint(b)
	if k <= 0 || n != uint64(partitions) {
		return nil, ErrResume
	}
	b = b[k:]
	v := make([]int64, n)
	for i := range v {
		x, k := binary.Uvarint(b)
		if k <= 0 || x >= 1<<53 {
			return nil, ErrResume
		}
		v[i] = int64(x)
		b = b[k:]
	}
	if len(b) != 0 {
		return nil, ErrResume
	}
	return v, nil
}

func maxVector(a, b []int64) []int64 {
	out := make([]int64, len(a))
	for i := range a {
		out[i] = a[i]
		if i < len(b) {
			out[i] = max(a[i], b[i])
		}
	}
	return out
}

func minVector(a, b []int64) []int64 {
	out := make([]int64, len(a))
	for i := range a {
		if i < len(b) {
			out[i] = min(a[i], b[i])
		}
	}
	return out
}

// reached reports whether v has all of want. Partitions that v lacks are at 0.
func reached(v, want []int64) bool {
	for p, seq := range want {
		if seq > 0 && (p >= len(v) || v[p] < seq) {
			return false
		}
	}
	return true
}
