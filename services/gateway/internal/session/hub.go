// Package session is a connected client: who it is, what it may do, what it is owed. The native WebSocket protocol is one
// wire of it (native.go); other protocols bring their own.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/router"
)

// Config has the limits and times of sessions.
type Config struct {
	FrameBytes        int           `cfg:"frame-bytes" default:"65536" help:"largest frame that a client may send"`
	ContentBytes      int           `cfg:"content-bytes" default:"16384" help:"largest message text, in bytes of UTF-8"`
	MessagesPerMinute int           `cfg:"messages-per-minute" default:"600" help:"messages a user may send in a minute, per gateway"`
	MessageBurst      int           `cfg:"message-burst" default:"300" help:"messages a user may send at once"`
	FramesPerSecond   int           `cfg:"frames-per-second" default:"100" help:"frames a connection may send, pings and parts of messages too; its burst is ten times that; more closes it with 4003"`
	Heartbeat         time.Duration `cfg:"heartbeat" default:"25s" help:"the server pings idle connections this often; twice as long without a sign of life closes"`
	AuthTimeout       time.Duration `cfg:"auth-timeout" default:"10s" help:"until a connection without a token must have authenticated"`
	UserConnections   int           `cfg:"user-connections" default:"32" help:"connections of one user on one gateway"`
	CatchUpPatience   time.Duration `cfg:"catch-up-patience" default:"2s" help:"how long a join waits for history before live messages go first"`
	TokenGrace        time.Duration `cfg:"token-grace" default:"1h" help:"how long an open socket outlives its token while auth is away"`
}

// Validate returns every mistake.
func (c Config) Validate() error {
	var errs []error
	for name, v := range map[string]int64{
		"frame-bytes": int64(c.FrameBytes), "content-bytes": int64(c.ContentBytes), "messages-per-minute": int64(c.MessagesPerMinute),
		"message-burst": int64(c.MessageBurst), "frames-per-second": int64(c.FramesPerSecond), "auth-timeout": int64(c.AuthTimeout),
		"user-connections": int64(c.UserConnections), "catch-up-patience": int64(c.CatchUpPatience),
	} {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be above 0", name))
		}
	}
	if c.Heartbeat < time.Second {
		errs = append(errs, errors.New("heartbeat: must be at least 1s"))
	}
	// A message takes up to six times its bytes in JSON, and must fit into one NATS message of 1 MiB.
	if c.ContentBytes > 128<<10 {
		errs = append(errs, errors.New("content-bytes: at most 131072"))
	}
	if c.FrameBytes < c.ContentBytes+1024 {
		errs = append(errs, errors.New("frame-bytes: must be at least content-bytes + 1024"))
	}
	return errors.Join(errs...)
}

// Wire is the connection under a session, in whatever protocol. Its methods do not block, but for Wait.
type Wire interface {
	// Send sends an event; data is one of the types of package wire or nil.
	Send(event string, data any, re string)
	// SendMessage sends received_message.
	SendMessage(d *router.Delivery)
	// Probe asks the peer for a sign of life, which comes as Session.Answered(n) and proves that everything before has arrived.
	Probe(n uint32)
	// Beats reports that the wire has heartbeats of its own, and ends by itself when the peer is gone.
	Beats() bool
	// LastReceived is the last sign of life, in Unix seconds.
	LastReceived() int64
	Close(why wire.Close)
	// JoinSent is called, where Session.join may be, before a message to r is sent: sending to a room joins it.
	JoinSent(s *Session, r room.Room) error
	// Echoes reports that the session's own messages are shown to it like all others of their rooms, in their order; message_accepted does not
	// stand for them then.
	Echoes() bool
	// Wait returns when everything sent has been handed to the kernel.
	Wait(ctx context.Context) error
}

// History is what sessions ask history themselves.
type History interface {
	HistoryFind(ctx context.Context, req api.FindRequest) (api.FindResponse, error)
	HistoryRead(ctx context.Context, req api.ReadRequest) (api.ReadResponse, error)
	HistoryPage(ctx context.Context, req api.PageRequest) (api.PageResponse, error)
}

// Directory decides who may talk to whom.
type Directory interface {
	// Peer gives the registered form of name, or why user may not talk to it.
	Peer(ctx context.Context, user, name string) (string, error)
	// Recall gives the registered form of name; gone says that its user was erased, or that nobody ever had it, which is given as it stands.
	Recall(ctx context.Context, name string) (registered string, gone bool, err error)
	// Sees reports whether user may learn what peer does; when it is not sure, Peer tells.
	Sees(user, peer string) (ok, sure bool)
	Acquire(user string)
	Release(user string)
	SmallDirectory() (names []string, ok bool)
	Sight(user string) directory.Sight
	Mode() api.Mode
}

// Presence announces sessions and tells who is there.
type Presence interface {
	Online(sid uint64, user string)
	Gone(sid uint64, user string, deliberate bool)
	Watch(w presence.Watcher, self string, names, hidden []string)
	Unwatch(w presence.Watcher)
}

// Verifier checks access tokens; failures are *wire.Error or wrap one.
type Verifier interface {
	Verify(tok string, now time.Time) (token.Claims, error)
	// Revoked reports whether what Verify once accepted is void now.
	Revoked(c token.Claims) bool
	// Disabled reports whether a user whose tokens are void is locked out.
	Disabled(user string) bool
}

// Auth tells whether auth can be reached, for tokens that run out meanwhile, and ends logins.
type Auth interface {
	AuthRelations(ctx context.Context, req api.RelationsRequest) (api.Relations, error)
	AuthLogout(ctx context.Context, req api.LogoutRequest) error
}

// Bus is what sessions need of NATS besides publishing.
type Bus interface {
	Notify(r room.Room, e api.Ephemeral)
	LastSeq(ctx context.Context, p int) (int64, error)
}

// Deps are the parts that sessions work with.
type Deps struct {
	Log       *slog.Logger
	Registry  prometheus.Registerer
	Router    *router.Router
	Publisher *bus.Publisher
	CatchUps  *bus.CatchUps
	Confirmer *bus.Confirmer
	Bus       Bus
	History   History
	Directory Directory
	Presence  Presence
	Verifier  Verifier
	Auth      Auth
	Places    Places
	// Peers are those with whom a user talked last; nil: nobody knows.
	Peers func(ctx context.Context, user string) ([]string, error)
}

// Hub holds all sessions of a gateway.
type Hub struct {
	cfg Config
	Deps

	mu        sync.Mutex
	tickers   map[ticker]netip.Addr // and whose place each has
	byAddress map[netip.Addr]int
	accounts  map[string]*account
	doubts    map[limit]*doubt      // who fills a limit that was reached (room.go)
	waiting   map[Wire]bool         // for room among their user's connections
	lookers   map[*Session]struct{} // who watches presence without having joined
	draining  bool
	wg        sync.WaitGroup // goroutines of sessions

	looked time.Time    // the last look at the connections; Run only
	awake  atomic.Int64 // Unix seconds: since when the process runs without a pause, 0 for always

	presenceFrames presenceCache
	near           *nearby
	m              metrics
}

// ticker is a connection, authenticated or not, that is looked at every second.
type ticker interface {
	tick(now time.Time)
	goAway(in time.Duration)
	close(why wire.Close)
	session() *Session // nil before authentication
	LastReceived() int64
	ask() // for a sign of life
}

// account is what the sessions of one user on this gateway share.
type account struct {
	sessions int

	mu      sync.Mutex
	limiter *rate.Limiter // made with the first message: most users that are connected send none
}

// reserve takes one message from the user's allowance, or says how long to wait for it.
func (a *account) reserve(perMinute, burst int) time.Duration {
	a.mu.Lock()
	if a.limiter == nil {
		a.limiter = rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst)
	}
	l := a.limiter
	a.mu.Unlock()
	r := l.Reserve()
	wait := r.Delay()
	if wait > 0 {
		r.Cancel()
	}
	return wait
}

type metrics struct {
	connections prometheus.Gauge
	sessions    prometheus.Gauge
	accepted    prometheus.Counter
	delivered   prometheus.Counter
	errors      *prometheus.CounterVec
	closes      *prometheus.CounterVec
	catchUps    prometheus.Histogram
	overtaken   prometheus.Counter
}

// NewHub makes an empty hub.
func NewHub(cfg Config, deps Deps) *Hub {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_gateway_" + name, Help: help})
		deps.Registry.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_" + name, Help: help})
		deps.Registry.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_" + name, Help: help}, []string{label})
		deps.Registry.MustRegister(c)
		return c
	}
	h := &Hub{cfg: cfg, Deps: deps, tickers: map[ticker]netip.Addr{}, byAddress: map[netip.Addr]int{}, accounts: map[string]*account{},
		doubts: map[limit]*doubt{}, waiting: map[Wire]bool{}, lookers: map[*Session]struct{}{}, near: newNearby()}
	h.m = metrics{
		connections: gauge("connections", "Open connections."),
		sessions:    gauge("sessions", "Authenticated sessions."),
		accepted:    counter("accepted_total", "Messages accepted from clients of this gateway."),
		delivered:   counter("delivered_total", "Messages written to sessions, live or read from history."),
		errors:      vec("errors_total", "Error frames sent, by code.", "code"),
		closes:      vec("closes_total", "Connections ended, by close code.", "code"),
		overtaken:   counter("join_overtaken_total", "Joins that went live before history had answered."),
		catchUps: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_gateway_catch_up_seconds",
			Help: "From join to caught up.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}}),
	}
	deps.Registry.MustRegister(h.m.catchUps)
	for _, c := range wire.Codes {
		h.m.errors.WithLabelValues(string(c))
	}
	for _, c := range wire.Closes {
		h.m.closes.WithLabelValues(closeLabel(c.Code))
	}
	return h
}

// tickEvery is between two looks at a connection.
const tickEvery = time.Second

// pausedAfter is between two looks when nothing can have run here: the process was stopped, its machine slept or was moved. What clients sent
// meanwhile lies unread.
const pausedAfter = 5 * tickEvery

// Run looks at every connection once a second until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			h.look(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// look looks at every connection. The clock on the wall measures a pause: Linux' monotonic clock stands still while a machine is suspended.
func (h *Hub) look(now time.Time) {
	now = now.Round(0) // without the monotonic reading
	if !h.looked.IsZero() && now.Sub(h.looked) > pausedAfter {
		h.Log.Warn("nothing ran here for a while; every client is given time to be heard", "pause", now.Sub(h.looked))
		h.awake.Store(now.Unix())
	}
	h.looked = now
	all := h.connections()
	for _, c := range all {
		c.tick(now)
	}
	h.makeRoom(all, now)
}

// silence is for how long a client that was last heard at a moment could have been heard since, and was not: pauses of this process are none of its.
func (h *Hub) silence(now, heard time.Time) time.Duration {
	if awake := time.Unix(h.awake.Load(), 0); heard.Before(awake) {
		heard = awake
	}
	return now.Round(0).Sub(heard.Round(0))
}

func (h *Hub) connections() []ticker {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]ticker, 0, len(h.tickers))
	for c := range h.tickers {
		out = append(out, c)
	}
	return out
}

var (
	errFull    = wire.E(wire.TooManyConnections, "this gateway is full; try again, which may reach another one")
	errAddress = wire.E(wire.TooManyConnections, "too many connections from this address")
)

// add takes a connection, or says why not and how to end it.
func (h *Hub) add(c ticker, r *http.Request) (why wire.Close, err error) {
	// Before the router knows the streams, a session could neither send nor resume.
	if !h.Router.Primed() {
		return wire.CloseTryLater, errStarting
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return wire.CloseDraining, errDraining
	}
	a := network(h.Places.Address(r))
	switch {
	case len(h.tickers) >= h.Places.Total:
		h.doubtLocked(limit{})
		return wire.CloseTooMany, errFull
	case h.byAddress[a] >= h.Places.PerAddress:
		h.doubtLocked(limit{address: a})
		return wire.CloseTooMany, errAddress
	}
	h.tickers[c] = a
	h.byAddress[a]++
	h.m.connections.Inc()
	return wire.Close{}, nil
}

func (h *Hub) remove(c ticker, why wire.Close) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a, ok := h.tickers[c]; ok {
		delete(h.tickers, c)
		if h.byAddress[a]--; h.byAddress[a] == 0 {
			delete(h.byAddress, a)
		}
		h.m.connections.Dec()
		h.m.closes.WithLabelValues(closeLabel(why.Code)).Inc()
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

// Connections is the number of open connections.
func (h *Hub) Connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tickers)
}

// acquire gives a session a place among those of its user. When there is none, it waits for those that do not answer to make room, if it may.
func (h *Hub) acquire(s *Session, wait bool) bool {
	over := h.tryAcquire(s)
	if over == nil || !wait {
		return over == nil
	}
	h.mu.Lock()
	h.waiting[s.wire] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, s.wire)
	}()
	select {
	case <-over:
	case <-time.After(roomTime): // nobody looks any more
	}
	return h.tryAcquire(s) == nil
}

// tryAcquire gives a session its place; or there is none, and the result is closed when it is known who lives of those that have them.
func (h *Hub) tryAcquire(s *Session) (over <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.accounts[s.user]
	if a == nil {
		a = &account{}
		h.accounts[s.user] = a
	}
	if a.sessions >= h.cfg.UserConnections {
		return h.doubtLocked(limit{user: s.user})
	}
	a.sessions++
	s.acct, s.placed = a, true
	return nil
}

// release gives a session's place back. It does nothing the second time.
func (h *Hub) release(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.placed {
		return
	}
	s.placed = false
	if s.acct.sessions--; s.acct.sessions == 0 {
		// A user who leaves and comes back has a full burst again; the price of keeping nothing for those who are away.
		delete(h.accounts, s.user)
	}
}

// Revoke closes the sessions that match.
func (h *Hub) Revoke(match func(token.Claims) bool) {
	for _, c := range h.connections() {
		if s := c.session(); s != nil && match(s.currentClaims()) {
			why := wire.CloseTokenRevoked
			if h.Verifier.Disabled(s.user) {
				why = wire.CloseUserDisabled
			}
			c.close(why)
		}
	}
}

// Listed tells the sessions of a user of a new or a lost contact.
func (h *Hub) Listed(user, peer string, added bool) {
	for _, m := range h.Router.Members(user) {
		if s, ok := m.(*Session); ok {
			s.listed(peer, added)
		}
	}
}

func (s *Session) listed(peer string, added bool) {
	event := wire.EvContactRemoved
	if added {
		event = wire.EvContactAdded
	}
	if rm, err := room.Of(s.user, peer); err == nil {
		s.send(event, wire.Contact{Username: peer, Room: rm.String()}, "")
	}
}

// DirectoryChanged deals with a change of the directory.
func (h *Hub) DirectoryChanged(e api.DirectoryEvent) {
	switch e.Kind {
	case api.EventRelations, api.EventContactAdded, api.EventContactRemoved:
		// Also where the relations look the same: Sight may not have all of them.
		h.SightChanged(e.Username)
		h.SightChanged(e.Peer)
	}
	switch e.Kind {
	case api.EventRegistered, api.EventErased:
		// Everybody's contact, but only where everybody's presence is sent to everybody as well.
		if _, small := h.Directory.SmallDirectory(); !small || h.Directory.Mode() != api.Everyone {
			return
		}
		for _, c := range h.connections() {
			if s := c.session(); s != nil && s.user != e.Username && s.isActive() {
				s.listed(e.Username, e.Kind == api.EventRegistered)
			}
		}
	}
}

// Drain takes no new connections, tells everybody to leave at a random time within window, and closes who stays. It returns when all are
// gone or ctx ends, which cuts the rest.
func (h *Hub) Drain(ctx context.Context, window time.Duration) {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range h.connections() {
		in := time.Duration(rand.Int64N(int64(window) + 1))
		c.goAway(in)
		wg.Add(1)
		t := time.AfterFunc(in+window/4, func() { c.close(wire.CloseDraining); wg.Done() })
		stop := context.AfterFunc(ctx, func() {
			if t.Stop() {
				c.close(wire.CloseDraining)
				wg.Done()
			}
		})
		defer stop()
	}
	wg.Wait()
	for h.Connections() > 0 && ctx.Err() == nil {
		select {
		case <-time.After(20 * time.Millisecond): // readers end within the linger time
		case <-ctx.Done():
		}
	}
}

// Wait returns when no goroutine of a session is left, or ctx ends.
func (h *Hub) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { h.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
