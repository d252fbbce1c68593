package history

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/rpc"
	"parley.example/pkg/streams"
	"parley.example/services/history/internal/answer"
	"parley.example/services/history/internal/ingest"
	"parley.example/services/history/internal/store"
)

const (
	version = "1.0.0"
	// requests that run at a time in this process. They share sql-conns connections, and some wait for SQL to catch up.
	requests  = 128
	drainTime = 10 * time.Second

	retryEvery = time.Second
	tryTime    = 30 * time.Second // one try of what is done at the start; creating streams in a young cluster takes some
	checkEvery = 2 * time.Second
	checkTime  = 3 * time.Second
	sweepEvery = time.Hour
)

// Deps is what the service is given. NATS are more options for its connection.
type Deps struct {
	Log      *slog.Logger
	Registry *prometheus.Registry
	NATS     []nats.Option
	Version  int // of payloads, the highest that is stored; 0: api.PayloadVersion. Tests of an upgrade set it.
}

// Service is one replica. Replicas share everything by SQL and NATS.
type Service struct {
	cfg     Config
	log     *slog.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	store   *store.Store
	admin   *obs.Admin
	ingest  *ingest.Ingest
	answers *answer.Server
	marks   *answer.Marks

	streamMetrics streamMetrics

	mu      sync.Mutex
	served  bool
	trouble error // of SQL or of the start; nil when all is well
}

// New opens what the service needs, without waiting for NATS or SQL to be there. Run must follow; it also closes everything.
func New(cfg Config, deps Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: deps.Log, trouble: errors.New("starting")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(), s.admin.Close())
		}
	}()
	if s.store, err = store.Open(cfg.SQL); err != nil {
		return nil, err
	}
	if s.admin, err = obs.Listen(cfg.Obs.Admin, deps.Log, deps.Registry, deps.Registry, s.Ready); err != nil {
		return nil, err
	}
	if s.nc, err = natsconn.Connect(cfg.NATS, "history", deps.Log, deps.NATS...); err != nil {
		return nil, err
	}
	natsconn.Observe(s.nc, "history", deps.Registry)
	if s.js, err = jetstream.New(s.nc); err != nil {
		return nil, err
	}
	s.streamMetrics = newStreamMetrics(deps.Registry)
	metrics, err := ingest.NewMetrics(deps.Registry)
	if err != nil {
		return nil, err
	}
	applied := answer.NewApplied(cfg.Streams.Partitions, s.store.Positions)
	s.marks = answer.NewMarks(s.nc.Publish)
	if s.answers, err = answer.New(s.store, applied, s.marks, cfg.Streams.Partitions, deps.Log, deps.Registry); err != nil {
		return nil, err
	}
	s.ingest = ingest.New(ingest.Config{
		Partitions: cfg.Streams.Partitions, Owner: rand.Text(), Lease: cfg.Lease, Batch: cfg.Batch, Idle: cfg.Idle, Gather: cfg.Gather, Keep: cfg.Keep,
		Version: cmp.Or(deps.Version, api.PayloadVersion),
	}, ingest.Deps{
		Log: deps.Log, JetStream: s.js, Store: s.store, Metrics: metrics, Publish: s.nc.Publish, Ensure: s.streams, Moved: applied.Moved,
	})
	return s, nil
}

// AdminAddr is where metrics and health are served, "" for nowhere.
func (s *Service) AdminAddr() string { return s.admin.Addr() }

// Ready says why history cannot do its work now.
func (s *Service) Ready() error {
	if !s.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	s.mu.Lock()
	trouble := s.trouble
	if trouble == nil && !s.served {
		trouble = errors.New("starting")
	}
	s.mu.Unlock()
	return errors.Join(trouble, s.ingest.Ready())
}

func (s *Service) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

func (s *Service) close() error {
	if s.nc != nil {
		s.nc.Close()
	}
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// Run serves until ctx ends, then finishes what has begun. What is away at the start is waited for.
func (s *Service) Run(ctx context.Context) error {
	defer func() {
		if err := s.close(); err != nil {
			s.log.Warn("SQL did not close", "error", err)
		}
	}()
	return lifecycle.Group(ctx, s.admin.Run, s.serve)
}

func (s *Service) serve(ctx context.Context) error {
	// Streams that exist are left alone while SQL is away: gateways go on.
	ok := s.retry(ctx, "bring the schema up to date", s.store.Migrate) &&
		s.retry(ctx, "read the positions", func(ctx context.Context) error { return s.store.Init(ctx, s.cfg.Streams.Partitions) }) &&
		s.retry(ctx, "make the streams", s.streams)
	if !ok {
		return nil
	}
	svc, err := rpc.Serve(s.nc, "history", version, requests, s.log, s.answers.Handlers()...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.served, s.trouble = true, nil
	s.mu.Unlock()
	s.log.Info("history serves", "partitions", s.cfg.Streams.Partitions)
	err = lifecycle.Group(ctx, s.ingest.Run, s.watch, s.watchStreams, s.marks.Run)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	svc.Stop(stop)
	s.marks.End() // of what the last requests moved, too
	if s.nc.IsConnected() {
		_ = s.nc.FlushWithContext(stop) // the last announcements; a gateway that misses one asks
	}
	return err
}

// streams makes the streams that are missing, above every seq that SQL has seen.
func (s *Service) streams(ctx context.Context) error {
	at, err := s.store.Positions(ctx)
	if err != nil {
		return err
	}
	err = streams.Ensure(ctx, s.js, s.cfg.Streams, func(p int) uint64 {
		if p >= len(at) {
			return 1
		}
		return uint64(at[p]) + 1
	})
	if errors.Is(err, streams.ErrUpdate) {
		s.log.Error("a stream keeps its old settings", "error", err)
		return nil
	}
	return err
}

// retry does f until it succeeds, or ctx ends.
func (s *Service) retry(ctx context.Context, what string, f func(context.Context) error) bool {
	for {
		try, cancel := context.WithTimeout(ctx, tryTime)
		err := f(try)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.setTrouble(err)
		if errors.Is(err, streams.ErrPartitions) || errors.Is(err, store.ErrPartitions) {
			s.log.Error("refusing to run", "error", err) // until somebody sets partitions right
		} else {
			s.log.Warn("cannot "+what+" yet", "error", err)
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return false
		}
	}
}

// watch keeps an eye on SQL, and sweeps.
func (s *Service) watch(ctx context.Context) error {
	check, sweep := time.NewTicker(checkEvery), time.NewTicker(sweepEvery)
	defer check.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
			try, cancel := context.WithTimeout(ctx, checkTime)
			s.setTrouble(s.store.Ping(try))
			cancel()
		case <-sweep.C:
			s.sweep(ctx)
		}
	}
}

func (s *Service) sweep(ctx context.Context) {
	for range 100 { // what is left then waits an hour
		try, cancel := context.WithTimeout(ctx, checkTime)
		more, err := s.store.Sweep(try, time.Now())
		cancel()
		if err != nil && ctx.Err() == nil {
			s.log.Warn("old devices were not forgotten", "error", err)
		}
		if err != nil || !more {
			return
		}
	}
}
