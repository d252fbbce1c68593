// Package accept bounds the connections of a listener at the moment they are accepted, before anybody has said who they are: in all, so
// that the stores of the process always find a descriptor, and per address. What is over a limit is told so in a few bytes and closed.
package accept

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config of a Listener.
type Config struct {
	Name       string                // of the listener, in metrics and logs: public or admin
	Total      int                   // connections at most
	PerAddress int                   // connections at most of one address; an IPv6 address counts as its /64
	Trusted    func(netip.Addr) bool // peers that are not limited by PerAddress, such as proxies; nil for none
	Refusal    []byte                // a whole HTTP answer for those that are over a limit
}

// Room is how many connections from outside the process has descriptors for. The rest of its limit (which Go raises as far as it may) is
// for its stores, for its connections to others, and for the admin port.
func Room() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 512 // the smallest limit in use is 1,024
	}
	return room(r.Cur)
}

// room keeps an eighth as the reserve, between 512 and 4,096, and never more than a half.
func room(limit uint64) int {
	n := int(min(limit, 1<<30)) // "unlimited" is the highest number
	return n - min(max(n/8, 512), 4096, n/2)
}

// Listener is a TCP listener with the limits of a Config. A connection counts until it is closed.
type Listener struct {
	*net.TCPListener
	cfg      Config
	log      *slog.Logger
	telling  chan struct{} // places for refused connections that are being told
	patience time.Duration // with each of them

	mu        sync.Mutex
	open      int
	byAddress map[netip.Addr]int
	logged    map[string]time.Time
	unlogged  map[string]int

	refused *prometheus.CounterVec
}

// Why a connection is refused; the values of the label "reason".
const (
	full    = "full"
	address = "address"
)

// tellers is how many refused connections are told at a time, each for up to tellTime, by descriptors of the reserve. Those beyond, and those that
// ask for nothing, are closed without a word.
const (
	tellers  = 128
	tellTime = 250 * time.Millisecond // a client asks as soon as it is connected
	logEvery = 10 * time.Second
)

// Listen binds addr.
func Listen(addr string, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	labels := prometheus.Labels{"listener": cfg.Name}
	l := &Listener{
		TCPListener: ln.(*net.TCPListener), cfg: cfg, log: log, telling: make(chan struct{}, tellers), patience: tellTime,
		byAddress: map[netip.Addr]int{}, logged: map[string]time.Time{}, unlogged: map[string]int{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_sockets_refused_total", ConstLabels: labels,
			Help: "Connections that were closed when they were accepted: there were too many in all (full), or of their address."}, []string{"reason"}),
	}
	l.refused.WithLabelValues(full)
	l.refused.WithLabelValues(address)
	for _, c := range []prometheus.Collector{
		l.refused,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_sockets_open", ConstLabels: labels,
			Help: "Connections that are open, whatever they are used for."}, func() float64 { return float64(l.Open()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_sockets_limit", ConstLabels: labels,
			Help: "Connections that may be open, whatever they are used for."}, func() float64 { return float64(cfg.Total) }),
	} {
		if err := reg.Register(c); err != nil {
			_ = ln.Close()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return l, nil
}

// Open is how many connections there are.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Accept returns the next connection that is within the limits.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		peer := network(c)
		if reason := l.take(peer); reason != "" {
			l.refuse(c, peer, reason)
			continue
		}
		return &conn{TCPConn: c, release: func() { l.release(peer) }}, nil
	}
}

// network is what one client has: an IPv4 address or an IPv6 /64.
func network(c *net.TCPConn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// take counts a connection, or returns why not.
func (l *Listener) take(peer netip.Addr) (reason string) {
	trusted := l.cfg.Trusted != nil && l.cfg.Trusted(peer)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= l.cfg.Total:
		return full
	case !trusted && l.byAddress[peer] >= l.cfg.PerAddress:
		return address
	}
	l.open++
	l.byAddress[peer]++
	return ""
}

func (l *Listener) release(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.byAddress[peer]--; l.byAddress[peer] == 0 {
		delete(l.byAddress, peer)
	}
}

func (l *Listener) refuse(c *net.TCPConn, peer netip.Addr, reason string) {
	l.refused.WithLabelValues(reason).Inc()
	l.note(peer, reason)
	select {
	case l.telling <- struct{}{}:
		go func() {
			defer func() { <-l.telling }()
			l.tell(c)
		}()
	default:
		cut(c)
	}
}

// tell answers the request that comes. Clients take no answer that comes before they have asked; and closing with unread bytes would take
// the answer away.
func (l *Listener) tell(c *net.TCPConn) {
	_ = c.SetDeadline(time.Now().Add(l.patience))
	if n, _ := c.Read(make([]byte, 1<<10)); n == 0 {
		cut(c)
		return
	}
	defer c.Close()
	if _, err := c.Write(l.cfg.Refusal); err != nil {
		return
	}
	_ = c.CloseWrite()
	_, _ = io.CopyN(io.Discard, c, 16<<10) // ends with the peer's close, or the deadline
}

// cut closes a connection so that nothing of it stays, not even in the kernel.
func cut(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// note logs a refusal, and those of the same reason that follow within logEvery together.
func (l *Listener) note(peer netip.Addr, reason string) {
	l.mu.Lock()
	now, open := time.Now(), l.open
	if now.Sub(l.logged[reason]) < logEvery {
		l.unlogged[reason]++
		l.mu.Unlock()
		return
	}
	more := l.unlogged[reason]
	l.logged[reason], l.unlogged[reason] = now, 0
	l.mu.Unlock()
	l.log.Warn("a connection is refused", "listener", l.cfg.Name, "reason", reason, "address", peer, "open", open, "limit", l.cfg.Total,
		"address_limit", l.cfg.PerAddress, "more_before", more)
}

// conn gives its place back when it is closed. Embedding keeps what net.TCPConn does better than net.Conn, such as writing several buffers at once.
type conn struct {
	*net.TCPConn
	closed  atomic.Bool
	release func()
}

// Close closes the connection.
func (c *conn) Close() error {
	err := c.TCPConn.Close()
	if !c.closed.Swap(true) {
		c.release()
	}
	return err
}
