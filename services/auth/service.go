package auth

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/auth/internal/buckets"
	"parley.example/services/auth/internal/contacts"
	"parley.example/services/auth/internal/login"
	"parley.example/services/auth/internal/password"
	"parley.example/services/auth/internal/store"
	"parley.example/services/auth/internal/throttle"
)

const (
	version = "1.0.0"
	// lookups that run at a time in this process; they take a millisecond each.
	lookups = 256
	// patience with SQL and NATS: a caller waits no longer.
	lookupTime = 3 * time.Second
	loginTime  = 12 * time.Second // hashing may queue
	drainTime  = 10 * time.Second

	retryEvery   = time.Second
	checkEvery   = 2 * time.Second
	writeEvery   = 5 // checks; after one that failed, each
	publishEvery = time.Minute
	sweepEvery   = time.Minute
)

// Deps is what the service is given. NATS are more options for its connection.
type Deps struct {
	Log      *slog.Logger
	Registry *prometheus.Registry
	NATS     []nats.Option
}

// Service is one replica. Replicas share everything by SQL and NATS.
type Service struct {
	cfg   Config
	log   *slog.Logger
	nc    *nats.Conn
	store *store.Store
	admin *obs.Admin

	buckets  *buckets.Buckets
	signer   *token.Signer
	logins   *login.Service
	contacts *contacts.Service

	connected chan struct{} // one token after each (re)connect
	migrated  chan struct{} // closed when the schema is there

	mu      sync.Mutex
	served  bool
	trouble error // of SQL or of the start; nil when all is well

	checks  int              // by watch
	refuses prometheus.Gauge // 1 while SQL cannot be written
}

// New opens what the service needs, without waiting for NATS or SQL to be there. Run must follow; it also closes everything.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	key, err := cfg.key()
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, log: deps.Log, signer: token.NewSigner(key),
		connected: make(chan struct{}, 1), migrated: make(chan struct{}),
		trouble: errors.New("starting"),
		refuses: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_auth_sql_refuses", Help: "1 while SQL cannot be read or takes no writes, so that nobody can log in."}),
	}
	if err := deps.Registry.Register(s.refuses); err != nil {
		return nil, err
	}
	pool, err := password.NewPool(cfg.hashConcurrency(), cfg.HashQueue, deps.Registry)
	if err != nil {
		return nil, err
	}
	metrics, err := login.NewMetrics(deps.Registry)
	if err != nil {
		return nil, err
	}
	if s.store, err = store.Open(cfg.SQL); err != nil {
		return nil, err
	}
	if s.admin, err = obs.Listen(cfg.Obs.Admin, deps.Log, deps.Registry, deps.Registry, s.Ready); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	if err := s.connect(deps.NATS); err != nil {
		return nil, errors.Join(err, s.admin.Close(), s.store.Close())
	}
	natsconn.Observe(s.nc, "auth", deps.Registry)
	lives := login.Lives{Access: cfg.AccessTTL, Refresh: cfg.RefreshTTL, Legacy: cfg.LegacyTTL, Grace: cfg.RefreshGrace}
	if s.buckets, err = buckets.New(s.nc, cfg.Replicas, lives.Longest()); err != nil {
		s.nc.Close()
		return nil, errors.Join(err, s.admin.Close(), s.store.Close())
	}
	s.logins = &login.Service{
		Store: s.store, Pool: pool, Throttle: throttle.New(s.store, cfg.AccountTries, cfg.AddressTries),
		Revoker: s.buckets, Signer: s.signer, Lives: lives, Log: s.log, Announce: s.announce, Now: time.Now, Metrics: metrics,
	}
	s.contacts = &contacts.Service{
		Store: s.store, Mode: api.Mode(cfg.Mode), Limit: cfg.DirectoryLimit, Log: s.log, Announce: s.announce, Now: time.Now,
	}
	return s, nil
}

func (s *Service) connect(more []nats.Option) (err error) {
	wake := func(nc *nats.Conn) {
		s.log.Info("nats connected", "server", nc.ConnectedServerName())
		select {
		case s.connected <- struct{}{}:
		default:
		}
	}
	opts := append([]nats.Option{nats.ConnectHandler(wake), nats.ReconnectHandler(wake)}, more...)
	s.nc, err = natsconn.Connect(s.cfg.NATS, "auth", s.log, opts...)
	return err
}

// AdminAddr is where metrics and health are served, "" for nowhere.
func (s *Service) AdminAddr() string { return s.admin.Addr() }

// Ready says why requests cannot be answered now.
func (s *Service) Ready() error {
	if !s.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil && !s.served {
		return errors.New("starting")
	}
	return s.trouble
}

func (s *Service) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

// Run serves until ctx ends, then finishes what has begun. What is away at the start is waited for.
func (s *Service) Run(ctx context.Context) error {
	defer func() {
		s.nc.Close()
		if err := s.store.Close(); err != nil {
			s.log.Warn("SQL did not close", "error", err)
		}
	}()
	return lifecycle.Group(ctx, s.admin.Run, s.serve)
}

func (s *Service) serve(ctx context.Context) error {
	if !s.retry(ctx, "bring the schema up to date", s.store.Migrate) {
		return nil
	}
	close(s.migrated)
	// No login before gateways can know the key: its tokens would be refused.
	if !s.retry(ctx, "publish the public key", s.publish) {
		return nil
	}
	// Two sets of requests: a storm of logins must not take the places of what chatting needs.
	look, err := rpc.Serve(s.nc, "auth", version, lookups, s.log, s.lookupHandlers()...)
	if err != nil {
		return err
	}
	pass, err := rpc.Serve(s.nc, "auth-password", version, s.cfg.hashConcurrency()+s.cfg.HashQueue+64, s.log, s.passwordHandlers()...)
	if err == nil {
		s.mu.Lock()
		s.served, s.trouble = true, nil
		s.mu.Unlock()
		s.log.Info("auth serves", "mode", s.cfg.Mode)
		s.watch(ctx)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	look.Stop(stop)
	if pass != nil {
		pass.Stop(stop)
	}
	return err
}

// retry does f until it succeeds, or ctx ends.
func (s *Service) retry(ctx context.Context, what string, f func(context.Context) error) bool {
	for {
		try, cancel := context.WithTimeout(ctx, time.Minute)
		err := f(try)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.setTrouble(err)
		s.log.Warn("cannot "+what+" yet", "error", err)
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return false
		}
	}
}

func (s *Service) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	kid, key := s.signer.Public()
	return s.buckets.Publish(ctx, kid, key)
}

// watch keeps an eye on SQL, puts the key back where NATS may have lost it, and sweeps.
func (s *Service) watch(ctx context.Context) {
	check, publish, sweep := time.NewTicker(checkEvery), time.NewTicker(publishEvery), time.NewTicker(sweepEvery)
	defer check.Stop()
	defer publish.Stop()
	defer sweep.Stop()
	again := make(<-chan time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			s.check(ctx)
			continue
		case <-sweep.C:
			s.sweep(ctx)
			continue
		case <-publish.C:
		case <-s.connected:
		case <-again:
		}
		if err := s.publish(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the public key could not be published; trying again", "error", err)
			again = time.After(retryEvery)
		}
	}
}

// check looks whether SQL answers and, less often, whether it takes writes.
func (s *Service) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	s.mu.Lock()
	write := s.trouble != nil || s.checks%writeEvery == 0
	s.mu.Unlock()
	s.checks++
	err := s.store.Ping(ctx)
	if err == nil && write {
		err = s.store.TryWrite(ctx, time.Now())
	}
	if err != nil {
		s.refuses.Set(1)
	} else {
		s.refuses.Set(0)
	}
	s.setTrouble(err)
}

func (s *Service) sweep(ctx context.Context) {
	for range 100 { // what is left then waits a minute
		try, cancel := context.WithTimeout(ctx, lookupTime)
		now := time.Now()
		more, err := s.store.Sweep(try, now, now.Add(-throttle.Window))
		cancel()
		if err != nil && ctx.Err() == nil {
			s.log.Warn("old logins were not deleted", "error", err)
		}
		if err != nil || !more {
			return
		}
	}
}

func (s *Service) passwordHandlers() []rpc.Handler {
	return []rpc.Handler{
		api.AuthRegister.Handle(within(loginTime, s.logins.Register)),
		api.AuthLogin.Handle(within(loginTime, s.logins.Login)),
		api.AuthCheck.Handle(within(loginTime, s.logins.Check)),
	}
}

func (s *Service) lookupHandlers() []rpc.Handler {
	return []rpc.Handler{
		api.AuthRefresh.Handle(within(lookupTime, s.logins.Refresh)),
		api.AuthLogout.Handle(within(lookupTime, s.logins.Logout)),
		api.AuthUsed.Handle(within(lookupTime, s.logins.Used)),
		api.AuthEndLogins.Handle(within(lookupTime, s.logins.EndAll)),
		api.AuthContacts.Handle(within(lookupTime, s.contacts.Contacts)),
		api.AuthResolve.Handle(within(lookupTime, s.contacts.Resolve)),
		api.AuthRelations.Handle(within(lookupTime, s.contacts.Relations)),
		api.AuthDirectory.Handle(within(lookupTime, s.contacts.Directory)),
		api.AuthPutContact.Handle(within(lookupTime, s.contacts.PutContact)),
		api.AuthDeleteContact.Handle(within(lookupTime, s.contacts.DeleteContact)),
		api.AuthPutBlock.Handle(within(lookupTime, s.contacts.PutBlock)),
		api.AuthDeleteBlock.Handle(within(lookupTime, s.contacts.DeleteBlock)),
	}
}

// within bounds the time of a request.
func within[Req, Resp any](patience time.Duration, f func(context.Context, Req) (Resp, error)) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (Resp, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return f(ctx, req)
	}
}

// announce tells the gateways.
func (s *Service) announce(e api.DirectoryEvent) { announcer(s.nc, s.log)(e) }
