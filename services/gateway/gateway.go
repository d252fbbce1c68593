// Package gateway is the public door: HTTP and WebSocket on one side, NATS on the other.
package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/accept"
	"parley.example/pkg/api"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/pkg/streams"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/access"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/httpapi"
	"parley.example/services/gateway/internal/legacy"
	"parley.example/services/gateway/internal/marks"
	"parley.example/services/gateway/internal/native"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/wsconn"
	"parley.example/services/gateway/web"
)

// Deps are what a gateway does not make itself.
type Deps struct {
	Log      *slog.Logger
	Registry *prometheus.Registry
	NATS     []nats.Option // such as nats.InProcessServer
	// Storage says why nothing new can be stored now, though NATS can be reached; nil for never. New messages and registrations are
	// refused with its error, which clients see, and the gateway is not ready.
	Storage func() error
	// Ready is what the public /readyz tells instead of the gateway's own; nil for the gateway's own. A process of several services
	// sends clients away when one of them cannot work.
	Ready func() error
}

// Service is one gateway.
type Service struct {
	cfg       Config
	log       *slog.Logger
	storage   func() error
	ln        *accept.Listener
	srv       *http.Server
	admin     *obs.Admin
	bus       *bus.Bus
	router    *router.Router
	publisher *bus.Publisher
	confirmer *bus.Confirmer
	verifier  *access.Verifier
	directory *directory.Directory
	marks     *marks.Tracker
	presence  *presence.Mirror
	table     *connections.Table
	hub       *session.Hub
	engine    *engineio.Server
	legacy    *legacy.Legacy
	node      string // the name by which other gateways ask this one
	draining  atomic.Bool
}

// headerTime is how long a connection may say nothing, or be at the headers of a request. It bounds what those cost that never ask for anything.
const headerTime = 5 * time.Second

// New binds the public and the admin port. It waits for nothing else: Ready tells when the rest is there.
func New(cfg Config, deps Deps) (_ *Service, err error) {
	if deps.Storage == nil {
		deps.Storage = func() error { return nil }
	}
	edge, err := httpapi.NewEdge(cfg.API)
	if err != nil {
		return nil, err
	}
	sockets := cfg.sockets(accept.Room())
	sockets.Trusted, sockets.Refusal = edge.Trusted, httpapi.Refusal()
	cfg.Connections = min(cfg.Connections, sockets.Total-sockets.Total/8)
	s := &Service{cfg: cfg, log: deps.Log, storage: deps.Storage}
	if deps.Ready == nil {
		deps.Ready = s.Ready
	}
	defer func() {
		if err != nil {
			s.closeAll()
		}
	}()
	if s.ln, err = accept.Listen(cfg.HTTP, sockets, deps.Log, deps.Registry); err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	if s.admin, err = obs.Listen(cfg.Obs.Admin, deps.Log, deps.Registry, deps.Registry, s.Ready); err != nil {
		return nil, err
	}
	if s.bus, err = bus.Open(cfg.NATS, "parley-gateway", deps.Log, deps.NATS...); err != nil {
		return nil, err
	}
	s.bus.Observe(deps.Registry)
	deps.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_gateway_connections_limit",
		Help: "Open connections that this gateway takes at most."}, func() float64 { return float64(cfg.Connections) }))
	services := s.bus.Services(cfg.RPCTimeout)
	s.router = router.New(s.bus.Deliveries(), services, deps.Log, deps.Registry)
	publishing := bus.DefaultPublisher
	publishing.Unready = cfg.Unstored
	if s.publisher, err = bus.NewPublisher(s.bus, publishing, deps.Storage, deps.Registry); err != nil {
		return nil, err
	}
	s.confirmer = bus.NewConfirmer(api.HistoryConfirm.By(services), deps.Log, deps.Registry)
	s.verifier = access.New(s.bus, api.AuthUsed.By(services), deps.Log, deps.Registry)
	s.directory = directory.New(services, s.bus, cfg.Directory, deps.Log, deps.Registry)
	s.presence = presence.New(services, s.bus, cfg.Presence, deps.Log, deps.Registry)
	s.hub = session.NewHub(cfg.Session, session.Deps{
		Log: deps.Log, Registry: deps.Registry, Router: s.router, Publisher: s.publisher, CatchUps: bus.NewCatchUps(api.HistoryCatchUp.By(services)),
		Confirmer: s.confirmer, Bus: s.bus, Services: services, Directory: s.directory, Presence: s.presence, Verifier: s.verifier, Peers: peers(services),
	})
	s.verifier.Watch(s.hub.Revoke)
	s.directory.OnChange(s.hub.DirectoryChanged)
	s.directory.OnSight(s.hub.SightChanged)
	s.marks = marks.New(marks.Deps{
		Bus: s.bus, Ask: api.HistoryMarks.By(services), Members: s.router, Deaf: s.directory.Look, Log: deps.Log, Registry: deps.Registry,
	})
	s.directory.OnListed(func(user, peer string, added bool) {
		s.hub.Listed(user, peer, added)
		if added {
			s.marks.Shown(user, peer) // a session that may not see the other one passes over its marks
		}
	})

	budget := &wsconn.Budget{PerConn: cfg.OutboxBytes, Total: cfg.OutboxTotal}
	s.table = connections.New(connections.Limits{
		Total: cfg.Connections, PerAddress: cfg.PerAddress, PerUser: cfg.Session.UserConnections, Address: edge.ClientAddress,
	}, s.hub.Ready, deps.Log, deps.Registry)
	s.legacy = legacy.New(s.hub, s.table, cfg.Legacy, services)
	s.node = rand.Text()[:12]
	s.engine = s.legacy.Engine(s.bus, s.node, budget, edge.OriginAllowed, deps.Registry)
	site, err := web.New()
	if err != nil {
		return nil, err
	}
	old := legacy.NewHTTP(legacy.HTTPDeps{
		Services: services, Presence: s.presence, Tokens: s.verifier, Joined: s.legacy.Joined, Bots: cfg.Legacy.Bots, Tell: s.served,
		Address: edge.AddressText, OwnSite: edge.SiteAllowed,
	})
	handler, err := httpapi.New(cfg.API, httpapi.Deps{
		Services: services, Presence: s.presence, Tokens: s.verifier, Directory: s.directory, Web: site,
		Ready: deps.Ready, Storage: deps.Storage, Routed: s.router.Routed, WebSocket: native.New(s.hub, s.table, budget),
		SocketIO: s.engine, Held: s.engine.Holds, Legacy: old.Routes(), Listed: s.listed, Log: deps.Log, Registry: deps.Registry,
	})
	if err != nil {
		return nil, err
	}
	s.srv = &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTime, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(deps.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addr is the public address.
func (s *Service) Addr() string { return s.ln.Addr().String() }

// AdminAddr is the private address, "" for none.
func (s *Service) AdminAddr() string { return s.admin.Addr() }

// Ready reports why this gateway cannot serve now. It depends on NATS and what has been read from it, not on SQL or
// Redis: without those, chat goes on.
func (s *Service) Ready() error {
	switch {
	case s.draining.Load():
		return errors.New("draining")
	case !s.bus.Connected():
		return errors.New("NATS is not connected")
	case !s.router.Primed():
		return errors.New("the message streams are not there yet (history makes them)")
	}
	return errors.Join(s.publisher.Ready(), s.verifier.Ready(), s.storage())
}

// Run serves until ctx ends, then drains.
func (s *Service) Run(ctx context.Context) error {
	defer s.closeAll()
	// What serves clients outlives ctx until the drain is over.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	unsubscribe, err := s.bus.Subscribe(subject.AppliedPrefix+"*", s.router.Applied)
	if err != nil {
		return err
	}
	defer unsubscribe()
	stopNode, err := s.serveNode()
	if err != nil {
		return err
	}
	defer stopNode()
	return lifecycle.Group(work,
		func(work context.Context) error { return s.prime(work) },
		func(work context.Context) error { return s.publisher.Run(work) },
		func(work context.Context) error { return s.confirmer.Run(work) },
		func(work context.Context) error { return s.verifier.Run(work) },
		func(work context.Context) error { return s.directory.Run(work) },
		func(work context.Context) error { return s.marks.Run(work) },
		func(work context.Context) error { return s.presence.Run(work) },
		func(work context.Context) error { return s.table.Run(work) },
		func(work context.Context) error { return s.engine.Run(work) },
		func(work context.Context) error { return s.admin.Run(work) },
		trim,
		func(work context.Context) error {
			if err := s.srv.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve clients: %w", err)
			}
			<-work.Done()
			return nil
		},
		func(work context.Context) error {
			select {
			case <-ctx.Done():
			case <-work.Done(): // another part failed
				_ = s.srv.Close()
				return nil
			}
			s.drain(work)
			stop()
			return nil
		},
	)
}

// prime waits for the streams, tells the router where they stand, and routes.
func (s *Service) prime(ctx context.Context) error {
	for {
		last, err := s.positions(ctx)
		if err == nil {
			s.router.Prime(last)
			return s.router.Run(ctx)
		}
		s.log.Debug("waiting for the message streams", "error", err)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) positions(ctx context.Context) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n, _, err := streams.Lookup(ctx, s.bus.JetStream())
	if err != nil {
		return nil, err
	}
	last := make([]int64, n)
	for p := range last {
		if last[p], err = s.bus.LastSeq(ctx, p); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// drain: not ready, no new connections, everybody asked to leave, requests finished, messages under way settled.
func (s *Service) drain(ctx context.Context) {
	s.log.Info("draining", "connections", s.table.Len())
	s.draining.Store(true)
	pause(ctx, s.cfg.DrainWait)
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.Drain+5*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.srv.Shutdown(ctx) // closes the listener; what does not end in time is cut by closeAll
	}()
	s.table.Drain(ctx, s.cfg.Drain)
	<-done
	for s.publisher.InFlight() > 0 && ctx.Err() == nil {
		pause(ctx, 10*time.Millisecond) // each ends within its own give-up time
	}
	s.hub.Wait(ctx)
	s.log.Info("drained")
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *Service) closeAll() {
	if s.srv != nil {
		_ = s.srv.Close()
	}
	if s.ln != nil {
		_ = s.ln.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.bus != nil {
		s.bus.Close()
	}
}
