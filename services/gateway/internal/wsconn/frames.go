package wsconn

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"parley.example/client/wire"
)

// Op codes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const maxControl = 125 // bytes in a control frame

// header is the beginning of a frame that the peer sends.
type header struct {
	fin  bool
	op   byte
	n    uint64
	mask [4]byte
}

// control reports whether the frame is a ping, a pong or a close.
func (h *header) control() bool { return h.op >= opClose }

// errProtocol is a frame that breaks RFC 6455.
var errProtocol = errors.New("the frame breaks the protocol")

// readHeader reads the header of the next frame. Its error is errProtocol, or that of the connection.
func readHeader(br *bufio.Reader) (header, error) {
	var b [8]byte
	if _, err := io.ReadFull(br, b[:2]); err != nil {
		return header{}, err
	}
	h := header{fin: b[0]&0x80 != 0, op: b[0] & 0x0f, n: uint64(b[1] & 0x7f)}
	known := h.op <= opBinary || h.op >= opClose && h.op <= opPong
	masked := b[1]&0x80 != 0
	if b[0]&0x70 != 0 || !known || !masked || h.control() && (!h.fin || h.n > maxControl) {
		return header{}, errProtocol
	}
	switch h.n {
	case 126:
		if _, err := io.ReadFull(br, b[:2]); err != nil {
			return header{}, err
		}
		h.n = uint64(binary.BigEndian.Uint16(b[:2]))
	case 127:
		if _, err := io.ReadFull(br, b[:8]); err != nil {
			return header{}, err
		}
		if h.n = binary.BigEndian.Uint64(b[:8]); h.n >= 1<<63 {
			return header{}, errProtocol
		}
	}
	_, err := io.ReadFull(br, h.mask[:])
	return h, err
}

// unmask XORs b with the mask, whose first byte belongs to b[0].
func unmask(b []byte, mask [4]byte) {
	m := binary.LittleEndian.Uint32(mask[:])
	both := uint64(m)<<32 | uint64(m)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^both)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
}

// message is what the peer is sending, in one frame or in several.
type message struct {
	op      byte // 0 between messages
	size    int64
	skipped bool          // it is larger than FrameBytes: read and thrown away
	buf     *bytes.Buffer // nil until there is something to keep
}

// buffers are shared: most connections are between messages most of the time.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled is the largest buffer that is kept for others: one giant message must not stay for ever.
const maxPooled = 16 << 10

func (m *message) end() {
	if m.buf != nil && m.buf.Cap() <= maxPooled {
		buffers.Put(m.buf)
	}
	*m = message{}
}

// read takes the next part of the message. A peer that announces much and sends nothing gets no memory for it.
func (m *message) read(br *bufio.Reader, h *header) error {
	if m.buf == nil {
		m.buf = buffers.Get().(*bytes.Buffer)
		m.buf.Reset()
	}
	start := m.buf.Len()
	for left := int(h.n); left > 0; {
		n := min(left, max(readBuffer, m.buf.Len()))
		m.buf.Grow(n)
		b := m.buf.AvailableBuffer()[:n]
		if _, err := io.ReadFull(br, b); err != nil {
			return err
		}
		m.buf.Write(b)
		left -= n
	}
	unmask(m.buf.Bytes()[start:], h.mask)
	return nil
}

func (c *Conn) readAll() {
	var m message
	defer m.end()
	for {
		h, err := readHeader(c.br)
		switch {
		case errors.Is(err, errProtocol):
			c.Close(wire.CloseProtocol)
			return
		case err != nil:
			return // the connection is lost
		case c.why.Load() != nil:
			return // closing: what follows is not answered any more
		}
		c.touch()
		// Whatever the frame is, reading it has its price.
		if c.cfg.FramesPerSecond > 0 && !c.limit.Allow(c.cfg.FramesPerSecond, c.cfg.FrameBurst, time.Now()) {
			c.Close(wire.CloseRate)
			return
		}
		if h.control() {
			err = c.control(&h)
		} else {
			err = c.data(&m, &h)
		}
		if err != nil || c.why.Load() != nil {
			return
		}
	}
}

// data takes a frame that carries a message or a part of one.
func (c *Conn) data(m *message, h *header) error {
	if (h.op == opContinuation) != (m.op != 0) {
		c.Close(wire.CloseProtocol)
		return errProtocol
	}
	if h.op != opContinuation {
		m.op = h.op
	}
	limit := int64(c.cfg.FrameBytes)
	if h.n > uint64(skipFrames*limit) {
		m.size = skipFrames*limit + 1
	} else {
		m.size += int64(h.n)
	}
	m.skipped = m.skipped || m.size > limit
	skipper, ok := c.handler.(Skipper)
	switch {
	case !m.skipped:
		if err := m.read(c.br, h); err != nil {
			return err
		}
	case !ok || m.size > skipFrames*limit:
		if ok {
			skipper.TooLarge()
		}
		c.Close(wire.CloseTooLarge)
		return nil
	default:
		if _, err := io.CopyN(io.Discard, c.br, int64(h.n)); err != nil {
			return err
		}
	}
	if !h.fin {
		return nil
	}
	defer m.end()
	switch {
	case m.skipped:
		skipper.TooLarge()
	case m.op == opBinary:
		c.handler.Binary(m.buf.Bytes())
	case !utf8.Valid(m.buf.Bytes()):
		c.Close(wire.CloseNotUTF8)
	default:
		c.handler.Frame(m.buf.Bytes())
	}
	return nil
}

// control takes a ping, a pong or a close.
func (c *Conn) control(h *header) error {
	var room [maxControl]byte
	b := room[:h.n]
	if _, err := io.ReadFull(c.br, b); err != nil {
		return err
	}
	unmask(b, h.mask)
	switch h.op {
	case opPing:
		c.send(frame(opPong, b))
	case opPong:
		if len(b) == 4 {
			c.handler.Pong(binary.BigEndian.Uint32(b))
		}
	case opClose:
		c.peerCloses(b)
	}
	return nil
}

// peerCloses answers a close frame: with the peer's own code, as RFC 6455 asks, or with what is wrong about it.
func (c *Conn) peerCloses(b []byte) {
	why, answer := wire.Close{Code: 1005, Reason: "closed by the peer"}, wire.Close{Code: wire.CloseNormal.Code}
	switch {
	case len(b) == 0:
	case len(b) == 1 || !closeCode(int(binary.BigEndian.Uint16(b))):
		c.Close(wire.CloseProtocol)
		return
	case !utf8.Valid(b[2:]):
		c.Close(wire.CloseNotUTF8)
		return
	default:
		why.Code = int(binary.BigEndian.Uint16(b))
		answer.Code = why.Code
	}
	c.why.CompareAndSwap(nil, &why)
	c.out.last(closeFrame(answer), false)
}

// closeCode reports whether a peer may close with that code: one of RFC 6455, section 7.4.1, or of IANA's list, that may be sent, or
// one of those for libraries and programs.
func closeCode(code int) bool {
	switch code {
	case 1004, 1005, 1006: // for no frame
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}
