package ingest

import (
	"encoding/json"
	"strconv"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/services/history/internal/store"
)

// maxRows bounds the rows of an announcement, in bytes: NATS carries 1 MiB.
const maxRows = 500 << 10

// announce says that SQL has everything up to the position. What is not sent shows as a hole in the next one.
func (s *session) announce(ms []store.Message) {
	a := api.Applied{P: s.p, From: s.announced, To: s.state.Seq, Epoch: s.state.Epoch}
	bytes := 0
	for i := range ms {
		m := &ms[i]
		if bytes += len(m.Room.A) + len(m.Room.B) + 48; bytes > maxRows {
			a.Rows, a.RowsOmitted = nil, true
			break
		}
		a.Rows = append(a.Rows, api.Row{A: m.Room.A, B: m.Room.B, Seq: m.Seq})
	}
	body, err := json.Marshal(a)
	if err == nil {
		err = s.in.deps.Publish(subject.AppliedPrefix+strconv.Itoa(s.p), body)
	}
	if err != nil {
		s.log.Debug("an announcement was not sent", "error", err)
	}
	s.announced = s.state.Seq
}
