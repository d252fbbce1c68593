package client

import (
	"time"

	"parley.example/client/wire"
)

// incoming takes a message from the socket. own: it was sent by this connection and has just been accepted. One that is dropped because nobody
// reads events is not noted: it comes again with the next socket.
func (c *Conn) incoming(m wire.Message, own bool) {
	twin, late := c.seen.look(m.Room, m.Seq)
	if twin {
		return
	}
	m.Late = m.Late || late
	if own || c.emit(Message{m}) {
		c.seen.add(m.Room, m.Seq)
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
