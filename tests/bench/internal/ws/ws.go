// Package ws is a WebSocket client that costs as little as possible: the load generator shares the machine's
// cores with what it measures. It speaks just enough of RFC 6455 for servers that we start ourselves: whole text
// frames, pings and closes, without compression. Its masking key is 0, which a server unmasks like any other.
package ws

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10

	readBuffer = 2 << 10 // of an idle client; larger frames bypass it
	maxFrame   = 4 << 20
)

// Closed is the close frame with which the server ended a connection.
type Closed struct {
	Code   int
	Reason string
}

func (c *Closed) Error() string { return fmt.Sprintf("closed by the server: %d %s", c.Code, c.Reason) }

// Conn is one client. One goroutine reads; any may write.
type Conn struct {
	nc net.Conn
	br *bufio.Reader

	mu  sync.Mutex
	out []byte
}

// Dial opens a WebSocket at addr (host:port) from the local address, nil for any.
func Dial(ctx context.Context, addr string, local net.IP, path string, header http.Header) (*Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if local != nil {
		d.LocalAddr = &net.TCPAddr{IP: local}
	}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &Conn{nc: nc, br: bufio.NewReaderSize(nc, readBuffer)}
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline) // a TCP connection takes deadlines
	}
	if err := c.handshake(addr, path, header); err != nil {
		nc.Close()
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	return c, nil
}

func (c *Conn) handshake(addr, path string, header http.Header) error {
	var key [16]byte
	_, _ = rand.Read(key[:]) // it never fails
	req := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
		path, addr, base64.StdEncoding.EncodeToString(key[:]))
	for k, vs := range header {
		for _, v := range vs {
			req = fmt.Appendf(req, "%s: %s\r\n", k, v)
		}
	}
	if _, err := c.nc.Write(append(req, "\r\n"...)); err != nil {
		return fmt.Errorf("open a WebSocket: %w", err)
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return fmt.Errorf("open a WebSocket: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("open a WebSocket: %s %s", resp.Status, body)
	}
	return nil
}

// Read returns the next text message, in buf when it fits. Pings are answered on the way.
func (c *Conn) Read(buf []byte) ([]byte, error) {
	for {
		op, b, err := c.frame(buf)
		if err != nil {
			return nil, err
		}
		switch op {
		case opText:
			return b, nil
		case opPing:
			if err := c.write(opPong, b); err != nil {
				return nil, err
			}
		case opClose:
			why := &Closed{Code: 1005}
			if len(b) >= 2 {
				why.Code, why.Reason = int(binary.BigEndian.Uint16(b)), string(b[2:])
			}
			_ = c.write(opClose, b[:min(2, len(b))]) // it is over anyway
			return nil, why
		case opPong:
		default:
			return nil, fmt.Errorf("a frame with opcode %d was not expected", op)
		}
	}
}

func (c *Conn) frame(buf []byte) (op byte, b []byte, err error) {
	head, err := c.br.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op, n, skip := head[0]&15, int(head[1]&127), 2
	if head[0]&0x80 == 0 || head[1]&0x80 != 0 {
		return 0, nil, errors.New("a fragmented or masked frame was not expected")
	}
	switch n {
	case 126:
		skip = 4
	case 127:
		skip = 10
	}
	if head, err = c.br.Peek(skip); err != nil {
		return 0, nil, err
	}
	switch skip {
	case 4:
		n = int(binary.BigEndian.Uint16(head[2:]))
	case 10:
		n = int(min(binary.BigEndian.Uint64(head[2:]), maxFrame+1))
	}
	if n > maxFrame {
		return 0, nil, errors.New("a frame is too large")
	}
	_, _ = c.br.Discard(skip) // it has been peeked at
	if n > cap(buf) {
		buf = make([]byte, n)
	}
	b = buf[:n]
	_, err = io.ReadFull(c.br, b)
	return op, b, err
}

// Write sends one text message.
func (c *Conn) Write(payload []byte) error { return c.write(opText, payload) }

func (c *Conn) write(op byte, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := append(c.out[:0], 0x80|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, 0, 0, 0, 0)
	b = append(b, payload...)
	c.out = b
	_, err := c.nc.Write(b)
	return err
}

// SetDeadline bounds reads and writes.
func (c *Conn) SetDeadline(t time.Time) { _ = c.nc.SetDeadline(t) }

// Close cuts the connection without a word.
func (c *Conn) Close() { _ = c.nc.Close() }
