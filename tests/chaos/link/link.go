// Package link is a TCP connection that a test can make bad: cut, one-way, slow, lossy. It works on the bytes between two processes of one
// machine, so it needs no rights. What gets lost on a real link is sent again by TCP and shows as a delay; so it does here.
package link

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// Way is what happens to the bytes of one direction.
type Way struct {
	Swallow bool          // they vanish: a half-open connection. It is closed when the fault ends, for what is missing stays missing
	Hold    bool          // they wait: a partition that TCP outlives
	Delay   time.Duration // each way
	Jitter  time.Duration // more, at random
	Loss    float64       // of packets; each costs a retransmission
	Rate    int           // bytes a second, 0: no limit
}

// retransmit is the shortest time after which TCP sends again (RFC 6298 says 1 s, Linux 200 ms).
const retransmit = 200 * time.Millisecond

// refusal is how long a cut link takes to refuse a connection.
const refusal = 500 * time.Millisecond

// queued chunks of one direction: what a link has in flight. More is not read, so that the sender's own buffers fill.
const queued = 64

// Link listens on a free port and passes everything on.
type Link struct {
	Name, Addr string
	dial       func() (net.Conn, error)
	ln         net.Listener
	wg         sync.WaitGroup

	mu      sync.Mutex
	down    bool
	ended   bool
	ways    [2]Way // to the backend, and back
	changed chan struct{}
	conns   map[*pair]struct{}
}

type pair struct {
	in, out net.Conn
	torn    bool // bytes are missing
}

func (p *pair) close() {
	p.in.Close()
	p.out.Close()
}

// New begins to listen. backend is HOST:PORT or, with a slash, the path of a Unix socket.
func New(name, backend string) (*Link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if strings.Contains(backend, "/") {
		network = "unix"
	}
	l := &Link{Name: name, Addr: ln.Addr().String(), ln: ln, changed: make(chan struct{}), conns: map[*pair]struct{}{},
		dial: func() (net.Conn, error) { return net.DialTimeout(network, backend, 5*time.Second) }}
	l.wg.Go(l.accept)
	return l, nil
}

// Close ends it, and every connection.
func (l *Link) Close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.ln.Close()
	l.Cut()
	l.wg.Wait()
}

// Cut closes every connection and refuses new ones.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	l.wake()
	for p := range l.conns {
		p.close()
	}
}

// Reset closes every connection; new ones are welcome.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.conns {
		p.close()
	}
}

// Set changes what happens to the bytes on their way to the backend (up) and back (down).
func (l *Link) Set(up, down Way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ways = [2]Way{up, down}
	l.wake()
}

// Heal makes it good again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = l.ended
	l.ways = [2]Way{}
	l.wake()
	for p := range l.conns {
		if p.torn {
			p.close()
		}
	}
}

// wake needs mu.
func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) accept() {
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.serve(in) })
	}
}

func (l *Link) serve(in net.Conn) {
	l.mu.Lock()
	down, changed := l.down, l.changed
	l.mu.Unlock()
	if down {
		// Not at once: who tries again at once would do nothing else.
		select {
		case <-time.After(refusal):
		case <-changed:
		}
		in.Close()
		return
	}
	out, err := l.dial()
	if err != nil {
		in.Close()
		return
	}
	p := &pair{in: in, out: out}
	l.mu.Lock()
	if l.down {
		p.close()
	}
	l.conns[p] = struct{}{}
	l.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.copy(p, out, in, 0) })
	wg.Go(func() { l.copy(p, in, out, 1) })
	wg.Wait()
	l.mu.Lock()
	delete(l.conns, p)
	l.mu.Unlock()
}

type chunk struct {
	b   []byte
	due time.Time
}

// copy reads into a short queue that another goroutine writes from when each chunk is due.
func (l *Link) copy(p *pair, dst, src net.Conn, way int) {
	queue := make(chan chunk, queued)
	gone := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(gone)
		defer p.close()
		for c := range queue {
			if err := l.write(p, dst, c, way); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			c := chunk{append([]byte(nil), buf[:n]...), time.Now().Add(l.lag(way))}
			select {
			case queue <- c:
			case <-gone:
				err = io.EOF
			}
		}
		if err != nil {
			break
		}
	}
	close(queue)
	wg.Wait()
	p.close()
}

func (l *Link) lag(way int) time.Duration {
	l.mu.Lock()
	w := l.ways[way]
	l.mu.Unlock()
	d := w.Delay
	if w.Jitter > 0 {
		d += rand.N(w.Jitter)
	}
	for rto := retransmit; w.Loss > 0 && rand.Float64() < w.Loss && rto < 4*time.Second; rto *= 2 {
		d += rto
	}
	return d
}

var errGone = errors.New("the link is down")

// write waits until c may go, and sends it.
func (l *Link) write(p *pair, dst net.Conn, c chunk, way int) error {
	for {
		l.mu.Lock()
		w, changed, down := l.ways[way], l.changed, l.down
		if w.Swallow {
			p.torn = true
		}
		l.mu.Unlock()
		switch {
		case down:
			return errGone
		case w.Swallow:
			return nil
		case w.Hold:
			<-changed
			continue
		}
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-changed:
				continue
			}
		}
		if w.Rate == 0 {
			_, err := dst.Write(c.b)
			return err
		}
		n := min(len(c.b), max(1, w.Rate/20))
		if _, err := dst.Write(c.b[:n]); err != nil {
			return err
		}
		if c.b = c.b[n:]; len(c.b) == 0 {
			return nil
		}
		select {
		case <-time.After(time.Duration(n) * time.Second / time.Duration(w.Rate)):
		case <-changed:
		}
	}
}
