package sessiontest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/services/gateway/internal/router"
)

// Wire is a Wire that remembers.
type Wire struct {
	Mu         sync.Mutex
	Messages   []wire.Message
	Events     []string
	Marks      []wire.Marker
	MarkEvents []string // of marks
	Resume     string
	Begins     []string // of catching_up
	BeginAt    []int    // and how many messages had come then
	Acks       []wire.Ack
	Errors     []wire.Code
	Closed     *wire.Close
	caught     chan struct{}
}

func NewWire() *Wire { return &Wire{caught: make(chan struct{}, 1000)} }

func (l *Wire) Send(event string, data any, _ string) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.Events = append(l.Events, event)
	if m, ok := data.(wire.Marker); ok {
		l.Marks, l.MarkEvents = append(l.Marks, m), append(l.MarkEvents, event)
	}
	if c, ok := data.(wire.CatchingUp); ok {
		l.Begins = append(l.Begins, c.Resume)
		l.BeginAt = append(l.BeginAt, len(l.Messages))
	}
	if a, ok := data.(wire.Ack); ok {
		l.Acks = append(l.Acks, a)
	}
	if e, ok := data.(*wire.Error); ok {
		l.Errors = append(l.Errors, e.Code)
	}
	if c, ok := data.(wire.CaughtUp); ok {
		l.Resume = c.Resume
		l.caught <- struct{}{}
	}
	if a, ok := data.(wire.Ack); ok && a.Resume != "" {
		l.Resume = a.Resume
	}
}
func (l *Wire) SendMessage(d *router.Delivery) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.Messages = append(l.Messages, d.Message)
}
func (l *Wire) Close(why wire.Close)       { l.Mu.Lock(); defer l.Mu.Unlock(); l.Closed = &why }
func (l *Wire) Wait(context.Context) error { return nil }

// Seqs are those of the messages of a room, as they came.
func (l *Wire) Seqs(rm room.Room) (out []int64) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	for _, m := range l.Messages {
		if m.Room == rm.String() {
			out = append(out, m.Seq)
		}
	}
	return out
}

// LastAck is the last one, which there must be.
func (l *Wire) LastAck(t *testing.T) wire.Ack {
	t.Helper()
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if len(l.Acks) == 0 {
		t.Fatal("no ack")
	}
	return l.Acks[len(l.Acks)-1]
}

// Codes are those of the errors, as they came.
func (l *Wire) Codes() []wire.Code {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return slices.Clone(l.Errors)
}

// WaitCaughtUp waits for the next caught_up.
func (l *Wire) WaitCaughtUp(t *testing.T) {
	t.Helper()
	select {
	case <-l.caught:
	case <-time.After(30 * time.Second):
		t.Fatal("never caught up")
	}
}
