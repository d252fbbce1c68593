package allinone

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client"
	"parley.example/cmd/parley/internal/admin"
	"parley.example/cmd/parley/internal/bot"
	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/services/auth"
	"parley.example/services/gateway"
	"parley.example/services/history"
	"parley.example/services/presence"
)

// Main is the command: it reads args and env and serves until ctx ends. out gets one line, "ready http://ADDR", when it serves; what is
// for people goes to notes.
func Main(ctx context.Context, args []string, env func(string) (string, bool), out, notes io.Writer) error {
	var cfg Config
	err := config.Load(&cfg, args, env)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(out, "parley serve runs everything in one process. Settings (flag, environment variable, default, meaning):")
		return config.Reference(out, &cfg)
	}
	if err != nil {
		return err
	}
	return serve(ctx, &cfg, out, notes)
}

// warnEvery is between two warnings of what an operator should change.
const warnEvery = time.Hour

// part is one service.
type part interface {
	Run(context.Context) error
	Ready() error
}

// serve starts the stores, then the services, and stops them the other way round.
func serve(ctx context.Context, cfg *Config, out, notes io.Writer) error {
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	if mode := open(cfg.Data); mode != "" {
		cfg.Gateway.Obs.Logger("parley").Warn("other users of this machine may look into the data folder; chmod 700 it", "data", cfg.Data, "mode", mode)
	}
	process := obs.NewRegistry()
	space := newDisk(cfg.Data, cfg.Floor, cfg.Gateway.Obs.Logger("disk"), process)
	natsLog := cfg.Gateway.Obs.Logger("nats")
	ns, err := newEmbedded(func() (*server.Server, error) { return startNATS(cfg, natsLog) }, space.Room, natsLog, process)
	if err != nil {
		return err
	}
	defer func() { _ = ns.stop() }() // the process ends anyway
	rs, err := startRedis(cfg.Gateway.Obs.Logger("redis"))
	if err != nil {
		return err
	}
	defer rs.Close()
	cfg.Presence.RedisURL = rs.url
	p, err := newParts(cfg, process, ns, space)
	if err != nil {
		return err
	}
	if p.socket, err = admin.Listen(cfg.Data, p.log); err != nil {
		p.log.Warn("parley user will not work while this runs", "error", err) // the path may be too long for a socket
	}
	return p.run(ctx, cfg, func() error { return p.greet(cfg, out, notes) })
}

// parts are the services, made but not running.
type parts struct {
	log      *slog.Logger
	started  atomic.Bool
	disk     *disk
	nats     *embedded
	admin    *obs.Admin
	gateway  *gateway.Service
	auth     *auth.Service
	presence *presence.Service
	history  *history.Service
	socket   *admin.Server // nil for none
}

// newParts makes them in this order because the gateway's port is what is most likely taken. After an error the process ends, and
// with it what was made.
func newParts(cfg *Config, process *prometheus.Registry, ns *embedded, space *disk) (*parts, error) {
	p := &parts{log: cfg.Gateway.Obs.Logger("parley"), nats: ns, disk: space}
	// A registry for each: two services may have metrics of one name. The process has one set of its own.
	metrics := prometheus.Gatherers{process}
	inside := []nats.Option{nats.InProcessServer(ns)}
	registry := func() *prometheus.Registry {
		r := prometheus.NewRegistry()
		metrics = append(metrics, r)
		return r
	}
	log := func(name string) *slog.Logger {
		return slog.New(starting{cfg.Gateway.Obs.Logger(name).Handler(), &p.started})
	}
	var err error
	if p.gateway, err = gateway.New(cfg.Gateway, gateway.Deps{Log: log("gateway"), Registry: registry(), NATS: inside, Storage: space.Storage, Ready: p.Ready}); err != nil {
		return nil, err
	}
	if p.auth, err = auth.New(cfg.Auth, auth.Deps{Log: log("auth"), Registry: registry(), NATS: inside}); err != nil {
		return nil, err
	}
	if p.presence, err = presence.New(cfg.Presence, presence.Deps{Log: log("presence"), Registry: registry(), NATS: inside}); err != nil {
		return nil, err
	}
	if p.history, err = history.New(cfg.History, history.Deps{Log: log("history"), Registry: registry(), NATS: inside}); err != nil {
		return nil, err
	}
	p.admin, err = obs.Listen(cfg.Admin, p.log, process, metrics, p.Ready)
	return p, err
}

// Ready is nil when all are.
func (p *parts) Ready() error {
	errs := []error{p.disk.Ready(), p.nats.Ready()}
	for _, s := range p.all() {
		if err := s.svc.Ready(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

type named struct {
	name string
	svc  part
}

func (p *parts) all() []named {
	return []named{{"gateway", p.gateway}, {"auth", p.auth}, {"presence", p.presence}, {"history", p.history}}
}

// run serves until ctx ends. The gateway drains before what it needs stops.
func (p *parts) run(ctx context.Context, cfg *Config, greet func() error) error {
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	return lifecycle.Group(behind,
		func(behind context.Context) error {
			defer stopBehind()
			front, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(behind, cancel)() // another part failed
			return p.gateway.Run(front)
		},
		p.auth.Run, p.presence.Run, p.history.Run, p.admin.Run, p.disk.Run, p.nats.Run,
		func(behind context.Context) error {
			if p.socket == nil {
				return nil
			}
			return p.socket.Run(behind, p.users)
		},
		func(behind context.Context) error {
			start, cancel := context.WithCancel(behind)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)() // a signal during the start
			err := p.announce(start, cfg.Demo, greet)
			if start.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if cfg.Demo {
				p.echo(start)
			} else {
				p.warnOfDemo(start)
			}
			return nil
		},
	)
}

// warnOfDemo says again and again that there are users whose passwords are public: an earlier start made them.
func (p *parts) warnOfDemo(ctx context.Context) {
	for ctx.Err() == nil {
		names, err := p.auth.PublicPasswords(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			p.log.Warn("it is not known whether there are demo users", "error", err)
		case err == nil && len(names) == 0:
			return // they are not made without a start anew
		case err == nil:
			p.log.Warn("the passwords of these demo users are public: change them (parley user passwd), or disable or erase the users", "users", strings.Join(names, ", "))
		}
		select {
		case <-time.After(warnEvery):
		case <-ctx.Done():
		}
	}
}

// echo runs the demo's bot until ctx ends. Without it everything else works.
func (p *parts) echo(ctx context.Context) {
	log := slog.New(starting{p.log.Handler(), &p.started})
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := p.echoOnce(ctx, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("the echo bot starts again", "wait", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (p *parts) echoOnce(ctx context.Context, log *slog.Logger) error {
	t, err := p.auth.LoginAs(ctx, auth.EchoBot)
	if err != nil {
		return err
	}
	api, err := client.New("http://"+reachable(p.gateway.Addr()), nil)
	if err != nil {
		return err
	}
	return bot.Echo(ctx, api.Session(client.Tokens{
		AccessToken: t.AccessToken, RefreshToken: t.RefreshToken, ExpiresIn: t.ExpiresIn, Username: t.Username,
	}), auth.DemoBots(), log)
}

// announce waits until everything works and says so.
func (p *parts) announce(ctx context.Context, demo bool, greet func() error) error {
	began := time.Now()
	for next := began.Add(10 * time.Second); ; {
		err := p.Ready()
		if err == nil {
			break
		}
		if time.Now().After(next) {
			next = next.Add(10 * time.Second)
			p.log.Warn("still starting", "missing", err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if demo {
		if err := p.auth.AddDemoUsers(ctx); err != nil {
			return err
		}
	}
	p.started.Store(true)
	p.log.Debug("started", "took", time.Since(began))
	return greet()
}
