package client

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"parley.example/client/wire"
)

// Accepted says that a message is stored: it reaches both users from now on, whatever breaks.
type Accepted struct {
	ID     string
	Room   string
	Seq    int64
	SentAt time.Time
}

// Outgoing is a message to send. ID is its idempotency key, made by Send when "". Retry: it was sent before, perhaps by another
// process, and its outcome is not known.
type Outgoing struct {
	Room, Content, ID string
	Retry             bool
}

// OutcomeUnknownError is what Send returns when ctx ended, or the connection for good, after the message went out: it may be
// stored or not. To find out, send it again with the same ID and Retry.
type OutcomeUnknownError struct {
	ID  string
	Err error
}

// Error makes *OutcomeUnknownError an error.
func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("message %s has no known outcome: %v", e.ID, e.Err)
}

// Unwrap gives the cause.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

type outcome struct {
	acc Accepted
	err *wire.Error
}

// sending is a message without an outcome.
type sending struct {
	content string
	result  chan outcome // room for one
}

// Send stores content in room and returns when that is done. It goes on through broken connections and outages
// until ctx ends. Calls one after the other keep their order; calls at the same time have none.
func (c *Conn) Send(ctx context.Context, room, content string) (Accepted, error) {
	return c.SendMessage(ctx, Outgoing{Room: room, Content: content})
}

// SendMessage is Send with an id of the caller's. What the server refuses comes back as *wire.Error.
func (c *Conn) SendMessage(ctx context.Context, m Outgoing) (Accepted, error) {
	if m.ID == "" {
		m.ID = newID()
	}
	if !wire.ValidMessageID(m.ID) {
		return Accepted{}, wire.E(wire.InvalidArgument, "a message id is 1 to 64 of A-Z a-z 0-9 _ . : -")
	}
	if m.Content == "" || m.Room == "" {
		return Accepted{}, wire.E(wire.InvalidArgument, "a message has a room and text")
	}
	s := &sending{m.Content, make(chan outcome, 1)}
	if err := c.register(m.ID, s); err != nil {
		return Accepted{}, err
	}
	retry := m.Retry // true as soon as it may have reached the server
	left := false    // unregistered
	defer func() {
		if !left {
			c.unregister(m.ID, nil)
		}
	}()
	unknown := func(err error) (Accepted, error) {
		if !retry {
			return Accepted{}, err
		}
		left = true
		if acc, ok := c.unregister(m.ID, s); ok {
			return acc, nil
		}
		return Accepted{}, &OutcomeUnknownError{m.ID, err}
	}
	for wait := 100 * time.Millisecond; ; {
		l, err := c.linkUp(ctx)
		if err != nil {
			return unknown(err)
		}
		frame := wire.Encode(wire.EvSend, wire.Send{Room: m.Room, Content: m.Content, ID: m.ID, Retry: retry}, "")
		again := retry
		retry = true
		l.write(withID(frame, m.ID)) // a failure shows in l.down
		o, answered, err := c.answer(ctx, l, s)
		switch {
		case err != nil:
			return unknown(err)
		case !answered:
			continue
		case o.err == nil:
			return o.acc, nil
		// A refusal by rate says nothing about an earlier attempt.
		case o.err.Code != wire.Unavailable && (o.err.Code != wire.RateLimited || !again):
			return Accepted{}, o.err
		}
		pause := max(mrand.N(wait), time.Duration(o.err.RetryAfterMS)*time.Millisecond)
		wait = min(2*wait, 5*time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return unknown(ctx.Err())
		case <-c.done:
			return unknown(c.Err())
		}
	}
}

// answer waits for what the server says of a message that was written to l; answered is false when l ends before. A server that is
// silent for long is asked whether it is there: the network may be gone without a good-bye.
func (c *Conn) answer(ctx context.Context, l *link, s *sending) (o outcome, answered bool, err error) {
	overdue := time.NewTicker(c.o.AnswerTimeout / 3)
	defer overdue.Stop()
	for {
		select {
		case o := <-s.result:
			return o, true, nil
		case <-l.down:
			return o, false, nil
		case <-overdue.C:
			go c.probe(l)
		case <-ctx.Done():
			go c.probe(l) // that the caller's patience has ended does not make the connection a good one
			return o, false, ctx.Err()
		}
	}
}

// withID puts a frame's own id in: wire.Encode makes frames of servers, which have "re" in its place.
func withID(frame []byte, id string) []byte {
	b := append(frame[:len(frame)-1:len(frame)-1], `,"id":`...)
	return append(wire.AppendString(b, id), '}')
}

func newID() string { return strings.ToLower(rand.Text()) }

func (c *Conn) register(id string, s *sending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.pending) >= MaxPending:
		return ErrTooManyPending
	case c.pending[id] != nil:
		return ErrInFlight
	}
	c.pending[id] = s
	delete(c.left, id)
	if len(c.pending) == 1 {
		c.sending.open()
	}
	return nil
}

// unregister ends a send. With s it is one that was given up: an acceptance that has come meanwhile counts, and one that comes later makes
// an event, as if somebody else had sent the message.
func (c *Conn) unregister(id string, s *sending) (Accepted, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
	if len(c.pending) == 0 {
		c.sending.close()
	}
	if s == nil {
		return Accepted{}, false
	}
	select {
	case o := <-s.result:
		if o.err == nil {
			return o.acc, true
		}
	default:
	}
	for other := range c.left {
		if len(c.left) < MaxPending {
			break
		}
		delete(c.left, other)
	}
	c.left[id] = s
	return Accepted{}, false
}

// refuse gives the send of id a no for its outcome; false when there is none.
func (c *Conn) refuse(id string, err *wire.Error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.pending[id]
	if s == nil {
		return false
	}
	select {
	case s.result <- outcome{err: err}:
	default: // there is one
	}
	return true
}

// accept gives the send of m its outcome, and reports whether somebody waited for it. The content of m is empty in an acceptance; it is
// filled in where a send was given up.
func (c *Conn) accept(m *wire.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.pending[m.ID]
	if s == nil || m.Content != "" && m.Content != s.content { // an id that was used before, for another text
		if l := c.left[m.ID]; l != nil && m.Content == "" {
			m.Content = l.content
			delete(c.left, m.ID)
		}
		return false
	}
	o := outcome{acc: accepted(m)}
	select {
	case s.result <- o:
	default: // an answer to an earlier attempt lies there already; an acceptance beats it
		select {
		case <-s.result:
		default:
		}
		s.result <- o
	}
	return true
}

// gate is a condition to wait for in a select.
type gate struct {
	mu sync.Mutex
	ch chan struct{} // closed while open
}

func newGate() *gate { return &gate{ch: make(chan struct{})} }

func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ch
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.ch)
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ch = make(chan struct{})
}
