package presence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
	service "parley.example/services/presence"
)

func TestMain(m *testing.M) { testx.Main(m) }

// scene is real presence replicas on a real NATS and Redis, all with short times, and the mirrors of some gateways.
type scene struct {
	t     testx.TB
	nats  *testx.Nats
	redis string
	sids  atomic.Uint64
	// settle is longer where a test counts on all gateways having registered meanwhile, on any machine.
	settle time.Duration
	lines  []*line // of all replicas and gateways
}

// The embedded store runs scripts slowly under the race detector; shorter times than these overload it, and leases run out.
const (
	lease      = 2 * time.Second
	grace      = 800 * time.Millisecond
	settle     = 500 * time.Millisecond
	longSettle = 4 * time.Second
)

func newScene(t testx.TB, redisAddr string, replicas int) *scene {
	return newSettlingScene(t, redisAddr, replicas, settle)
}

func newSettlingScene(t testx.TB, redisAddr string, replicas int, settle time.Duration) *scene {
	s := &scene{t: t, nats: testx.NatsServer(t), redis: redisAddr, settle: settle}
	for range replicas {
		s.replica()
	}
	return s
}

// on runs f with two replicas on a real redis-server, and with one on the embedded store, as all-in-one has it.
func on(t *testing.T, f func(t *testing.T, redis string, replicas int)) {
	t.Run("redis", func(t *testing.T) { f(t, testx.RedisServer(t).Addr, 2) })
	t.Run("embedded", func(t *testing.T) { f(t, miniredis.RunT(t).Addr(), 1) })
}

// replica starts one more presence service; stop ends it.
func (s *scene) replica() (stop func()) { return s.replicaOn(newLine()) }

func (s *scene) replicaOn(l *line) (stop func()) {
	s.lines = append(s.lines, l)
	cfg := service.Config{
		RedisURL: config.Secret("redis://" + s.redis + "/0"), Lease: lease, Grace: grace, Settle: s.settle, Tick: 200 * time.Millisecond, LastSeen: time.Hour,
	}
	cfg.Obs.LogLevel, cfg.Obs.LogFormat = "info", "text"
	cfg.NATS.URL = s.nats.ClientURL()
	if err := cfg.Validate(); err != nil {
		s.t.Fatalf("settings: %v", err)
	}
	svc, err := service.New(cfg, service.Deps{Log: testx.Quiet(), Registry: prometheus.NewRegistry(), NATS: []nats.Option{nats.SetCustomDialer(l)}})
	if err != nil {
		s.t.Fatalf("presence: %v", err)
	}
	return s.run(svc.Run)
}

func (s *scene) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			s.t.Logf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	return stop
}

// gateway is a mirror with a connection to NATS that can be cut.
type gateway struct {
	*Mirror
	nc   *nats.Conn
	cut  atomic.Bool                 // nothing passes in either direction
	drop atomic.Pointer[func() bool] // whether to lose an event
	slow atomic.Int64                // ns that registering again takes
	way  *traffic                    // nil: nothing happens on the way
	stop func()
}

func (s *scene) gateway() *gateway { return s.gatewayOn(nil) }

func (s *scene) gatewayOn(way *traffic) *gateway {
	l := newLine()
	s.lines = append(s.lines, l)
	nc, err := nats.Connect(s.nats.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.SetCustomDialer(l),
		// As the real one: gateways come back at different times.
		nats.ReconnectWait(250*time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond))
	if err != nil {
		s.t.Fatalf("connect to NATS: %v", err)
	}
	s.t.Cleanup(nc.Close)
	g := &gateway{nc: nc, way: way}
	g.Mirror = New(rpc.Caller{Conn: g, Timeout: time.Hour}, g, Config{
		Heartbeat: 250 * time.Millisecond, UnknownAfter: 1500 * time.Millisecond,
		Collect: 2 * time.Millisecond, Batch: 5 * time.Millisecond, Patience: 60 * time.Millisecond, Timeout: time.Second,
	}, testx.Quiet(), prometheus.NewRegistry())
	g.stop = s.run(g.Mirror.Run)
	return g
}

var errCut = errors.New("cut off")

// errLost is a request, or the answer to it, that got lost.
var errLost = errors.New("lost on its way")

// RequestWithContext implements rpc.Conn.
func (g *gateway) RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	switch subject {
	case api.PresenceHeartbeat.Subject:
		if g.way != nil && g.way.deaf.Load() {
			return nil, errLost
		}
	case api.PresenceSessions.Subject:
		return g.change(ctx, subject, data)
	case api.PresenceResync.Subject:
		pause(ctx, time.Duration(g.slow.Load()))
		return g.change(ctx, subject, data)
	}
	return g.ask(ctx, subject, data)
}

func (g *gateway) ask(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	if g.cut.Load() {
		return nil, errCut
	}
	return g.nc.RequestWithContext(ctx, subject, data)
}

// change makes a request that changes something, over a way on which its first copy, its answer or nothing may get lost, and more copies
// of it may come later.
func (g *gateway) change(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	if g.way != nil {
		lost, late := g.way.requests.draw(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = g.ask(ctx, subject, data) // nobody waits for it
		})
		if lost || late {
			return nil, errLost
		}
	}
	return g.ask(ctx, subject, data)
}

func (g *gateway) Subscribe(subject string, f func([]byte)) (func(), error) {
	sub, err := g.nc.Subscribe(subject, func(m *nats.Msg) {
		if d := g.drop.Load(); g.cut.Load() || d != nil && (*d)() {
			return
		}
		if g.way != nil {
			if lost, late := g.way.events.draw(func() { f(m.Data) }); lost || late {
				return
			}
		}
		f(m.Data)
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// kill is a crash: no goodbye and no more heartbeats.
func (g *gateway) kill() {
	g.cut.Store(true)
	g.stop()
}

// session is one connection of a user.
type session struct {
	g    *gateway
	id   uint64
	user string
}

func (s *scene) connect(g *gateway, user string) session {
	c := session{g, s.sids.Add(0x9E3779B97F4A7C15), user}
	g.Online(c.id, user)
	return c
}

func (c session) leave() { c.g.Gone(c.id, c.user, true) }
func (c session) lose()  { c.g.Gone(c.id, c.user, false) }

// viewer is a watcher that keeps the picture a client would have, and checks what it is told.
type viewer struct {
	t    testx.TB
	name string

	mu      sync.Mutex
	online  map[string]bool
	unknown bool
	told    map[string]int // changes by user
	turned  int            // times that it became unknown
	started bool
}

func (s *scene) viewer(g *gateway, self string, names ...string) *viewer {
	v := &viewer{t: s.t, name: self, online: map[string]bool{}, told: map[string]int{}}
	if names == nil {
		g.Watch(v, self, nil, nil)
	} else {
		g.Watch(v, self, names, nil)
	}
	s.t.Cleanup(func() { g.Unwatch(v) })
	return v
}

func (v *viewer) PresenceUpdate(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first, again := !v.started, v.unknown && !unknown
	if snapshot != (first || again) {
		v.fail("a snapshot that is neither the first update nor the end of unknown, or none")
	}
	v.started = true
	if unknown && !v.unknown && !snapshot {
		v.turned++
	}
	v.unknown = unknown
	if snapshot && !first {
		v.again(online, offline)
		return
	}
	for _, user := range online {
		if v.online[user] || user == v.name {
			v.fail("told twice, or of itself: online " + user)
		}
		v.online[user] = true
		if !snapshot {
			v.told[user]++
		}
	}
	if snapshot {
		return // who is offline in it was never there
	}
	for _, c := range offline {
		if !v.online[c.User] || c.Online {
			v.fail("told twice: offline " + c.User)
		}
		delete(v.online, c.User)
		v.told[c.User]++
	}
}

// again takes a snapshot: what differs from the picture is what was told.
func (v *viewer) again(online []string, offline []api.PresenceChange) {
	now := map[string]bool{}
	for _, user := range online {
		if now[user] || user == v.name {
			v.fail("twice in a snapshot, or itself: " + user)
		}
		now[user] = true
		if !v.online[user] {
			v.told[user]++
		}
	}
	for user := range v.online {
		if !now[user] {
			v.told[user]++
		}
	}
	for _, c := range offline {
		if now[c.User] {
			v.fail("online and offline in a snapshot: " + c.User)
		}
	}
	v.online = now
}

func (v *viewer) fail(what string) {
	// Not Fatalf: this is not the test's goroutine.
	v.t.(interface{ Errorf(string, ...any) }).Errorf("watcher %s: %s", v.name, what)
}

func (v *viewer) picture() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	names := make([]string, 0, len(v.online))
	for n := range v.online {
		names = append(names, n)
	}
	sort.Strings(names)
	if v.unknown {
		return "unknown"
	}
	return strings.Join(names, " ")
}

func (v *viewer) changes(user string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told[user]
}

func (v *viewer) sees(names ...string) {
	v.t.Helper()
	slices.Sort(names)
	want, got := strings.Join(names, " "), ""
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if got = v.picture(); got == want {
			return
		}
		time.Sleep(2 * time.Millisecond) // polling interval
	}
	v.t.Fatalf("watcher %s sees %q, want %q", v.name, got, want)
}

func names(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return list
}
