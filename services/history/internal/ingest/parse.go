package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/services/history/internal/store"
)

// Limits of what goes into SQL as text; gateways send much less. Names have 64 code points at most.
const (
	maxName = 256
	maxID   = 256
)

var (
	errBody   = errors.New("the body is no message")
	errSender = errors.New("the sender is not in the room")
	errText   = errors.New("a name or an id cannot be stored")
)

// parse reads a message of the stream of partition p. ErrVersion comes before anything else: what a newer version wrote is not for this one to judge.
func parse(msg jetstream.Msg, p, known int, seq, sentAt int64) (store.Message, error) {
	m := store.Message{Seq: seq, SentAt: sentAt}
	if v := version(msg.Data()); v > known {
		return m, fmt.Errorf("%w: seq %d has version %d, this history knows up to %d", ErrVersion, seq, v, known)
	}
	in, rm, err := subject.ParsePublish(msg.Subject())
	if err != nil {
		return m, err
	}
	if in != p {
		return m, subject.ErrSubject
	}
	var body api.StoredPayload
	if json.Unmarshal(msg.Data(), &body) != nil {
		return m, errBody
	}
	switch {
	case !rm.Has(body.Sender):
		return m, errSender
	case !storable(rm.A, maxName), !storable(rm.B, maxName), !storable(body.ID, maxID):
		return m, errText
	}
	m.Room, m.ByB, m.ID, m.Content = rm, body.Sender == rm.B, body.ID, []byte(body.Content)
	return m, nil
}

// version is a payload's; what is no JSON object has none, and one that is not a number is above all.
func version(body []byte) int {
	var v struct {
		V json.RawMessage `json:"v"`
	}
	if json.Unmarshal(body, &v) != nil || v.V == nil || string(v.V) == "null" {
		return 1
	}
	n, err := strconv.Atoi(string(v.V))
	if err != nil {
		return math.MaxInt
	}
	return n
}

// storable: PostgreSQL takes neither U+0000 nor what is not UTF-8 as text.
func storable(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}
