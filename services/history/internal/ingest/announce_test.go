package ingest

import (
	"encoding/json"
	"strings"
	"testing"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/testx"
	"parley.example/services/history/internal/store"
)

// Rows that do not fit into a message of NATS are left out, all of them, and the announcement says so.
func TestAnnouncementsFitIntoAMessage(t *testing.T) {
	var sent []byte
	s := &session{log: testx.Quiet(), in: &Ingest{deps: Deps{Publish: func(subject string, body []byte) error {
		if subject != "applied.3" {
			t.Errorf("sent to %s", subject)
		}
		sent = body
		return nil
	}}}, p: 3}
	s.state.Epoch = 7
	for _, c := range []struct {
		names   string // of the two, but for their last letter
		rows    int
		omitted bool
	}{
		{"avi", 1000, false},
		{strings.Repeat("\U00010400", 63), 900, false},
		{strings.Repeat("\U00010400", 63), 1000, true}, // names of the longest kind
		{"lisa", 0, false},
	} {
		var ms []store.Message
		from := s.state.Seq
		for i := range c.rows {
			ms = append(ms, store.Message{Room: room.Room{A: c.names + "a", B: c.names + "b"}, Seq: from + int64(i) + 1})
		}
		s.state.Seq += int64(c.rows)
		s.announce(ms)
		var a api.Applied
		if err := json.Unmarshal(sent, &a); err != nil {
			t.Fatal(err)
		}
		rows := c.rows
		if c.omitted {
			rows = 0
		}
		if len(sent) > 1<<20 || a.P != 3 || a.Epoch != 7 || a.From != from || a.To != s.state.Seq || a.RowsOmitted != c.omitted || len(a.Rows) != rows {
			t.Errorf("%d rows of %d characters: %d bytes, from %d to %d, omitted %t, %d rows", c.rows, len(c.names), len(sent), a.From, a.To, a.RowsOmitted, len(a.Rows))
		}
	}
}
