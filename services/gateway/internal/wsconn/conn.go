// Package wsconn moves bytes: WebSocket frames in, WebSocket frames out. It knows nothing of chat.
//
// It reads and writes frames itself (docs/adr/0004 and 0069): the server's frames are unmasked, so one encoded frame can be shared by
// all recipients, several go out in one writev, and an idle connection needs neither a writer goroutine nor a write buffer. And
// every frame that is read is counted, whatever it is.
package wsconn

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
)

// Handler gets what the peer sends, one call after the other.
type Handler interface {
	// Frame is one text message, in UTF-8; b is valid during the call only.
	Frame(b []byte)
	// Binary is one binary message; b is valid during the call only.
	Binary(b []byte)
	// Pong answers the Ping with the same number.
	Pong(n uint32)
	// Closed is called last and once, however the connection ended.
	Closed(why wire.Close)
}

// Skipper is a Handler that can live without a message that is larger than FrameBytes.
type Skipper interface {
	// TooLarge says that there was one. It was read and thrown away; or, when it was much larger (skipFrames), the connection ends.
	TooLarge()
}

// skipFrames times FrameBytes is what a Skipper's connection reads of a message that is too large.
const skipFrames = 16

// Config of connections.
type Config struct {
	FrameBytes int // largest message accepted
	// FramesPerSecond and FrameBurst limit the frames that a peer sends: parts of messages, pings and pongs too. More of them close
	// the connection; 0 is no limit.
	FramesPerSecond, FrameBurst int
	Budget                      *Budget
}

// Upgrader turns HTTP requests into connections.
type Upgrader struct {
	cfg      Config
	protocol string
}

// readBuffer is small because most connections are idle most of the time; larger reads bypass it.
const readBuffer = 512

// NewUpgrader returns an Upgrader that selects the subprotocol when the client offers it; "" for none.
func NewUpgrader(cfg Config, subprotocol string) *Upgrader {
	return &Upgrader{cfg: cfg, protocol: subprotocol}
}

// Conn is one connection. Its methods may be called from any goroutine.
type Conn struct {
	nc      net.Conn
	br      *bufio.Reader
	out     outbox
	cfg     *Config
	limit   Bucket       // of frames; reader only
	lastRx  atomic.Int64 // Unix seconds of the last sign of life
	why     atomic.Pointer[wire.Close]
	handler Handler
}

// Start begins to read in a goroutine of its own, which ends with h.Closed. The HTTP handler's goroutine is
// free to return, and with it all that net/http holds for the request.
func (c *Conn) Start(h Handler) {
	c.handler = h
	go c.read()
}

func (c *Conn) read() {
	c.readAll()
	c.finish()
	why := c.why.Load()
	if why == nil {
		why = &wire.Close{Code: 1006, Reason: "connection lost", Reconnect: true}
	}
	c.handler.Closed(*why)
}

// lingerTime and lingerBytes bound what is read after our close frame, so that the peer's kernel delivers the frame
// instead of a reset.
const (
	lingerTime  = time.Second
	lingerBytes = 4 << 20
)

func (c *Conn) finish() {
	c.out.mu.Lock()
	orderly := c.out.closed && c.why.Load() != nil
	c.out.closed = true
	c.out.mu.Unlock()
	if orderly {
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		if c.out.wait(ctx) == nil {
			if cw, ok := c.nc.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
				_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
				_, _ = io.CopyN(io.Discard, c.nc, lingerBytes) // until the peer closes, too
			}
		}
		cancel()
	}
	_ = c.nc.Close()
	// The writer, if any, fails now; wait for it so that nothing of this connection outlives Closed.
	_ = c.out.wait(context.Background())
}

func (c *Conn) touch() { c.lastRx.Store(time.Now().Unix()) }

// LastReceived is when the peer gave its last sign of life, in Unix seconds.
func (c *Conn) LastReceived() int64 { return c.lastRx.Load() }

// SendText sends one text message.
func (c *Conn) SendText(payload []byte) { c.send(Text(payload)) }

// SendBinary sends one binary message.
func (c *Conn) SendBinary(payload []byte) { c.send(frame(opBinary, payload)) }

// SendFrame sends a frame that Text made.
func (c *Conn) SendFrame(frame []byte) { c.send(frame) }

func (c *Conn) send(f []byte) {
	if _, slow := c.out.append(f); slow {
		c.why.CompareAndSwap(nil, &wire.CloseSlow)
		if c.out.last(closeFrame(wire.CloseSlow), true) {
			// It reads nothing, so the close frame may never go out: do not wait for it long.
			_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
			_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		}
	}
}

// Ping asks the peer for a Pong with n. Pings keep their place among the messages: the answer to one proves that
// everything sent before it has arrived.
func (c *Conn) Ping(n uint32) {
	c.send(frame(opPing, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}))
}

// Close sends what is queued, then the close frame, and ends the connection; the first reason counts.
func (c *Conn) Close(why wire.Close) {
	if !c.why.CompareAndSwap(nil, &why) {
		return
	}
	if c.out.last(closeFrame(why), false) {
		// The peer has this long to answer with its own close frame.
		_ = c.nc.SetReadDeadline(time.Now().Add(2 * lingerTime))
	}
}

// fail ends the connection without a word.
func (c *Conn) fail(why wire.Close) {
	c.why.CompareAndSwap(nil, &why)
	_ = c.nc.Close()
}

// Abort cuts the connection at once.
func (c *Conn) Abort() { c.fail(wire.Close{Code: 1006, Reason: "cut", Reconnect: true}) }

// Wait returns when everything sent so far has been handed to the kernel, or when the connection has failed.
func (c *Conn) Wait(ctx context.Context) error { return c.out.wait(ctx) }
