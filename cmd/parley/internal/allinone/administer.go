package allinone

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/admin"
	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/streams"
	"parley.example/pkg/subject"
	"parley.example/services/auth"
	"parley.example/services/history"
)

// users is the administration of a server that runs.
func (p *parts) users(ctx context.Context) (admin.Users, error) {
	if !p.started.Load() {
		return nil, wire.E(wire.Unavailable, "the server is still starting; try again in a moment")
	}
	a, err := p.auth.Admin(ctx)
	if err != nil {
		return nil, err
	}
	return &admin.Local{Auth: a, History: p.history.Admin()}, nil
}

// Administer gives the users of a data folder: those of the server that runs in it, or, if none does, of auth and history in this process, until
// stop is called.
func Administer(ctx context.Context, data string, env func(string) (string, bool)) (users admin.Users, stop func() error, err error) {
	unlock, err := lockFolder(data)
	if errors.Is(err, errInUse) {
		return admin.Dial(data), func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	var cfg Config
	if err := config.Load(&cfg, []string{"--data", data, "--log-level", "error"}, env); err != nil {
		return nil, nil, err
	}
	ns, err := startNATS(&cfg, cfg.Gateway.Obs.Logger("nats"))
	if err != nil {
		return nil, nil, err
	}
	p, run, err := behindOnly(ctx, &cfg, ns)
	if err != nil {
		stopNATS(ns)
		return nil, nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- run(running) }()
	stop = func() error {
		cancel()
		err := <-done
		stopNATS(ns)
		unlock()
		return err
	}
	for {
		err := errors.Join(p.auth.Ready(), p.history.Ready())
		if err == nil {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, errors.Join(fmt.Errorf("open the data folder: %w: %w", ctx.Err(), err), stop())
		case err := <-done:
			done <- err
			return nil, nil, errors.Join(fmt.Errorf("open the data folder: %w", err), stop())
		}
	}
	p.started.Store(true)
	if users, err = p.users(ctx); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return users, stop, nil
}

// behindOnly makes what keeps the data, and nothing that anybody can connect to.
func behindOnly(ctx context.Context, cfg *Config, ns *server.Server) (*parts, func(context.Context) error, error) {
	if err := keepStreams(ctx, cfg, ns); err != nil {
		return nil, nil, err
	}
	inside := []nats.Option{nats.InProcessServer(ns)}
	p := &parts{log: cfg.Gateway.Obs.Logger("parley")}
	var err error
	if p.auth, err = auth.New(cfg.Auth, auth.Deps{Log: p.log, Registry: prometheus.NewRegistry(), NATS: inside}); err != nil {
		return nil, nil, err
	}
	if p.history, err = history.New(cfg.History, history.Deps{Log: p.log, Registry: prometheus.NewRegistry(), NATS: inside}); err != nil {
		return nil, nil, err
	}
	return p, func(ctx context.Context) error { return lifecycle.Group(ctx, p.auth.Run, p.history.Run) }, nil
}

// keepStreams takes the settings of the streams from those that are there: the flags of the server that made them are not known here.
func keepStreams(ctx context.Context, cfg *Config, ns *server.Server) error {
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		return fmt.Errorf("connect to the embedded NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	partitions, _, err := streams.Lookup(ctx, js)
	if errors.Is(err, streams.ErrNone) {
		return nil // nothing was ever served from here
	}
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, subject.Stream(0))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", strconv.Quote(subject.Stream(0)), err)
	}
	have := stream.CachedInfo().Config
	s := &cfg.History.Streams
	s.Partitions, s.MaxBytes, s.DedupeWindow = partitions, have.MaxBytes, have.Duplicates
	return nil
}
