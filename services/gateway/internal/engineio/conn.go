package engineio

import (
	"context"
	"crypto/subtle"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/wsconn"
)

// Bounds of one answer to a poll. python-engineio refuses payloads of more than 16 packets.
const (
	pollPackets = 16
	pollBytes   = 256 << 10
)

// upgradePatience is how long a poll goes on waiting after a probe.
const upgradePatience = 50 * time.Millisecond

// pollCancelled is how a session ends whose client gave its poll up: as a connection that is lost.
var pollCancelled = wire.Close{Code: 1006, Reason: "poll cancelled", Reconnect: true}

// farewellTime is how long after its good-bye a client may still end its poll in an orderly way.
const farewellTime = time.Second

// Conn is one connection. Its methods may be called from any goroutine.
//
// Locks: recv is held while a packet is handled and may be held long; mu is held for moments, also under a caller's locks. recv → mu → Server.mu.
type Conn struct {
	srv     *Server
	sid     string
	cookie  string // of a polling session
	handler Handler

	heard atomic.Int64 // Unix seconds of the last sign of life

	recv  sync.Mutex
	limit wsconn.Bucket // of packets in POSTs, of which there is one at a time

	mu      sync.Mutex
	ws      *wsconn.Conn // the transport; nil while it is long-polling
	polling *polling     // nil once it is a WebSocket
	closed  bool
	early   *wire.Close // why it was closed before it had begun

	due    int64  // Unix ns: of the next heartbeat
	late   int64  // Unix ns: when the oldest ping without an answer is overdue, 0 for none
	pinged uint32 // pings sent
	ponged uint32 // answered
}

// polling is what only a connection on that transport needs.
type polling struct {
	queue     [][]byte // encoded packets
	bytes     int64
	polled    bool          // a poll is being answered
	waiting   chan struct{} // it waits; closed to wake it
	last      []byte        // a payload for it, because the connection was closed
	posting   bool
	cookie    bool // the client has shown its cookie
	upgrading bool // there is, or is about to be, a WebSocket that may become the transport
	probe     *wsconn.Conn
	probed    bool  // the probe was answered
	farewell  int64 // Unix ns: closed by the client, a poll until then ends in an orderly way
}

func newConn(s *Server, sid string) *Conn {
	c := &Conn{srv: s, sid: sid}
	c.touch()
	return c
}

func (c *Conn) touch() { c.heard.Store(time.Now().Unix()) }

// LastReceived is when the client gave its last sign of life, a packet or a poll, in Unix seconds.
func (c *Conn) LastReceived() int64 { return c.heard.Load() }

// SID is the session id.
func (c *Conn) SID() string { return c.sid }

// begin makes the connection known; ws is nil for long-polling.
func (c *Conn) begin(h Handler, ws *wsconn.Conn) {
	c.touch() // it may have been asked too early
	c.mu.Lock()
	c.handler, c.ws = h, ws
	if ws == nil {
		c.polling = &polling{}
	} else {
		ws.SendText(c.srv.open(c.sid)) // under mu: who has seen it can be sent to
	}
	c.due = time.Now().Add(c.srv.cfg.PingInterval).UnixNano()
	early := c.early
	c.mu.Unlock()
	if early != nil { // closed while it was being accepted
		if ws != nil {
			ws.Close(*early)
		}
		go c.tell(h, *early)
		return
	}
	c.srv.add(c)
}

// Polling reports whether the transport is long-polling.
func (c *Conn) Polling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws == nil
}

// Frame encodes a message to be sent by SendFrame to any number of connections.
func Frame(text []byte) []byte {
	return wsconn.Text([]byte{typeMessage}, text)
}

// SendFrame sends a message that Frame made.
func (c *Conn) SendFrame(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendFrame(frame)
}

// sendFrame needs mu.
func (c *Conn) sendFrame(frame []byte) {
	switch {
	case c.closed:
	case c.ws != nil:
		c.ws.SendFrame(frame)
	case c.polling != nil:
		c.enqueue(wsconn.Payload(frame))
	}
}

// SendText sends a message.
func (c *Conn) SendText(text []byte) { c.SendFrame(Frame(text)) }

// SendBinary sends a binary message.
func (c *Conn) SendBinary(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendBinary(data)
}

// sendBinary needs mu.
func (c *Conn) sendBinary(data []byte) {
	switch {
	case c.closed:
	case c.ws != nil:
		c.ws.SendBinary(data)
	case c.polling != nil:
		c.enqueue(encodeBinary(data))
	}
}

// SendAll sends a message and binary ones behind it, with no other between them.
func (c *Conn) SendAll(text []byte, binary [][]byte) {
	f := Frame(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendFrame(f)
	for _, b := range binary {
		c.sendBinary(b)
	}
}

// enqueue needs mu.
func (c *Conn) enqueue(p []byte) {
	q := c.polling
	if !c.srv.cfg.Budget.Take(q.bytes, int64(len(p))) {
		c.endLocked(wire.CloseSlow, false)
		return
	}
	q.bytes += int64(len(p))
	q.queue = append(q.queue, p)
	q.wake()
}

func (q *polling) wake() {
	if q.waiting != nil {
		close(q.waiting)
		q.waiting = nil
	}
}

// Ping asks for a pong now and returns the number that Handler.Pong gets. Pings keep their place among the messages.
func (c *Conn) Ping() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ping(time.Now().UnixNano())
}

// ping needs mu.
func (c *Conn) ping(now int64) uint32 {
	if c.closed || c.ws == nil && c.polling == nil {
		return 0
	}
	c.pinged++
	c.due = now + int64(c.srv.cfg.PingInterval)
	if c.late == 0 {
		c.late = now + int64(c.srv.cfg.PingTimeout)
	}
	if c.ws != nil {
		c.ws.SendText([]byte{typePing})
	} else {
		c.enqueue([]byte{typePing})
	}
	return c.pinged
}

// beat is called every so often; pause is for how long nothing ran here, so that answers may lie unread.
func (c *Conn) beat(now time.Time, pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late != 0 {
		c.late += int64(pause)
	}
	c.check(now.UnixNano())
	if c.closed && (c.polling == nil || c.polling.farewell < now.UnixNano()) {
		c.srv.remove(c)
	}
}

// check needs mu. It ends a connection that is overdue, and sends the heartbeat that is due.
func (c *Conn) check(now int64) {
	switch {
	case c.closed:
	case c.late != 0 && now >= c.late:
		c.endLocked(wire.CloseNoPong, false)
	case now >= c.due:
		// As of the moment when it was due, so that the times which clients are told hold whatever our clock's grain is.
		at := c.due
		if now-at > int64(c.srv.cfg.PingTimeout/2) {
			at = now // we were late, not the client
		}
		c.ping(at)
	}
}

// pong takes the answer to the oldest ping. Called with recv.
func (c *Conn) pong() {
	c.mu.Lock()
	if c.ponged == c.pinged || c.closed {
		c.mu.Unlock()
		return // answers nothing
	}
	c.ponged++
	n := c.ponged
	c.late = 0
	if c.ponged != c.pinged {
		c.late = time.Now().Add(c.srv.cfg.PingTimeout).UnixNano()
	}
	c.mu.Unlock()
	c.handler.Pong(n)
}

// Close ends the connection.
func (c *Conn) Close(why wire.Close) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(why, false)
}

// Do runs f as if a packet had come: not at the same time as any other call of the handler, and not after Closed. It may wait for one of them.
func (c *Conn) Do(f func()) {
	c.recv.Lock()
	defer c.recv.Unlock()
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if !closed {
		f()
	}
}

// end is endLocked for who has not got mu.
func (c *Conn) end(why wire.Close, farewell bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(why, farewell)
}

// endLocked needs mu. farewell: the client of a polling session said good-bye itself.
func (c *Conn) endLocked(why wire.Close, farewell bool) {
	if c.closed {
		return
	}
	c.closed = true
	h := c.handler
	if h == nil {
		c.early = &why
		return
	}
	keep := false
	if c.ws != nil {
		c.ws.Close(why)
	}
	if q := c.polling; q != nil {
		switch {
		case q.polled && farewell:
			q.last = []byte{typeNoop}
		case q.polled:
			if q.last = c.take(pollPackets - 1); q.last != nil {
				q.last = append(q.last, separator)
			}
			q.last = append(q.last, typeClose)
		case farewell:
			q.farewell = time.Now().Add(farewellTime).UnixNano()
			keep = true
		}
		q.wake()
		c.srv.cfg.Budget.Give(q.bytes)
		q.queue, q.bytes = nil, 0
		if q.probe != nil {
			q.probe.Close(why)
		}
	}
	if !keep {
		c.srv.remove(c)
	}
	go c.tell(h, why)
}

// tell calls Closed when nothing else of the handler runs any more.
func (c *Conn) tell(h Handler, why wire.Close) {
	c.recv.Lock()
	defer c.recv.Unlock()
	h.Closed(why)
}

// allowed reports whether a request with this cookie may use the session.
func (c *Conn) allowed(cookie string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.polling
	if q == nil {
		return true // a WebSocket needs no cookie: there are no further requests
	}
	same := subtle.ConstantTimeCompare([]byte(cookie), []byte(c.cookie)) == 1
	q.cookie = q.cookie || same
	return same || !q.cookie
}

// poll answers a GET.
func (c *Conn) poll(ctx context.Context) ([]byte, *failure) {
	c.touch()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now().UnixNano(); !c.srv.paused(now) {
		c.check(now)
	}
	q := c.polling
	switch {
	case q == nil:
		return nil, failRequest // it is a WebSocket
	case c.closed:
		if time.Now().UnixNano() < q.farewell {
			q.farewell = 0
			return []byte{typeNoop}, nil
		}
		return nil, failSession
	case q.polled:
		c.endLocked(wire.CloseProtocol, false)
		return nil, failRequest
	}
	q.polled = true
	defer func() { q.polled = false }()
	for timeout := false; ; {
		switch {
		case q.last != nil:
			return q.last, nil
		case c.polling == nil:
			return nil, failRequest
		case c.closed:
			return nil, failSession
		case ctx.Err() != nil:
			// Nobody reads this. The protocol has it as the end: a client that gives its poll up does not come back, and what a proxy cut
			// cannot be told from that.
			c.endLocked(pollCancelled, false)
			return nil, failRequest
		}
		if b := c.take(pollPackets); b != nil {
			return b, nil
		}
		if timeout {
			return []byte{typeNoop}, nil
		}
		// Once a probe was answered, the client may be waiting for its poll to end before it completes the upgrade; but a poll that is
		// still there when the upgrade is completed was not meant to be answered.
		var patience <-chan time.Time
		if q.probed {
			patience = time.After(upgradePatience)
		}
		wake := make(chan struct{})
		q.waiting = wake
		c.mu.Unlock()
		select {
		case <-wake:
		case <-patience:
			timeout = true
		case <-ctx.Done():
		}
		c.mu.Lock()
		q.waiting = nil
	}
}

// take needs mu. It takes a payload of at most so many packets out of the queue, nil when that is empty or belongs to the WebSocket now.
func (c *Conn) take(packets int) []byte {
	q := c.polling
	if q == nil || len(q.queue) == 0 {
		return nil
	}
	n, size := 0, 0
	for n < len(q.queue) && n < packets && (n == 0 || size+len(q.queue[n]) < pollBytes) {
		size += len(q.queue[n]) + 1
		n++
	}
	b := make([]byte, 0, size)
	for i, p := range q.queue[:n] {
		if i > 0 {
			b = append(b, separator)
		}
		b = append(b, p...)
		q.bytes -= int64(len(p))
		c.srv.cfg.Budget.Give(int64(len(p)))
		q.queue[i] = nil
	}
	if q.queue = q.queue[n:]; len(q.queue) == 0 {
		q.queue = nil
	}
	return b
}

// post handles the body of a POST.
func (c *Conn) post(body []byte) ([]byte, *failure) {
	c.mu.Lock()
	q := c.polling
	switch {
	case q == nil:
		c.mu.Unlock()
		return nil, failRequest
	case c.closed:
		c.mu.Unlock()
		return nil, failSession
	case q.posting:
		c.endLocked(wire.CloseProtocol, false)
		c.mu.Unlock()
		return nil, failRequest
	}
	q.posting = true
	c.mu.Unlock()

	err := decodePayload(body, c.posted)
	c.mu.Lock()
	defer c.mu.Unlock()
	q.posting = false
	if err != nil {
		c.endLocked(wire.CloseProtocol, false)
		return nil, failRequest
	}
	return []byte("ok"), nil
}

// posted counts a packet of a POST and handles it. What a WebSocket brings is counted there, as frames.
func (c *Conn) posted(p packet) bool {
	if n := c.srv.cfg.FramesPerSecond; n > 0 && !c.limit.Allow(n, c.srv.cfg.FrameBurst, time.Now()) {
		c.end(wire.CloseRate, false)
		return false
	}
	return c.packet(p)
}

// packet handles one packet, whatever brought it; false when it was the last one.
func (c *Conn) packet(p packet) bool {
	c.touch()
	c.recv.Lock()
	defer c.recv.Unlock()
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return false
	}
	switch {
	case p.binary:
		c.handler.Binary(p.data)
	case p.kind == typeMessage:
		c.handler.Text(p.data)
	case p.kind == typePong:
		c.pong()
	case p.kind == typeClose:
		c.end(wire.CloseNormal, true)
		return false
	case p.kind == typeNoop:
	default:
		// open and ping are the server's; upgrade has its place elsewhere.
		c.end(wire.CloseProtocol, false)
		return false
	}
	return true
}

// Wait returns when everything sent so far has been handed to the kernel or to an answered poll, or the connection has ended.
func (c *Conn) Wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		ws, closed := c.ws, c.closed
		empty := c.polling == nil || len(c.polling.queue) == 0
		c.mu.Unlock()
		switch {
		case closed:
			return nil // the caller's own context says so
		case ws != nil:
			return ws.Wait(ctx)
		case empty:
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond): // a poll takes what is there; nobody is told when
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
