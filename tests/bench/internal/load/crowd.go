package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.example/tests/bench/internal/target"
)

// Crowd is clients that listen, answer pings, and come back when their connection breaks.
type Crowd struct {
	t       target.Target
	clients []*member
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc

	door    atomic.Int64 // where they come back
	failed  atomic.Int64
	failure atomic.Pointer[error] // the last one
	lost    atomic.Pointer[error] // why the first connection ended

	back chan time.Time // when a client had come back; room for one return of each
}

type member struct {
	user, peer string
	resume     string
	local      net.IP
	conn       atomic.Pointer[target.Conn]
	got        atomic.Int64 // messages
}

// backoff is that of the client SDK: random up to a limit that doubles with each try (full jitter).
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 15 * time.Second
	openTime   = 10 * time.Second
)

// connecting is how many clients open their first connection at a time.
const connecting = 64

// perAddress keeps the connections of one source address well below the number of its ports.
const perAddress = 5000

// local is the source address of client i: all of 127.0.0.0/8 is this machine.
func local(i int) net.IP {
	k := i / perAddress
	return net.IPv4(127, 0, byte(1+k/200), byte(1+k%200))
}

// Gather connects accounts first … first+n-1 through a door.
func Gather(ctx context.Context, t target.Target, door, first, n int) (*Crowd, error) {
	c := &Crowd{t: t, clients: make([]*member, n), back: make(chan time.Time, n)}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.door.Store(int64(door))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(connecting)
	for i := range c.clients {
		m := &member{user: target.User(first + i), peer: target.User((first + i) ^ 1), local: local(first + i)}
		c.clients[i] = m
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, openTime)
			defer cancel()
			conn, resume, err := t.Open(ctx, door, target.Client{User: m.user, Peer: m.peer, Local: m.local})
			if err != nil {
				return err
			}
			m.resume = resume
			m.conn.Store(&conn)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect %d clients to %s: %w", n, t.Name(), err)
	}
	for _, m := range c.clients {
		c.wg.Add(1)
		go c.live(m)
	}
	return c, nil
}

// Close disconnects everybody.
func (c *Crowd) Close() {
	c.cancel()
	for _, m := range c.clients {
		if m == nil {
			continue
		}
		if conn := m.conn.Load(); conn != nil {
			(*conn).Close()
		}
	}
	c.wg.Wait()
}

// live reads, and comes back, for one client.
func (c *Crowd) live(m *member) {
	defer c.wg.Done()
	buf := make([]byte, 512)
	for {
		conn := *m.conn.Load()
		for {
			b, err := conn.Read(buf)
			if err != nil {
				c.lost.CompareAndSwap(nil, &err)
				break
			}
			c.count(m, b)
		}
		conn.Close() // a broken connection keeps its file open, too
		if !c.reconnect(m) {
			return
		}
		select {
		case c.back <- time.Now():
		default: // more often than anybody asked
		}
	}
}

func (c *Crowd) count(m *member, frame []byte) {
	if c.t.Kind(frame) == target.Delivered {
		m.got.Add(1)
	}
}

func (c *Crowd) reconnect(m *member) bool {
	for limit := minBackoff; ; limit = min(2*limit, maxBackoff) {
		select {
		case <-time.After(rand.N(limit)):
		case <-c.ctx.Done():
			return false
		}
		ctx, cancel := context.WithTimeout(c.ctx, openTime)
		conn, resume, err := c.t.Open(ctx, int(c.door.Load()), target.Client{
			User: m.user, Peer: m.peer, Local: m.local, Resume: m.resume, Got: func(b []byte) { c.count(m, b) },
		})
		cancel()
		if err != nil {
			c.failed.Add(1)
			c.failure.Store(&err)
			continue
		}
		m.resume = resume
		m.conn.Store(&conn)
		if c.ctx.Err() != nil { // Close may have been here before
			conn.Close()
			return false
		}
		return true
	}
}

// Lost is why a connection ended, nil while all are as they were opened.
func (c *Crowd) Lost() error {
	if err := c.lost.Load(); err != nil {
		return *err
	}
	return nil
}
