package presence

import (
	"errors"
	tcp "net" // the package has a type net
	"sync"
	"time"
)

// line is a process's way to NATS. It can hang, as when a machine is frozen, and it can die with everything that was not sent, as
// when the process is killed.
type line struct {
	mu    sync.Mutex
	open  chan struct{} // closed while it does not hang
	dead  bool
	conns map[tcp.Conn]struct{}
}

func newLine() *line {
	l := &line{open: make(chan struct{}), conns: map[tcp.Conn]struct{}{}}
	close(l.open)
	return l
}

var errDead = errors.New("this process is dead")

// Dial implements nats.CustomDialer.
func (l *line) Dial(network, addr string) (tcp.Conn, error) {
	c, err := tcp.DialTimeout(network, addr, time.Second)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		c.Close()
		return nil, errDead
	}
	l.conns[c] = struct{}{}
	return &hanging{c, l}, nil
}

func (l *line) hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = make(chan struct{})
}

func (l *line) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.open)
}

func (l *line) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for c := range l.conns {
		c.Close()
	}
}

func (l *line) wait() {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	<-open
}

// hanging is a connection over a line.
type hanging struct {
	tcp.Conn
	l *line
}

func (h *hanging) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.l.wait()
	return n, err
}

func (h *hanging) Write(b []byte) (int, error) {
	h.l.wait()
	return h.Conn.Write(b)
}
