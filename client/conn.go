package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
)

// Options of a connection. Only Session is required.
type Options struct {
	Session *Session
	Rooms   []string // nil: all rooms of the user, also those that come to be later; NotJoined tells of those that cannot be joined
	Device  string   // a name that lets the server remember what this device has; at most 64 characters
	Resume  string   // where an earlier process stopped (CaughtUp.Resume)
	Buffer  int      // events that may wait to be read, default DefaultBuffer
	// MinBackoff and MaxBackoff bound the wait before a reconnect, which is random between 0 and a limit that doubles
	// from the one to the other (full jitter). Default 500 ms and 15 s.
	MinBackoff, MaxBackoff time.Duration
	// AnswerTimeout is how long a message waits on a connection that says nothing at all, before another one is made; 15 s if 0. A server
	// that is there says something: it is asked after a third of that.
	AnswerTimeout time.Duration
}

// Conn is a connection that stays up until Close, or until the server says something that waiting cannot mend (Err tells).
// All methods are safe for concurrent use. Events must be read.
//
// Goroutines: run reads the socket and reconnects; tend, one while there is a socket, renews tokens. Close ends them.
type Conn struct {
	o       Options
	session *Session
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // tend

	events  chan Event
	done    chan struct{} // closed at the end
	sending *gate         // open while sends wait for an outcome
	lagging atomic.Bool   // set by emit, cleared by the next socket
	lagged  chan struct{} // wakes tend
	moved   atomic.Bool   // there were messages after the last resume token
	seen    seen          // of the goroutine that reads the socket

	mu      sync.Mutex // guards what follows
	link    *link      // nil while there is none that has joined
	up      chan struct{}
	pending map[string]*sending
	left    map[string]*sending // given up without an outcome, at most MaxPending
	watch   []string            // nil: all
	// frameBytes is what the server takes; 0 before it said so.
	frameBytes int
	resume     string
	joined     bool // at least once
	closing    bool
	err        error
}

// Dial connects and joins. It tries once, so that a wrong address shows at once; ctx bounds that only. From then on the connection
// comes back by itself.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	if o.Session == nil {
		return nil, errors.New("a connection needs a session")
	}
	if o.Buffer <= 0 {
		o.Buffer = DefaultBuffer
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 500 * time.Millisecond
	}
	if o.AnswerTimeout <= 0 {
		o.AnswerTimeout = answerTimeout
	}
	if o.MaxBackoff < o.MinBackoff {
		o.MaxBackoff = max(15*time.Second, o.MinBackoff)
	}
	c := &Conn{
		o: o, session: o.Session, resume: o.Resume, pending: map[string]*sending{}, left: map[string]*sending{},
		events: make(chan Event, o.Buffer), done: make(chan struct{}), up: make(chan struct{}), sending: newGate(), lagged: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	l, err := c.connect(ctx, welcomeTimeout)
	if err != nil {
		c.cancel()
		return nil, err
	}
	go c.run(l)
	return c, nil
}

// Events is closed at the end; Err then says why.
func (c *Conn) Events() <-chan Event { return c.events }

// Err is why the connection ended for good: ErrClosed after Close, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Resume is the last resume token, "" before the first one came: of the place where a catch-up began or, from CaughtUp on, of one up to which
// everything came. It may be ahead of events that wait to be read.
func (c *Conn) Resume() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resume
}

// Typing tells the other user of room that one types. Like Read and Watch it writes to the present socket or returns ErrNotConnected; ctx
// bounds how long it waits for its turn to write.
func (c *Conn) Typing(ctx context.Context, room string) error {
	return c.say(ctx, wire.EvTyping, wire.Marker{Room: room})
}

// Read marks room as read up to seq.
func (c *Conn) Read(ctx context.Context, room string, seq int64) error {
	return c.say(ctx, wire.EvRead, wire.Marker{Room: room, Seq: seq})
}

// Watch narrows presence to these users, also after a reconnect. While there is no connection it returns ErrNotConnected and
// holds from the next one on. A list that does not fit into one frame of the server is refused with too_large, and the earlier one stays.
func (c *Conn) Watch(ctx context.Context, usernames []string) error {
	w := wire.Watch{Usernames: append([]string{}, usernames...)}
	c.mu.Lock()
	most := c.frameBytes
	if most <= 0 {
		most = wire.DefaultFrameBytes
	}
	if len(wire.Encode(wire.EvWatch, w, "")) > most {
		c.mu.Unlock()
		return wire.E(wire.TooLarge, "the list of names does not fit into one frame")
	}
	c.watch = w.Usernames
	c.mu.Unlock()
	return c.say(ctx, wire.EvWatch, w)
}

// say sends what has no answer, or ErrNotConnected.
func (c *Conn) say(ctx context.Context, event string, data any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l == nil {
		return ErrNotConnected
	}
	return l.writeWithin(ctx, wire.Encode(event, data, ""))
}

// Close leaves: the user is offline at once if this was the last session. It waits up to 2 s for the server's good-bye, and for
// every goroutine of the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closing = true
	l := c.link
	c.mu.Unlock()
	if l != nil && l.write(wire.Encode(wire.EvDisconnection, nil, "")) == nil {
		bye := time.NewTimer(2 * time.Second)
		defer bye.Stop()
		select {
		case <-l.down:
		case <-bye.C:
		}
	}
	c.cancel()
	<-c.done
	return nil
}

// run owns the socket: it reads, and makes a new one when it breaks.
func (c *Conn) run(l *link) {
	defer c.finish()
	for attempt := 0; ; attempt++ {
		opening := openTimeout // a load balancer takes connections for a server that has just gone, and nobody answers
		joined := time.Now()
		err := c.serve(l)
		if time.Since(joined) > c.o.MaxBackoff {
			attempt = 0 // it was a good one
		}
		for {
			wait, ferr := c.plan(err, attempt, l)
			if ferr != nil {
				c.fail(ferr)
				return
			}
			if l != nil {
				c.offer(Disconnected{err, wait})
				l = nil
			}
			select {
			case <-time.After(wait):
			case <-c.ctx.Done():
				c.fail(ErrClosed)
				return
			}
			if l, err = c.connect(c.ctx, opening); err == nil {
				break
			}
			l = nil
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				opening = min(2*opening, welcomeTimeout)
			}
			attempt++
		}
		c.offer(Reconnected{})
	}
}

// plan decides about the next attempt after err: when, or that there is none. l is the link that broke, nil after a
// failed attempt.
func (c *Conn) plan(err error, attempt int, l *link) (time.Duration, error) {
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	if closing || c.ctx.Err() != nil {
		return 0, ErrClosed
	}
	ceiling := min(c.o.MaxBackoff, c.o.MinBackoff<<min(attempt, 16))
	var ce *CloseError
	var we *wire.Error
	switch {
	case l != nil && l.planned.Load():
		return 0, nil // the server has said when already, or the events have been read at last
	case refusedToken(err):
		if l == nil { // connect has renewed it if that was possible
			return 0, err
		}
	case errors.As(err, &ce):
		if !wire.ShouldReconnect(ce.Code) {
			return 0, err
		}
		if ce.Code == wire.CloseRate.Code || ce.Code == wire.CloseTooMany.Code {
			ceiling = c.o.MaxBackoff // coming back soon would end the same way
		}
	case errors.As(err, &we):
		if !we.Code.Temporary() {
			return 0, err
		}
		return max(rand.N(ceiling), time.Duration(we.RetryAfterMS)*time.Millisecond), nil
	}
	return rand.N(ceiling), nil
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *Conn) finish() {
	c.cancel()
	c.wg.Wait()
	close(c.done)
	close(c.events)
}

// attach makes l the link that sends use.
func (c *Conn) attach(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lagging.Store(false)
	c.link, c.joined = l, true
	close(c.up)
}

func (c *Conn) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = nil
	c.up = make(chan struct{})
}

// linkUp waits for a link.
func (c *Conn) linkUp(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, up := c.link, c.up
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a connection: %w", ctx.Err())
		case <-c.done:
			return nil, c.Err()
		}
	}
}
