package answer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

const (
	marksIdle  = time.Second // between announcements when nothing moves
	marksBatch = 1000        // rows of one announcement: names of 256 bytes fit into 1 MiB
)

// Marks announces marks that requests have moved; see api.Marks. Whoever stores a mark tells of it, after it is stored: nobody else can be sure
// that it is told when a gateway or a connection goes away in between.
type Marks struct {
	publish func(subject string, body []byte) error
	source  string
	wake    chan struct{}

	sending sync.Mutex // announcements leave in their order; before mu
	mu      sync.Mutex
	rows    []api.Mark
	unsure  bool
	at      int64 // under sending
}

// NewMarks takes what publishes. Nothing is sent before Run.
func NewMarks(publish func(subject string, body []byte) error) *Marks {
	return &Marks{publish: publish, source: rand.Text(), wake: make(chan struct{}, 1)}
}

// Moved notes what was moved.
func (m *Marks) Moved(rows ...api.Mark) {
	if len(rows) == 0 {
		return
	}
	m.mu.Lock()
	m.rows = append(m.rows, rows...)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default: // it is on its way
	}
}

// Unsure notes that a request ended with an error, after which its marks may have moved all the same: the next announcement leaves a hole, so
// that gateways ask.
func (m *Marks) Unsure() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsure = true
}

// Run announces until ctx ends.
func (m *Marks) Run(ctx context.Context) error {
	idle := time.NewTicker(marksIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-idle.C:
		}
		m.send(false)
	}
}

// End announces what is left, and that nothing follows.
func (m *Marks) End() { m.send(true) }

// send announces what has moved, in one message or several. One that is not sent shows as a hole in the next one.
func (m *Marks) send(ended bool) {
	m.sending.Lock()
	defer m.sending.Unlock()
	m.mu.Lock()
	rows, unsure := m.rows, m.unsure
	m.rows, m.unsure = nil, false
	m.mu.Unlock()
	if unsure {
		m.at++
	}
	for {
		a := api.Marks{Source: m.source, From: m.at, To: m.at, Rows: rows}
		if len(rows) > marksBatch {
			a.Rows = rows[:marksBatch]
		}
		rows = rows[len(a.Rows):]
		if len(a.Rows) > 0 {
			a.To++
		}
		a.Ended = ended && len(rows) == 0
		m.at = a.To
		body, err := json.Marshal(a)
		if err == nil {
			_ = m.publish(subject.Marks, body) // see above
		}
		if len(rows) == 0 {
			return
		}
	}
}
