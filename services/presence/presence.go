// Package presence is the service that knows who is online. Gateways tell it of sessions and renew leases; it keeps them in
// Redis and announces users who come online or go offline, each change once. Any number of replicas work side by side.
package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"parley.example/pkg/lifecycle"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/rpc"
	"parley.example/services/presence/internal/announce"
	"parley.example/services/presence/internal/store"
)

// Deps is what the service does not make itself. NATS are more options of the connection.
type Deps struct {
	Log      *slog.Logger
	Registry *prometheus.Registry
	NATS     []nats.Option
}

// Service is one replica.
type Service struct {
	log   *slog.Logger
	nc    *nats.Conn
	rdb   redis.UniversalClient
	admin *obs.Admin
	core  *announce.Core
}

// New binds the admin port and prepares the connections; it waits for neither NATS nor Redis.
func New(cfg Config, deps Deps) (*Service, error) {
	opts, err := cfg.redisOptions()
	if err != nil {
		return nil, err
	}
	s := &Service{log: deps.Log}
	if s.admin, err = obs.Listen(cfg.Obs.Admin, deps.Log, deps.Registry, deps.Registry, s.Ready); err != nil {
		return nil, err
	}
	if s.nc, err = natsconn.Connect(cfg.NATS, "presence", deps.Log, deps.NATS...); err != nil {
		return nil, errors.Join(err, s.admin.Close())
	}
	natsconn.Observe(s.nc, "presence", deps.Registry)
	s.rdb = redis.NewUniversalClient(opts)
	st := store.New(s.rdb, store.Config{
		Lease: cfg.Lease, Grace: cfg.Grace, Settle: cfg.Settle, Forget: time.Minute, LastSeen: cfg.LastSeen,
	})
	s.core = announce.New(st, s.nc.Publish, s.hear, announce.Times{Tick: cfg.Tick, Lease: cfg.Lease}, deps.Log, deps.Registry)
	return s, nil
}

// hear makes a round trip to NATS.
func (s *Service) hear(ctx context.Context) error {
	if !s.nc.IsConnected() {
		return nats.ErrDisconnected // instead of waiting for the next connection
	}
	return s.nc.FlushWithContext(ctx)
}

// Ready is nil when NATS and Redis can be reached.
func (s *Service) Ready() error {
	if !s.nc.IsConnected() {
		return errors.New("NATS cannot be reached")
	}
	return s.core.Ready()
}

// AdminAddr is where metrics and health are served, "" for nowhere.
func (s *Service) AdminAddr() string { return s.admin.Addr() }

// drainTime is how long requests under way may take when the service stops.
const drainTime = 5 * time.Second

// Run serves until ctx ends, then finishes what is under way.
func (s *Service) Run(ctx context.Context) error {
	defer func() {
		s.nc.Close()
		_ = s.rdb.Close() // nothing is under way any more
	}()
	svc, err := rpc.Serve(s.nc, "presence", "1.0.0", 64, s.log, s.core.Handlers()...)
	if err != nil {
		return fmt.Errorf("serve presence: %w", err)
	}
	err = lifecycle.Group(ctx, s.core.Run, s.admin.Run)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	svc.Stop(stop)
	if s.nc.IsConnected() {
		_ = s.nc.FlushWithContext(stop) // the last announcements; without them gateways find the gap themselves
	}
	return err
}
