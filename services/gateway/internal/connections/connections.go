// Package connections has the open connections of a gateway, of whatever protocol: how many there may be, who makes room for others, what of a
// client's silence is the client's own, and how all of them leave.
package connections

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
)

// Conn is a connection, authenticated or not.
type Conn interface {
	// Tick looks at it; it is called once a second, from one goroutine.
	Tick(now time.Time)
	// GoAway tells the client to leave within a time.
	GoAway(in time.Duration)
	Close(why wire.Close)
	// Ask asks the client for a sign of life.
	Ask()
	// LastReceived is the last sign of life, in Unix seconds.
	LastReceived() int64
}

// Limits are how many connections a gateway takes.
type Limits struct {
	Total      int
	PerAddress int                            // of one client address; an IPv6 address counts as its /64
	PerUser    int                            // that are signed in
	Address    func(*http.Request) netip.Addr // of the client
}

// entry is what is known of a connection. It is replaced, never changed in place.
type entry struct {
	address netip.Addr
	user    string // in whose places the connection has one; "" for none
	waiting bool   // its reader waits for a place
}

// Table has the connections. It is safe for concurrent use.
type Table struct {
	Limits
	log   *slog.Logger
	ready func() error // why nobody can be served yet; nil when that is possible
	open  prometheus.Gauge
	ends  *prometheus.CounterVec

	mu       sync.Mutex
	conns    map[Conn]entry
	byAddr   map[netip.Addr]int
	byUser   map[string]int
	doubts   map[limit]*doubt // who fills a limit that was reached (room.go)
	draining bool

	looked time.Time    // the last look at the connections; Run only
	awake  atomic.Int64 // Unix seconds: since when the process runs without a pause, 0 for always
}

// New makes an empty Table. While ready returns an error, connections are refused with it.
func New(l Limits, ready func() error, log *slog.Logger, reg prometheus.Registerer) *Table {
	t := &Table{Limits: l, log: log, ready: ready, conns: map[Conn]entry{}, byAddr: map[netip.Addr]int{}, byUser: map[string]int{}, doubts: map[limit]*doubt{},
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_gateway_connections", Help: "Open connections."}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_closes_total", Help: "Connections ended, by close code."}, []string{"code"}),
	}
	reg.MustRegister(t.open, t.ends)
	for _, c := range wire.Closes {
		t.ends.WithLabelValues(closeLabel(c.Code))
	}
	return t
}

// TickEvery is between two looks at a connection.
const TickEvery = time.Second

// pausedAfter is between two looks when nothing can have run here: the process was stopped, its machine slept or was moved. What clients sent
// meanwhile lies unread.
const pausedAfter = 5 * TickEvery

// Run looks at every connection once a second until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(TickEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			t.Look(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// Look looks at every connection; Run does so once a second. The clock on the wall measures a pause: Linux' monotonic clock stands still while a
// machine is suspended.
func (t *Table) Look(now time.Time) {
	now = now.Round(0) // without the monotonic reading
	if !t.looked.IsZero() && now.Sub(t.looked) > pausedAfter {
		t.log.Warn("nothing ran here for a while; every client is given time to be heard", "pause", now.Sub(t.looked))
		t.awake.Store(now.Unix())
	}
	t.looked = now
	all := t.All()
	for _, c := range all {
		c.Tick(now)
	}
	t.makeRoom(all, now)
}

// Silence is for how long a client that was last heard at a moment could have been heard since, and was not: pauses of this process are none of its.
func (t *Table) Silence(now, heard time.Time) time.Duration {
	if awake := time.Unix(t.awake.Load(), 0); heard.Before(awake) {
		heard = awake
	}
	return now.Round(0).Sub(heard.Round(0))
}

// All are the connections, in no order.
func (t *Table) All() []Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Conn, 0, len(t.conns))
	for c := range t.conns {
		out = append(out, c)
	}
	return out
}

// Len is how many connections there are.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

var (
	errFull     = wire.E(wire.TooManyConnections, "this gateway is full; try again, which may reach another one")
	errAddress  = wire.E(wire.TooManyConnections, "too many connections from this address")
	errTooMany  = wire.E(wire.TooManyConnections, "this user has too many connections here; close one")
	errDraining = wire.E(wire.Unavailable, "this gateway is shutting down; connect again")
)

// Add takes a connection, or says why not and how to end it.
func (t *Table) Add(c Conn, r *http.Request) (why wire.Close, err error) {
	if err := t.ready(); err != nil {
		return wire.CloseTryLater, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining {
		return wire.CloseDraining, errDraining
	}
	a := network(t.Address(r))
	switch {
	case len(t.conns) >= t.Total:
		t.doubt(limit{})
		return wire.CloseTooMany, errFull
	case t.byAddr[a] >= t.PerAddress:
		t.doubt(limit{address: a})
		return wire.CloseTooMany, errAddress
	}
	t.conns[c] = entry{address: a}
	t.byAddr[a]++
	t.open.Inc()
	return wire.Close{}, nil
}

// Remove takes out a connection that has ended. It does nothing the second time.
func (t *Table) Remove(c Conn, why wire.Close) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.conns[c]
	if !ok {
		return
	}
	t.place(c, "")
	delete(t.conns, c)
	count(t.byAddr, e.address, -1)
	t.open.Dec()
	t.ends.WithLabelValues(closeLabel(why.Code)).Inc()
}

func count[K comparable](m map[K]int, key K, by int) {
	if m[key] += by; m[key] <= 0 {
		delete(m, key)
	}
}

// closeLabel keeps the label's values few: a peer may send any code.
func closeLabel(code int) string {
	for _, c := range wire.Closes {
		if c.Code == code {
			return c.Reason
		}
	}
	return "other"
}

// SignIn gives a connection a place among those of a user. When there is none, it waits for those of them that do not answer to make room, if it may.
// Only the connection's reader may call SignIn and SignOut.
func (t *Table) SignIn(c Conn, user string, wait bool) error {
	over := t.trySignIn(c, user, wait)
	if over != nil && wait {
		select {
		case <-over:
		case <-time.After(PlaceTime): // nobody looks any more
		}
		over = t.trySignIn(c, user, false)
	}
	if over != nil {
		return errTooMany
	}
	return nil
}

// trySignIn gives a connection its place; or there is none, and the result is closed when it is known who lives of those that have them.
func (t *Table) trySignIn(c Conn, user string, wait bool) (over <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byUser[user] >= t.PerUser {
		if e, ok := t.conns[c]; ok {
			e.waiting = wait
			t.conns[c] = e
		}
		return t.doubt(limit{user: user})
	}
	t.place(c, user)
	return nil
}

// SignOut gives the place back. It does nothing the second time.
func (t *Table) SignOut(c Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.place(c, "")
}

// place needs mu. It gives a connection a place among those of user, "" for none, in exchange for the one that it has.
func (t *Table) place(c Conn, user string) {
	e, ok := t.conns[c]
	if !ok {
		return // it has been ended, and its place is another one's
	}
	if e.user != "" {
		count(t.byUser, e.user, -1)
	}
	if user != "" {
		t.byUser[user]++
	}
	e.user, e.waiting = user, false
	t.conns[c] = e
}

// Drain takes no new connections, tells everybody to leave at a random time within window, and closes who stays. It returns when all are
// gone or ctx ends, which cuts the rest.
func (t *Table) Drain(ctx context.Context, window time.Duration) {
	t.mu.Lock()
	t.draining = true
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range t.All() {
		in := time.Duration(rand.Int64N(int64(window) + 1))
		c.GoAway(in)
		wg.Add(1)
		timer := time.AfterFunc(in+window/4, func() { c.Close(wire.CloseDraining); wg.Done() })
		stop := context.AfterFunc(ctx, func() {
			if timer.Stop() {
				c.Close(wire.CloseDraining)
				wg.Done()
			}
		})
		defer stop()
	}
	wg.Wait()
	for t.Len() > 0 && ctx.Err() == nil {
		select {
		case <-time.After(20 * time.Millisecond): // readers end within the linger time
		case <-ctx.Done():
		}
	}
}
