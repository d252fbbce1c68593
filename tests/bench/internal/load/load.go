// Package load drives a target: pairs of clients that chat as fast as they may or at a steady rate, and crowds that only listen.
package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.example/tests/bench/internal/target"
)

// ContentBytes is the size of each message's text.
const ContentBytes = 100

// Chat is a number of pairs; the first of each writes, the second receives.
type Chat struct {
	t     target.Target
	pairs []*pair
	base  int64 // message ids of one user must differ between two chats
	wg    sync.WaitGroup

	window  atomic.Bool // a delivery lets the next message go
	refused atomic.Int64
	refusal atomic.Pointer[string] // the first one
	closing atomic.Bool
	lost    atomic.Pointer[error] // why a connection ended
}

type pair struct {
	chat     *Chat
	from, to string
	a, b     target.Conn

	sent, delivered, accepted atomic.Int64

	mu   sync.Mutex
	lat  []time.Duration
	buf  []byte
	text []byte
}

// Open connects n pairs, sender and recipient through different doors where there are several. first is the number of the first account.
func Open(ctx context.Context, t target.Target, first, n int) (*Chat, error) {
	c := &Chat{t: t, pairs: make([]*pair, n), base: time.Now().UnixMicro()}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := range c.pairs {
		p := &pair{chat: c, from: target.User(first + 2*i), to: target.User(first + 2*i + 1)}
		c.pairs[i] = p
		g.Go(func() (err error) {
			if p.a, _, err = t.Open(ctx, i%t.Doors(), target.Client{User: p.from, Peer: p.to}); err == nil {
				p.b, _, err = t.Open(ctx, (i+1)%t.Doors(), target.Client{User: p.to, Peer: p.from})
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect pairs to %s: %w", t.Name(), err)
	}
	for _, p := range c.pairs {
		c.wg.Add(2)
		go p.read(p.a)
		go p.read(p.b)
	}
	return c, nil
}

// Close disconnects everybody.
func (c *Chat) Close() {
	c.closing.Store(true)
	for _, p := range c.pairs {
		for _, conn := range []target.Conn{p.a, p.b} {
			if conn != nil {
				conn.Close()
			}
		}
	}
	c.wg.Wait()
}

var contentKey = []byte(`"content":"`)

// epoch makes time stamps short and monotonic.
var epoch = time.Now()

const stampDigits = 16 // nanoseconds since epoch

func (p *pair) read(conn target.Conn) {
	defer p.chat.wg.Done()
	c, buf := p.chat, make([]byte, 1<<10)
	for {
		b, err := conn.Read(buf)
		if err != nil {
			if !c.closing.Load() {
				err = fmt.Errorf("a connection of %s: %w", p.from, err)
				c.lost.CompareAndSwap(nil, &err)
			}
			return
		}
		kind := c.t.Kind(b)
		if kind == target.Delivered && conn == p.a {
			kind = target.Accepted // the second never writes
		}
		switch kind {
		case target.Delivered:
			if at := bytes.Index(b, contentKey); at >= 0 && len(b) >= at+len(contentKey)+stampDigits {
				stamp, _ := strconv.ParseInt(string(b[at+len(contentKey):][:stampDigits]), 10, 64)
				p.mu.Lock()
				p.lat = append(p.lat, time.Since(epoch)-time.Duration(stamp))
				p.mu.Unlock()
			}
			p.delivered.Add(1)
			if c.window.Load() {
				p.send()
			}
		case target.Accepted:
			p.accepted.Add(1)
		case target.Refused:
			c.refused.Add(1)
			text := string(b)
			c.refusal.CompareAndSwap(nil, &text)
		}
	}
}

var padding = bytes.Repeat([]byte("x"), ContentBytes-stampDigits)

func (p *pair) send() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.chat.base + p.sent.Add(1)
	stamp := strconv.AppendInt(p.text[:0], int64(time.Since(epoch)), 10)
	p.text = stamp
	content := make([]byte, 0, ContentBytes)
	for range stampDigits - len(stamp) {
		content = append(content, '0')
	}
	content = append(append(content, stamp...), padding...)
	p.buf = p.chat.t.AppendSend(p.buf[:0], p.from, p.to, n, string(content))
	_ = p.a.Write(p.buf) // the reader reports a broken connection
}

// Result of one run.
type Result struct {
	Sent, Delivered, Accepted, Refused int64

	Elapsed time.Duration // in which Delivered were delivered
	CPU     time.Duration // of all servers, from the start until nothing is left to do
	Behind  time.Duration // from the last delivery until nothing is left to do
	Parts   map[string]time.Duration
	lat     []time.Duration
}

// Rate is deliveries a second.
func (r Result) Rate() float64 { return float64(r.Delivered) / r.Elapsed.Seconds() }

// CPUEach is the servers' cost of one message. All that were sent have been delivered when a run is over.
func (r Result) CPUEach() time.Duration { return r.CPU / time.Duration(max(1, r.Sent)) }

// Percentile of send → received, 0 < q < 1.
func (r Result) Percentile(q float64) time.Duration {
	if len(r.lat) == 0 {
		return 0
	}
	return r.lat[min(len(r.lat)-1, int(q*float64(len(r.lat))))]
}

// Saturate keeps inFlight messages of each pair under way.
func (c *Chat) Saturate(ctx context.Context, inFlight int, d time.Duration) (Result, error) {
	return c.run(ctx, func() time.Duration {
		c.window.Store(true)
		start := time.Now()
		for range inFlight {
			for _, p := range c.pairs {
				p.send()
			}
		}
		sleep(ctx, d)
		c.window.Store(false)
		return time.Since(start)
	})
}

// Steady sends at a rate, whatever comes back: one sender after the other.
func (c *Chat) Steady(ctx context.Context, rate int, d time.Duration) (Result, error) {
	return c.run(ctx, func() time.Duration {
		start := time.Now()
		every := time.Second / time.Duration(rate)
		for i := 0; ctx.Err() == nil; i++ {
			due := start.Add(time.Duration(i) * every)
			if due.Sub(start) >= d {
				break
			}
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
			c.pairs[i%len(c.pairs)].send()
		}
		return time.Since(start)
	})
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// leftovers is how long messages may take to arrive after the last was sent, and the servers to settle.
const leftovers = 30 * time.Second

func (c *Chat) run(ctx context.Context, drive func() time.Duration) (Result, error) {
	before := c.total()
	for _, p := range c.pairs {
		p.mu.Lock()
		p.lat = p.lat[:0]
		p.mu.Unlock()
	}
	parts, err := c.t.Servers().ByName()
	if err != nil {
		return Result{}, err
	}
	var r Result
	r.Elapsed = drive()
	r.Delivered = c.total().Delivered - before.Delivered
	deadline := time.Now().Add(leftovers)
	for now := c.total(); now.Delivered < now.Sent; now = c.total() {
		if time.Now().After(deadline) {
			return r, fmt.Errorf("%d of %d messages did not arrive within %s; refused: %d; %s", now.Sent-now.Delivered, now.Sent-before.Sent, leftovers, now.Refused, c.trouble())
		}
		time.Sleep(time.Millisecond)
	}
	last := time.Now()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := c.t.Settle(ctx); err != nil {
		return r, fmt.Errorf("wait until %s has settled: %w", c.t.Name(), err)
	}
	r.Behind = time.Since(last)
	after, err := c.t.Servers().ByName()
	if err != nil {
		return r, err
	}
	r.Parts = map[string]time.Duration{}
	for name, cpu := range after {
		r.Parts[name] = cpu - parts[name]
		r.CPU += r.Parts[name]
	}
	total := c.total()
	r.Sent, r.Accepted, r.Refused = total.Sent-before.Sent, total.Accepted-before.Accepted, total.Refused-before.Refused
	for _, p := range c.pairs {
		p.mu.Lock()
		r.lat = append(r.lat, p.lat...)
		p.mu.Unlock()
	}
	slices.Sort(r.lat)
	if t := c.trouble(); t != "" {
		return r, fmt.Errorf("%s: %s", c.t.Name(), t)
	}
	return r, nil
}

func (c *Chat) trouble() string {
	if e := c.lost.Load(); e != nil {
		return (*e).Error()
	}
	if s := c.refusal.Load(); s != nil {
		return *s
	}
	return ""
}

func (c *Chat) total() (r Result) {
	for _, p := range c.pairs {
		r.Sent += p.sent.Load()
		r.Delivered += p.delivered.Load()
		r.Accepted += p.accepted.Load()
	}
	r.Refused = c.refused.Load()
	return r
}
