//go:build chaos

package chaos

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/link"
	"parley.example/tests/chaos/load"
)

// arena is where faults happen.
type arena struct {
	t *testing.T
	c *cluster.Cluster
	w *load.World
	// short makes every fault a tenth as long, for the run in `make test`.
	short bool
}

// lasts is how long a fault stays.
func (a *arena) lasts(r *rand.Rand, from, to time.Duration) {
	d := from + time.Duration(r.Int64N(int64(to-from)+1))
	if a.short {
		d = max(d/10, time.Second)
	}
	time.Sleep(d) // the length of a fault
}

// fault is one kind of trouble: it begins, lasts and ends within do. Faults of one group exclude each other, so that what is broken is known.
type fault struct {
	name  string
	group string
	do    func(a *arena, r *rand.Rand)
}

const second = time.Second

// patience with what comes back: PostgreSQL may be away meanwhile, and has to go through its log then.
const patience = 5 * time.Minute

const diskFull = "NATS node without space on its disk"

var faults = []fault{
	{"leader killed", "nats", func(a *arena, r *rand.Rand) {
		if n := a.c.Leader(r.IntN(2)); n != nil {
			a.killNode(r, n)
		} else {
			a.killNode(r, a.c.Nats[r.IntN(3)])
		}
	}},
	{"NATS node killed", "nats", func(a *arena, r *rand.Rand) { a.killNode(r, a.c.Nats[r.IntN(3)]) }},
	{"leader stands still", "nats", func(a *arena, r *rand.Rand) {
		n := a.c.Leader(r.IntN(2))
		if n == nil {
			n = a.c.Nats[0]
		}
		n.Stop()
		a.lasts(r, 3*second, 15*second)
		n.Continue()
		n.WaitHealthy(patience)
	}},
	{"all of NATS killed", "nats", func(a *arena, r *rand.Rand) {
		for _, n := range a.c.Nats {
			n.Kill()
		}
		a.lasts(r, second, 10*second)
		for _, n := range a.c.Nats {
			n.Start()
		}
		for _, n := range a.c.Nats {
			n.WaitHealthy(patience)
		}
	}},
	{"leader steps down", "steps", func(a *arena, r *rand.Rand) {
		for range 1 + r.IntN(4) {
			_ = a.c.StepDown(r.IntN(2)) // there may be none at the moment
			a.lasts(r, 100*time.Millisecond, 2*second)
		}
	}},
	{"NATS nodes rolled", "nats", func(a *arena, r *rand.Rand) {
		for _, n := range a.c.Nats {
			p := n.Process()
			p.Signal(a.t, syscall.SIGTERM)
			p.Exited(a.t, time.Minute)
			n.Start()
			n.WaitHealthy(patience)
		}
	}},
	{"NATS node cut off", "nats", func(a *arena, r *rand.Rand) { a.isolate(r, true, true) }},
	{"NATS node hears nothing", "nats", func(a *arena, r *rand.Rand) { a.isolate(r, true, false) }},
	{"NATS node is not heard", "nats", func(a *arena, r *rand.Rand) { a.isolate(r, false, true) }},
	{"routes are slow and lossy", "nats", func(a *arena, r *rand.Rand) {
		for _, l := range a.c.Routes {
			w := link.Way{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: .02}
			l.Set(w, w)
		}
		a.lasts(r, 5*second, 20*second)
		for _, l := range a.c.Routes {
			l.Heal()
		}
	}},
	{diskFull, "nats", func(a *arena, r *rand.Rand) {
		n := a.c.Leader(r.IntN(2))
		if n == nil {
			n = a.c.Nats[r.IntN(3)]
		}
		n.Supervised(patience, func() {
			n.Disk.Fill()
			a.lasts(r, 3*second, 30*second)
			n.Disk.Empty()
		})
	}},
	{"stream is full", "full", func(a *arena, r *rand.Rand) { a.full(r) }},
	{"gateway killed", "gateway", func(a *arena, r *rand.Rand) { a.kill(r, "gateway") }},
	{"gateway stands still", "gateway", func(a *arena, r *rand.Rand) { a.freeze(r, "gateway") }},
	{"gateways rolled", "gateway", func(a *arena, r *rand.Rand) { a.roll("gateway") }},
	{"gateway cut off from NATS", "gateway", func(a *arena, r *rand.Rand) {
		a.badFor(r, 500*time.Millisecond, 15*second, a.c.Gateways[r.IntN(3)].ToNats[:], func(l *link.Link) { l.Cut() })
	}},
	{"gateway hears nothing of NATS", "gateway", func(a *arena, r *rand.Rand) {
		a.bad(r, a.c.Gateways[r.IntN(3)].ToNats[:], func(l *link.Link) { l.Set(link.Way{}, link.Way{Swallow: true}) })
	}},
	{"gateway is not heard by NATS", "gateway", func(a *arena, r *rand.Rand) {
		a.bad(r, a.c.Gateways[r.IntN(3)].ToNats[:], func(l *link.Link) { l.Set(link.Way{Swallow: true}, link.Way{}) })
	}},
	{"gateway far from NATS", "gateway", func(a *arena, r *rand.Rand) {
		w := link.Way{Delay: 20 * time.Millisecond, Jitter: 50 * time.Millisecond, Loss: .02}
		a.bad(r, a.c.Gateways[r.IntN(3)].ToNats[:], func(l *link.Link) { l.Set(w, w) })
	}},
	{"clients' packets vanish both ways", "clients", func(a *arena, r *rand.Rand) { a.clients(r, link.Way{Swallow: true}, link.Way{Swallow: true}) }},
	{"clients do not hear", "clients", func(a *arena, r *rand.Rand) { a.clients(r, link.Way{}, link.Way{Swallow: true}) }},
	{"clients are not heard", "clients", func(a *arena, r *rand.Rand) { a.clients(r, link.Way{Swallow: true}, link.Way{}) }},
	{"clients' network stalls", "clients", func(a *arena, r *rand.Rand) { a.clients(r, link.Way{Hold: true}, link.Way{Hold: true}) }},
	{"clients' network is slow and lossy", "clients", func(a *arena, r *rand.Rand) {
		w := link.Way{Delay: 50 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: .05, Rate: 200_000}
		a.clients(r, w, w)
	}},
	{"clients' connections reset", "clients", func(a *arena, r *rand.Rand) { a.c.Gateways[r.IntN(3)].Clients.Reset() }},
	{"a client reads one byte a second", "slow", func(a *arena, r *rand.Rand) { a.slow(r) }},
	{"auth killed", "auth", func(a *arena, r *rand.Rand) { a.kill(r, "auth") }},
	{"auth rolled", "auth", func(a *arena, _ *rand.Rand) { a.roll("auth") }},
	{"auth stands still", "auth", func(a *arena, r *rand.Rand) { a.freeze(r, "auth") }},
	{"auth cut off from NATS", "auth", func(a *arena, r *rand.Rand) { a.bad(r, a.one(r, "auth").ToNats[:], func(l *link.Link) { l.Cut() }) }},
	{"presence cut off from NATS", "presence", func(a *arena, r *rand.Rand) { a.bad(r, a.one(r, "presence").ToNats[:], func(l *link.Link) { l.Cut() }) }},
	{"history cut off from NATS", "history", func(a *arena, r *rand.Rand) { a.bad(r, a.one(r, "history").ToNats[:], func(l *link.Link) { l.Cut() }) }},
	{"history is not heard by NATS", "history", func(a *arena, r *rand.Rand) {
		a.bad(r, a.one(r, "history").ToNats[:], func(l *link.Link) { l.Set(link.Way{Swallow: true}, link.Way{}) })
	}},
	{"presence killed", "presence", func(a *arena, r *rand.Rand) { a.kill(r, "presence") }},
	{"presence stands still", "presence", func(a *arena, r *rand.Rand) { a.freeze(r, "presence") }},
	{"presence rolled", "presence", func(a *arena, _ *rand.Rand) { a.roll("presence") }},
	{"history killed", "history", func(a *arena, r *rand.Rand) { a.kill(r, "history") }},
	{"history stands still", "history", func(a *arena, r *rand.Rand) { a.freeze(r, "history") }},
	{"history rolled", "history", func(a *arena, _ *rand.Rand) { a.roll("history") }},
	{"all history killed", "history", func(a *arena, r *rand.Rand) {
		for _, s := range a.c.Of("history") {
			s.Kill()
		}
		a.lasts(r, 5*second, 20*second)
		for _, s := range a.c.Of("history") {
			s.Start()
		}
		for _, s := range a.c.Of("history") {
			s.WaitReady(patience)
		}
	}},
	{"Redis flushed", "redis", func(a *arena, _ *rand.Rand) { a.flush() }},
	{"Redis killed", "redis", func(a *arena, r *rand.Rand) {
		a.c.Redis.Stop()
		a.lasts(r, second, 10*second)
		a.c.Redis.Start()
	}},
	{"Redis stands still", "redis", func(a *arena, r *rand.Rand) {
		_ = syscall.Kill(a.c.Redis.Pid(), syscall.SIGSTOP) // it runs
		a.lasts(r, second, 10*second)
		_ = syscall.Kill(a.c.Redis.Pid(), syscall.SIGCONT)
	}},
	{"Redis cut off", "redis", func(a *arena, r *rand.Rand) { a.bad(r, []*link.Link{a.c.ToRedis}, func(l *link.Link) { l.Cut() }) }},
	{"Redis does not answer", "redis", func(a *arena, r *rand.Rand) {
		a.bad(r, []*link.Link{a.c.ToRedis}, func(l *link.Link) { l.Set(link.Way{}, link.Way{Swallow: true}) })
	}},
	{"Redis is slow", "redis", func(a *arena, r *rand.Rand) {
		w := link.Way{Delay: 20 * time.Millisecond, Jitter: 100 * time.Millisecond}
		a.bad(r, []*link.Link{a.c.ToRedis}, func(l *link.Link) { l.Set(w, w) })
	}},
	{"auth does not hear SQL", "auth's sql", func(a *arena, r *rand.Rand) {
		a.bad(r, []*link.Link{a.c.ToSQL["auth"]}, func(l *link.Link) { l.Set(link.Way{}, link.Way{Swallow: true}) })
	}},
	{"PostgreSQL stopped", "sql", func(a *arena, r *rand.Rand) {
		a.c.Postgres.Stop()
		a.lasts(r, 20*second, 60*second)
		a.c.Postgres.Start(a.t)
	}},
	{"history does not hear SQL", "sql", func(a *arena, r *rand.Rand) {
		l := a.c.ToSQL["history"]
		l.Set(link.Way{}, link.Way{Swallow: true})
		a.lasts(r, 3*second, 15*second)
		l.Heal()
	}},
	{"SQL is slow", "sql", func(a *arena, r *rand.Rand) {
		l := a.c.ToSQL["history"]
		l.Set(link.Way{Delay: 20 * time.Millisecond, Jitter: 80 * time.Millisecond}, link.Way{Delay: 20 * time.Millisecond})
		a.lasts(r, 5*second, 20*second)
		l.Heal()
	}},
}

func (a *arena) killNode(r *rand.Rand, n *cluster.Node) {
	n.Kill()
	a.lasts(r, 500*time.Millisecond, 10*second)
	n.Start()
	n.WaitHealthy(patience)
}

func (a *arena) isolate(r *rand.Rand, in, out bool) {
	n := r.IntN(3)
	a.c.Isolate(n, in, out)
	a.lasts(r, 3*second, 15*second)
	a.c.Rejoin(n)
	a.c.Nats[n].WaitHealthy(patience)
}

func (a *arena) one(r *rand.Rand, kind string) *cluster.Service {
	list := a.c.Of(kind)
	return list[r.IntN(len(list))]
}

func (a *arena) kill(r *rand.Rand, kind string) {
	s := a.one(r, kind)
	s.Kill()
	a.lasts(r, 500*time.Millisecond, 10*second)
	s.Start()
	s.WaitReady(patience)
}

func (a *arena) freeze(r *rand.Rand, kind string) {
	s := a.one(r, kind)
	s.Process().Signal(a.t, syscall.SIGSTOP)
	a.lasts(r, 2*second, 20*second)
	s.Process().Signal(a.t, syscall.SIGCONT)
	s.WaitReady(patience)
}

func (a *arena) roll(kind string) {
	for _, s := range a.c.Of(kind) {
		s.Roll()
	}
}

func (a *arena) bad(r *rand.Rand, links []*link.Link, f func(*link.Link)) {
	a.badFor(r, 3*second, 15*second, links, f)
}

func (a *arena) badFor(r *rand.Rand, from, to time.Duration, links []*link.Link, f func(*link.Link)) {
	for _, l := range links {
		f(l)
	}
	a.lasts(r, from, to)
	for _, l := range links {
		l.Heal()
	}
}

func (a *arena) clients(r *rand.Rand, up, down link.Way) {
	a.bad(r, []*link.Link{a.c.Gateways[r.IntN(3)].Clients}, func(l *link.Link) { l.Set(up, down) })
}

// flush empties Redis, as a failover to an empty replica would.
func (a *arena) flush() {
	c, err := net.DialTimeout("tcp", a.c.Redis.Addr, 5*time.Second)
	if err != nil {
		a.t.Errorf("flush Redis: %v", err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a TCP connection takes deadlines
	fmt.Fprint(c, "FLUSHALL\r\n")
	if s, _ := bufio.NewReader(c).ReadString('\n'); s != "+OK\r\n" {
		a.t.Errorf("flush Redis: %q", s)
	}
}

// full leaves a stream no room but for a few more messages.
func (a *arena) full(r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	name := cluster.Stream(r.IntN(2))
	size := func(f func(jetstream.StreamInfo) int64) error {
		// Requests may be lost here, and each waits for as long as its context lets it.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s, err := a.c.JS().Stream(ctx, name)
		if err != nil {
			return err
		}
		cfg := s.CachedInfo().Config
		cfg.MaxBytes = f(*s.CachedInfo())
		_, err = a.c.JS().UpdateStream(ctx, cfg)
		return err
	}
	if err := size(func(i jetstream.StreamInfo) int64 { return int64(i.State.Bytes) + 4096 }); err != nil {
		return // no leader now; then it is not full either
	}
	a.lasts(r, 3*second, 10*second)
	for {
		err := size(func(jetstream.StreamInfo) int64 { return 256 << 20 })
		if err == nil {
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			a.t.Errorf("make room in %s: %v", name, err)
			return
		}
	}
}

// slow lets one more device of somebody join through a link of its own that then carries a byte a second.
func (a *arena) slow(r *rand.Rand) {
	g := a.c.Gateways[r.IntN(3)]
	l, err := link.New("slow client", g.URL[len("http://"):])
	if err != nil {
		a.t.Error(err)
		return
	}
	defer l.Close()
	a.w.Visit(r.IntN(1<<30), "http://"+l.Addr, func() {
		l.Set(link.Way{}, link.Way{Rate: 1})
		a.lasts(r, 5*second, 30*second)
	})
}
