package client

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"parley.example/client/wire"
)

// repair is the filling of one gap. Messages of the room wait in held until it is done.
type repair struct {
	after  int64
	held   []held // Conn.mu guards it
	cancel context.CancelFunc
	done   chan struct{}
}

// held is a message that waits; own ones take their place in the order but make no event.
type held struct {
	wire.Message
	own bool
}

// incoming takes a message from the socket. own: it was sent by this connection and has just been accepted.
func (c *Conn) incoming(m wire.Message, own bool) {
	for {
		c.mu.Lock()
		r := c.ledger.room(m.Room)
		if r.seen(&m) {
			r.mark(&m) // a twin has a seq of its own
			c.mu.Unlock()
			return
		}
		rep := r.repair
		if rep == nil {
			break
		}
		if len(rep.held) < maxHeld {
			rep.held = append(rep.held, held{m, own})
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		rep.cancel() // the server sends late what is still missing
		<-rep.done
	}
	r := c.ledger.room(m.Room)
	if after, missing := r.gap(&m); missing {
		select {
		case c.repairs <- struct{}{}:
			ctx, cancel := context.WithTimeout(c.ctx, repairTimeout)
			r.repair = &repair{after: after, held: []held{{m, own}}, cancel: cancel, done: make(chan struct{})}
			c.fillings[r.repair] = struct{}{}
			c.wg.Add(1)
			go c.fill(ctx, r, r.repair, m.Seq)
			c.mu.Unlock()
			return
		default:
		}
	}
	m.Late = m.Late || m.Seq < r.youngest()
	r.mark(&m)
	c.mu.Unlock()
	if !own {
		c.deliver(r, m)
	}
}

// deliver hands a marked message over. One that is dropped comes again: no resume token that was made after it counts.
func (c *Conn) deliver(r *roomState, m wire.Message) {
	if !c.emit(Message{m}) {
		c.mu.Lock()
		r.unmark(&m)
		c.dropped, c.next = true, nil
		c.mu.Unlock()
	}
}

// checkpointed is a resume token that waits until the messages before it that are held back have been handed over.
type checkpointed struct {
	wire.CaughtUp
	caughtUp bool // it came as the end of a catch-up, which is an event
	waits    map[*repair]struct{}
}

// take makes a resume token the one to go on from, now or when no gap is being filled any more that was when it came.
func (c *Conn) take(cu wire.CaughtUp, caughtUp bool) {
	c.mu.Lock()
	switch {
	case c.dropped:
		c.mu.Unlock()
		return
	case len(c.fillings) > 0:
		c.moved = false
		if c.next == nil || caughtUp {
			c.next = &checkpointed{cu, caughtUp, maps.Clone(c.fillings)}
		}
		c.mu.Unlock()
		return
	}
	c.moved = false
	holes := c.setResume(cu.Resume)
	c.mu.Unlock()
	c.resumable(cu, caughtUp, holes)
}

// filled notes that rep has ended, and gives the token that waited for nothing else; c.mu is held.
func (c *Conn) filled(rep *repair) *checkpointed {
	delete(c.fillings, rep)
	if c.next == nil {
		return nil
	}
	delete(c.next.waits, rep)
	if len(c.next.waits) > 0 {
		return nil
	}
	p := c.next
	c.next = nil
	return p
}

// resumable goes on after a resume token was taken.
func (c *Conn) resumable(cu wire.CaughtUp, caughtUp, holes bool) {
	if holes {
		c.wg.Add(1)
		go c.fillHoles()
	}
	if caughtUp {
		c.emit(CaughtUp(cu))
	}
}

// fill asks for what is missing before upto and then lets everything go in order. When it cannot get it in time,
// it lets go what it has: the server finds the hole as well, and sends the message late.
func (c *Conn) fill(ctx context.Context, r *roomState, rep *repair, upto int64) {
	defer c.wg.Done()
	defer func() { <-c.repairs }()
	defer close(rep.done)
	defer rep.cancel()
	var found []held
	for _, m := range c.between(ctx, r.name, rep.after, upto) {
		// One's own whose acceptance was lost: that is what its Send waits for.
		own := m.Sender == c.session.Username() && c.accept(&m)
		found = append(found, held{m, own})
	}
	for {
		c.mu.Lock()
		batch := append(rep.held, found...)
		rep.held, found = nil, nil
		if len(batch) == 0 {
			r.repair = nil
			p, holes := c.filled(rep), false
			if p != nil {
				holes = c.setResume(p.Resume)
			}
			c.mu.Unlock()
			if p != nil {
				c.resumable(p.CaughtUp, p.caughtUp, holes)
			}
			return
		}
		slices.SortStableFunc(batch, func(a, b held) int { return int(a.Seq - b.Seq) })
		next := batch[:0]
		for _, h := range batch {
			if !r.seen(&h.Message) {
				h.Late = h.Late || h.Seq < r.youngest()
				next = append(next, h)
			}
			r.mark(&h.Message)
		}
		c.mu.Unlock()
		for _, h := range next {
			if !h.own {
				c.deliver(r, h.Message)
			}
		}
	}
}

// fillHoles asks for what lies between messages that were seen before the first resume token: another session of the user may have
// confirmed it meanwhile, then the server does not send it again.
func (c *Conn) fillHoles() {
	defer c.wg.Done()
	c.mu.Lock()
	rooms := c.ledger.ranges()
	c.mu.Unlock()
	for _, h := range rooms {
		for !c.startFill(h) {
			if c.ctx.Err() != nil {
				return
			}
		}
	}
}

// startFill begins the filling of h. It returns false when it has waited for another one of the room instead.
func (c *Conn) startFill(h seenRange) bool {
	select {
	case c.repairs <- struct{}{}:
	case <-c.ctx.Done():
		return false
	}
	c.mu.Lock()
	r := c.ledger.room(h.room)
	if rep := r.repair; rep != nil {
		c.mu.Unlock()
		<-c.repairs
		<-rep.done
		return false
	}
	ctx, cancel := context.WithTimeout(c.ctx, repairTimeout)
	r.repair = &repair{after: h.after, cancel: cancel, done: make(chan struct{})}
	c.fillings[r.repair] = struct{}{}
	c.wg.Add(1)
	go c.fill(ctx, r, r.repair, h.youngest)
	c.mu.Unlock()
	return true
}

// between reads the messages with after < seq ≤ upto. History may be a moment behind the stream, so it asks again until
// the answer reaches upto.
func (c *Conn) between(ctx context.Context, room string, after, upto int64) []wire.Message {
	var out []wire.Message
	for wait := 50 * time.Millisecond; ; {
		page, err := c.session.Messages(ctx, room, MessagesQuery{After: &after, Limit: 200})
		// A refusal is final. A gateway that could not be reached has probably died, and another one answers soon.
		if we := (*wire.Error)(nil); errors.As(err, &we) && we.Code != wire.RateLimited {
			return out
		}
		for _, m := range page.Messages {
			if m.Seq > upto {
				return out
			}
			after = m.Seq
			out = append(out, m)
			if m.Seq == upto {
				return out
			}
		}
		if page.More && len(page.Messages) > 0 {
			continue
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait *= 2
		case <-ctx.Done():
			return out
		}
	}
}

// emit puts an event into the queue. A reader of events that waits in Send while the queue is full would wait for ever, for
// the answer comes through the socket that nobody reads: then the connection lags (events are dropped until it is made
// again and resumed), and emit returns false.
func (c *Conn) emit(ev Event) bool {
	if c.lagging.Load() {
		return false
	}
	if c.offer(ev) {
		return true
	}
	c.lagging.Store(true)
	select {
	case c.lagged <- struct{}{}: // tend makes the connection anew when there is room again
	default:
	}
	return false
}

// offer waits for room in the queue, meanwhile the socket is not read and the server sees a slow client; with a Send
// waiting for lagPatience only.
func (c *Conn) offer(ev Event) bool {
	select {
	case c.events <- ev:
		return true
	default:
	}
	patience := time.NewTimer(lagPatience)
	defer patience.Stop()
	var late <-chan time.Time
	sending := c.sending.wait()
	for {
		select {
		case c.events <- ev:
			return true
		case <-sending:
			sending, late = nil, patience.C
		case <-late:
			return false
		case <-c.ctx.Done():
			return false
		}
	}
}
