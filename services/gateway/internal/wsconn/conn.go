// Package wsconn moves bytes: WebSocket frames in, WebSocket frames out. It knows nothing of chat.
//
// gorilla/websocket does the handshake and the reading. Writing is our own: the server's frames are unmasked, so one
// encoded frame can be shared by all recipients, several go out in one writev, and an idle connection needs
// neither a writer goroutine nor a write buffer.
package wsconn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"parley/pkg/wire"
)

// Handler gets what the peer sends, one call after the other.
type Handler interface {
	// Frame is one text message; b is valid during the call only.
	Frame(b []byte)
	// Binary is one binary message; b is valid during the call only.
	Binary(b []byte)
	// Pong answers the Ping with the same number.
	Pong(n uint32)
	// Closed is called last and once, however the connection ended.
	Closed(why wire.Close)
}

// Config of connections.
type Config struct {
	FrameBytes int // largest message accepted
	Budget     *Budget
	Origin     func(*http.Request) bool
	// TooLarge is a text message for who sends a larger one, before 1009; nil for none.
	TooLarge []byte
}

// Upgrader turns HTTP requests into connections.
type Upgrader struct {
	cfg Config
	ws  websocket.Upgrader
}

// readBuffer is small because most connections are idle most of the time; larger reads bypass it.
const readBuffer = 512

// NewUpgrader returns an Upgrader that selects the first of subprotocols that the client offers.
func NewUpgrader(cfg Config, subprotocols ...string) *Upgrader {
	return &Upgrader{cfg: cfg, ws: websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  512,
		WriteBufferPool:  &sync.Pool{}, // gorilla writes the handshake only
		Subprotocols:     subprotocols,
		CheckOrigin:      cfg.Origin,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}}
}

// Conn is one connection. Its methods may be called from any goroutine.
type Conn struct {
	ws      *websocket.Conn
	nc      net.Conn
	out     outbox
	cfg     *Config
	lastRx  atomic.Int64 // Unix seconds of the last sign of life
	why     atomic.Pointer[wire.Close]
	handler Handler
}

// Upgrade answers the handshake. On failure the answer was sent and nil is returned. Start must follow.
func (u *Upgrader) Upgrade(w http.ResponseWriter, r *http.Request) *Conn {
	// gorilla wants the http.Hijacker itself, not a wrapper that knows one.
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = inner.Unwrap()
	}
	ws, err := u.ws.Upgrade(w, r, nil)
	if err != nil {
		return nil
	}
	c := &Conn{ws: ws, nc: ws.NetConn(), cfg: &u.cfg}
	c.out = outbox{nc: c.nc, budget: u.cfg.Budget, failed: func(error) { c.fail(wire.Close{Code: 1006, Reason: "write failed", Reconnect: true}) }}
	c.touch()
	ws.SetPingHandler(func(data string) error {
		c.touch()
		c.send(frame(opPong, []byte(data)))
		return nil
	})
	ws.SetPongHandler(func(data string) error {
		c.touch()
		if len(data) == 4 {
			c.handler.Pong(uint32(data[0])<<24 | uint32(data[1])<<16 | uint32(data[2])<<8 | uint32(data[3]))
		}
		return nil
	})
	// The peer closes: answer with its own code, as RFC 6455 asks.
	ws.SetCloseHandler(func(code int, _ string) error {
		answer := wire.Close{Code: code}
		if code == websocket.CloseNoStatusReceived {
			answer.Code = 1000
		}
		c.why.CompareAndSwap(nil, &wire.Close{Code: code, Reason: "closed by the peer"})
		c.out.last(closeFrame(answer), false)
		return nil
	})
	return c
}

// Start begins to read in a goroutine of its own, which ends with h.Closed. The HTTP handler's goroutine is
// free to return, and with it all that net/http holds for the request.
func (c *Conn) Start(h Handler) {
	c.handler = h
	go c.read()
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (c *Conn) read() {
	c.readAll()
	c.finish()
	why := c.why.Load()
	if why == nil {
		why = &wire.Close{Code: 1006, Reason: "connection lost", Reconnect: true}
	}
	c.handler.Closed(*why)
}

func (c *Conn) readAll() {
	for {
		kind, r, err := c.ws.NextReader()
		if err != nil {
			// gorilla answers violations of the protocol with 1002 by itself; a lost connection has no code.
			var ce *websocket.CloseError
			if !errors.As(err, &ce) && !isNetError(err) {
				c.why.CompareAndSwap(nil, &wire.CloseProtocol)
			}
			return
		}
		c.touch()
		if !c.message(kind, r) {
			return
		}
		if c.why.Load() != nil {
			return // closing: what follows is not answered any more
		}
	}
}

func isNetError(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func (c *Conn) message(kind int, r io.Reader) bool {
	buf := buffers.Get().(*bytes.Buffer)
	buf.Reset()
	defer func() {
		// One giant message must not stay in the pool for ever.
		if buf.Cap() <= 16<<10 {
			buffers.Put(buf)
		}
	}()
	limit := int64(c.cfg.FrameBytes)
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return false
	}
	if n > limit {
		if c.cfg.TooLarge != nil {
			c.SendText(c.cfg.TooLarge)
		}
		c.Close(wire.CloseTooLarge)
		return false
	}
	if kind != websocket.TextMessage {
		c.handler.Binary(buf.Bytes())
		return true
	}
	c.handler.Frame(buf.Bytes())
	return true
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
func (c *Conn) Abort() { c.fail(wire.CloseRestart) }

// Wait returns when everything sent so far has been handed to the kernel, or when the connection has failed.
func (c *Conn) Wait(ctx context.Context) error { return c.out.wait(ctx) }
