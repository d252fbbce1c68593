// Package session is a signed-in client while it is connected: what it is owed, what it says, what it has confirmed, and of whom it is told. The
// protocols that clients speak (packages native and legacy) are rooms beside it: they read and write the frames, and call it.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/inbox"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/scope"
)

// Config has the limits and times of sessions and of the connections under them.
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

// FrameBurst is how many frames a connection may send at once.
func (c Config) FrameBurst() int { return 10 * c.FramesPerSecond }

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

// Wire is how a session's client is written to, in whatever protocol. Only Wait blocks. A Wire calls nobody back.
type Wire interface {
	// Send sends an event; data is one of the types of package wire, *Accepted or nil. re names what it answers, "" for nothing.
	Send(event string, data any, re string)
	// SendMessage sends received_message.
	SendMessage(d *router.Delivery)
	// Wait returns when everything sent has been handed to the kernel.
	Wait(ctx context.Context) error
	// Close ends what the token of the session was good for.
	Close(why wire.Close)
}

// Directory decides who may talk to whom.
type Directory interface {
	// Authorize of it gives the registered form of name, or why user may not talk to it.
	scope.Directory
	// Recall gives the registered form of name; gone says that its user was erased, or that nobody ever had it, which is given as it stands.
	Recall(ctx context.Context, name string) (registered string, gone bool, err error)
	// Sees reports whether user may learn what peer does; when it is not sure, Authorize tells.
	Sees(user, peer string) (ok, sure bool)
	Acquire(user string)
	Release(user string)
	Mode() api.Mode
}

// Presence announces sessions and tells who is there.
type Presence interface {
	Online(sid uint64, user string)
	Gone(sid uint64, user string, deliberate bool)
	scope.Presence
}

// Verifier checks access tokens; failures are *wire.Error or wrap one.
type Verifier interface {
	Verify(tok string, now time.Time) (token.Claims, error)
	// Revoked reports whether what Verify once accepted is void now.
	Revoked(c token.Claims) bool
	// Disabled reports whether a user whose tokens are void is locked out.
	Disabled(user string) bool
}

// Bus is what sessions need of NATS besides publishing.
type Bus interface {
	Notify(r room.Room, e api.Ephemeral)
	LastSeq(ctx context.Context, p int) (int64, error)
}

// Publisher stores messages.
type Publisher interface {
	New(m bus.Publication) *bus.Publication
	// Publish tells the outcome by Done, unless Copied comes first.
	Publish(m *bus.Publication)
}

// Deps are the parts that sessions work with.
type Deps struct {
	Log       *slog.Logger
	Registry  prometheus.Registerer
	Router    *router.Router
	Publisher Publisher
	CatchUps  *bus.CatchUps
	Confirmer *bus.Confirmer
	Bus       Bus
	Services  rpc.Caller
	Directory Directory
	Presence  Presence
	Verifier  Verifier
	// Peers are those with whom a user talked last; nil: nobody knows.
	Peers func(ctx context.Context, user string) ([]string, error)
}

// Hub has the sessions of a gateway.
type Hub struct {
	Config
	Deps

	mu    sync.Mutex
	users map[string]*user // who have sessions here
	wg    sync.WaitGroup   // goroutines of sessions

	inboxes inbox.Desk
	sights  *scope.Desk
	m       metrics
}

// user is what the sessions of one user share.
type user struct {
	sessions []*Session    // replaced, never changed in place; under Hub.mu
	limiter  *rate.Limiter // made with the first message, as most users who are connected send none; under Hub.mu
}

type metrics struct {
	sessions  prometheus.Gauge
	accepted  prometheus.Counter
	delivered prometheus.Counter
	errors    *prometheus.CounterVec
	catchUps  prometheus.Histogram
	overtaken prometheus.Counter
}

// NewHub makes an empty hub.
func NewHub(cfg Config, deps Deps) *Hub {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_" + name, Help: help})
		deps.Registry.MustRegister(c)
		return c
	}
	h := &Hub{Config: cfg, Deps: deps, users: map[string]*user{}, m: metrics{
		sessions:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_gateway_sessions", Help: "Authenticated sessions."}),
		accepted:  counter("accepted_total", "Messages accepted from clients of this gateway."),
		delivered: counter("delivered_total", "Messages written to sessions, live or read from history."),
		errors:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_errors_total", Help: "Error frames sent, by code."}, []string{"code"}),
		overtaken: counter("join_overtaken_total", "Joins that went live before history had answered."),
		catchUps: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_gateway_catch_up_seconds",
			Help: "From join to caught up.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}}),
	}}
	h.inboxes = inbox.Desk{Router: deps.Router, CatchUps: deps.CatchUps, Patience: cfg.CatchUpPatience, Go: h.Go, Overtaken: h.m.overtaken.Inc,
		CaughtUp: func(after time.Duration) { h.m.catchUps.Observe(after.Seconds()) }}
	h.sights = scope.NewDesk(&scope.Desk{Directory: deps.Directory, Presence: deps.Presence, Peers: deps.Peers, Go: h.Go})
	deps.Registry.MustRegister(h.m.sessions, h.m.errors, h.m.catchUps)
	for _, c := range wire.Codes {
		h.m.errors.WithLabelValues(string(c))
	}
	return h
}

var errStarting = wire.E(wire.Unavailable, "this gateway is starting; connect again")

// Ready is an error before the router knows the streams: a session could neither send nor resume.
func (h *Hub) Ready() error {
	if !h.Router.Primed() {
		return errStarting
	}
	return nil
}

// Go runs f in a goroutine that Wait waits for.
func (h *Hub) Go(f func()) {
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		f()
	}()
}

// After runs f in a goroutine after d; Wait waits for it from now on.
func (h *Hub) After(d time.Duration, f func()) {
	h.wg.Add(1)
	time.AfterFunc(d, func() {
		defer h.wg.Done()
		f()
	})
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

// reserve takes one message from a user's allowance, or says how long to wait for it.
func (h *Hub) reserve(name string) time.Duration {
	h.mu.Lock()
	u := h.users[name]
	if u == nil {
		h.mu.Unlock()
		return 0 // the session is ending
	}
	if u.limiter == nil {
		u.limiter = rate.NewLimiter(rate.Limit(float64(h.MessagesPerMinute)/60), h.MessageBurst)
	}
	l := u.limiter
	h.mu.Unlock()
	r := l.Reserve()
	wait := r.Delay()
	if wait > 0 {
		r.Cancel()
	}
	return wait
}

// enter and leave keep the sessions by user. A user who leaves and comes back has a full allowance again; the price of keeping nothing for those who
// are not here.
func (h *Hub) enter(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[s.user]
	if u == nil {
		u = &user{}
		h.users[s.user] = u
	}
	u.sessions = append(slices.Clip(u.sessions), s)
	h.m.sessions.Inc()
}

func (h *Hub) leave(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[s.user]
	if u.sessions = slices.DeleteFunc(slices.Clone(u.sessions), func(x *Session) bool { return x == s }); len(u.sessions) == 0 {
		delete(h.users, s.user)
	}
	h.m.sessions.Dec()
}

// sessions are those of a user, "" for all.
func (h *Hub) sessions(name string) (list []*Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name != "" {
		if u := h.users[name]; u != nil {
			list = u.sessions
		}
		return list
	}
	for _, u := range h.users {
		list = append(list, u.sessions...)
	}
	return list
}

// Revoke ends the sessions that match.
func (h *Hub) Revoke(match func(token.Claims) bool) {
	for _, s := range h.sessions("") {
		if !match(s.Claims()) {
			continue
		}
		why := wire.CloseTokenRevoked
		if h.Verifier.Disabled(s.user) {
			why = wire.CloseUserDisabled
		}
		s.out.close(why)
	}
}

// Listed tells the sessions of a user of a new or a lost contact.
func (h *Hub) Listed(user, peer string, added bool) {
	for _, s := range h.sessions(user) {
		if s.active.Load() {
			s.contact(peer, added)
		}
	}
}

func (s *Session) contact(peer string, added bool) {
	event := wire.EvContactRemoved
	if added {
		event = wire.EvContactAdded
	}
	if rm, err := room.Of(s.user, peer); err == nil {
		s.Send(event, wire.Contact{Username: peer, Room: rm.String()}, "")
	}
}

// DirectoryChanged deals with a change of the directory.
func (h *Hub) DirectoryChanged(e api.DirectoryEvent) {
	switch e.Kind {
	case api.EventRelations, api.EventContactAdded, api.EventContactRemoved:
		// Also where the relations look the same: Sight may not have all of them.
		h.SightChanged(e.Username)
		h.SightChanged(e.Peer)
	case api.EventRegistered, api.EventErased:
		// Everybody's contact, but only where everybody's presence is sent to everybody as well.
		if _, small := h.Directory.SmallDirectory(); !small || h.Directory.Mode() != api.Everyone {
			return
		}
		for _, s := range h.sessions("") {
			if s.user != e.Username && s.active.Load() {
				s.contact(e.Username, e.Kind == api.EventRegistered)
			}
		}
	}
}

// SightChanged has the sessions of a user ("": of all) find out anew whose presence they may get.
func (h *Hub) SightChanged(user string) {
	list := h.sessions(user)
	if len(list) == 0 {
		return
	}
	h.Go(func() {
		for _, s := range list {
			// Not before it has a picture to be changed.
			if s.scope.Begun() && s.ctx.Err() == nil {
				s.scope.Look()
				s.scope.Meet()
			}
		}
	})
}

// NamesListed notes whom a client of user was shown, at any gateway.
func (h *Hub) NamesListed(user string, names []string) {
	h.sights.Listed(user, names)
	for _, s := range h.sessions(user) {
		s.scope.Listed()
	}
}
