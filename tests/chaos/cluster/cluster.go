// Package cluster is a whole deployment of real processes on loopback, with a link between every two of them that a test can make bad.
package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/tests/chaos/link"
	"parley.example/tests/harness"
)

// Options of a Cluster.
type Options struct {
	Pinned   bool              // gateway i knows NATS node i only
	Settings map[string]string // of all processes of ours
	Nodes    int               // of NATS: 3 (default) or 1
	// SmallDisks: each NATS node has a file system of its own, of smallDisk bytes. Needs root.
	SmallDisks bool
}

// Cluster is three NATS nodes, three gateways, two each of auth, presence and history, Redis and PostgreSQL.
type Cluster struct {
	t        testing.TB
	settings map[string]string
	key      ed25519.PrivateKey
	http     *http.Client

	Nats     []*Node
	Routes   []*Route
	Gateways [3]*Service
	Services []*Service // gateways and all others
	Redis    *testx.Redis
	Postgres *testx.Pg
	ToRedis  *link.Link
	ports    map[int]bool          // given out
	ToSQL    map[string]*link.Link // by who uses it
	Entry    *Entry

	js jetstream.JetStream
}

// Route is the way on which one NATS node dials another.
type Route struct {
	*link.Link
	From, To int
}

// Service is one of our processes. Its addresses stay when it is started again.
type Service struct {
	Name, Kind string
	URL        string // of a gateway
	Admin      string
	ToNats     [3]*link.Link
	Clients    *link.Link // of a gateway

	c        *Cluster
	settings map[string]string
	mu       sync.Mutex
	process  *harness.Process
}

// partitions are two, so that what holds within one only shows.
const partitions = 2

var defaults = map[string]string{
	"log-level": "warn", "http-rate": "1000000", "http-burst": "1000000", "messages-per-minute": "600000", "message-burst": "100000", "frames-per-second": "10000",
	"login-tries-address": "1000000", "address-connections": "20000", "drain": "3s", "partitions": strconv.Itoa(partitions), "nats-replicas": "3",
	"stream-max-bytes": strconv.Itoa(256 << 20), "stream-keep": "20000",
}

// New starts everything and waits until it is ready. All of it ends with the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, settings: maps.Clone(defaults), ToSQL: map[string]*link.Link{}, ports: map[int]bool{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	c.http = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	c.key = ed25519.NewKeyFromSeed(seed)
	c.settings["token-key"] = base64.StdEncoding.EncodeToString(seed)
	maps.Copy(c.settings, o.Settings)
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	c.settings["nats-replicas"] = strconv.Itoa(o.Nodes)
	c.startNats(o)
	c.Redis = testx.RedisServer(t, "--maxmemory-policy", "noeviction")
	c.ToRedis = c.link("redis", c.Redis.Addr)
	c.Postgres = testx.PostgresServer(t)
	db := strings.TrimPrefix(c.Postgres.Database(t), "postgres://postgres@/")
	db, _, _ = strings.Cut(db, "?")
	c.settings["redis-url"] = "redis://" + c.ToRedis.Addr + "/0"
	for _, kind := range []string{"auth", "history"} {
		c.ToSQL[kind] = c.link("sql of "+kind, c.Postgres.Socket())
	}
	for _, kind := range []string{"auth", "auth", "presence", "presence", "history", "history", "gateway", "gateway", "gateway"} {
		c.service(kind, db, o.Pinned)
	}
	for _, s := range c.Services {
		s.Start()
	}
	for _, s := range c.Services {
		s.WaitReady(2 * time.Minute)
	}
	c.Entry = newEntry(t, c)
	return c
}

func (c *Cluster) link(name, backend string) *link.Link {
	l, err := link.New(name, backend)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(l.Close)
	return l
}

func (c *Cluster) service(kind, db string, pinned bool) {
	n := 0
	for _, s := range c.Services {
		if s.Kind == kind {
			n++
		}
	}
	s := &Service{Name: fmt.Sprintf("%s %d", kind, n), Kind: kind, c: c, settings: maps.Clone(c.settings)}
	admin := fmt.Sprintf("127.0.0.1:%d", c.freePort())
	s.Admin, s.settings["admin"] = "http://"+admin, admin
	if l := c.ToSQL[kind]; l != nil {
		s.settings["sql-url"] = "postgres://postgres@" + l.Addr + "/" + db + "?sslmode=disable"
	}
	var urls []string
	for i, node := range c.Nats {
		if pinned && kind == "gateway" && i != n {
			continue
		}
		s.ToNats[i] = c.link(s.Name+" to "+node.Name, node.addr)
		urls = append(urls, "nats://"+s.ToNats[i].Addr)
	}
	s.settings["nats-url"] = strings.Join(urls, ",")
	if kind == "gateway" {
		addr := fmt.Sprintf("127.0.0.1:%d", c.freePort())
		s.URL, s.settings["http"] = "http://"+addr, addr
		s.Clients = c.link("clients of "+s.Name, addr)
		c.Gateways[n] = s
	}
	c.Services = append(c.Services, s)
}

// Start starts it (again).
func (s *Service) Start() {
	s.c.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = harness.Start(s.c.t, s.Name, s.Kind, s.settings)
}

// Kill ends it at once.
func (s *Service) Kill() { s.Process().Kill() }

// Process is the one that runs, or ran last.
func (s *Service) Process() *harness.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Roll ends it as a deployment does, and starts it again.
func (s *Service) Roll() {
	s.c.t.Helper()
	p := s.Process()
	p.Signal(s.c.t, syscall.SIGTERM)
	if status := p.Exited(s.c.t, time.Minute); status != 0 {
		s.c.t.Errorf("%s drained and ended with status %d", s.Name, status)
	}
	s.Start()
	s.WaitReady(5 * time.Minute) // PostgreSQL may be away meanwhile
}

// Ready reports whether it says that it can do its work.
func (s *Service) Ready() bool { return s.c.ok(s.Admin + "/readyz") }

// WaitReady waits for that.
func (s *Service) WaitReady(within time.Duration) {
	s.c.t.Helper()
	s.c.wait(s.Name+" is ready", within, func() bool {
		select {
		case <-s.Process().Ended():
			s.c.t.Fatalf("%s ended at its start", s.Name)
		default:
		}
		return s.Ready()
	})
}

// WaitUnready waits until it says that it cannot.
func (s *Service) WaitUnready(within time.Duration) {
	s.c.t.Helper()
	s.c.wait(s.Name+" says that it is not ready", within, func() bool { return !s.Ready() })
}

// wait polls what is asked over HTTP; fifty times a second would be a load of its own.
func (c *Cluster) wait(what string, within time.Duration, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(within); !ok(); {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(50 * time.Millisecond) // polling interval
	}
}

func (c *Cluster) ok(url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return resp.StatusCode == http.StatusOK
}

// Metric sums a series' values over a kind's processes, 0 where it is not there.
func (c *Cluster) Metric(kind, series string) float64 {
	sum := 0.0
	for _, s := range c.Of(kind) {
		resp, err := c.http.Get(s.Admin + "/metrics")
		if err != nil {
			continue
		}
		b, _ := io.ReadAll(resp.Body) // a part will do
		resp.Body.Close()
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(line, series) {
				if f := strings.Fields(line); len(f) == 2 {
					v, _ := strconv.ParseFloat(f[1], 64)
					sum += v
				}
			}
		}
	}
	return sum
}

// Of gives the processes of a kind.
func (c *Cluster) Of(kind string) []*Service {
	var out []*Service
	for _, s := range c.Services {
		if s.Kind == kind {
			out = append(out, s)
		}
	}
	return out
}

// Door is the balancer.
func (c *Cluster) Door() string { return c.Entry.URL }

// Doors are the gateways'.
func (c *Cluster) Doors() []string {
	var out []string
	for _, g := range c.Gateways {
		out = append(out, g.URL)
	}
	return out
}

// Token signs an access token of a login of its own.
func (c *Cluster) Token(user, login, scope string) string {
	tok, err := token.NewSigner(c.key).Sign(token.Claims{Username: user, UID: 1, SID: login, Scope: scope, Issued: time.Now(), Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		c.t.Error(err)
	}
	return tok
}

// Heal ends every fault of links and wakes what was stopped. Who kills something starts it again.
func (c *Cluster) Heal() {
	for _, l := range c.Links() {
		l.Heal()
	}
	for _, n := range c.Nats {
		n.Continue()
	}
	for _, s := range c.Services {
		_ = syscall.Kill(s.Process().Pid(), syscall.SIGCONT) // it may have ended
	}
}

// Links are all links.
func (c *Cluster) Links() []*link.Link {
	out := []*link.Link{c.ToRedis}
	for _, l := range c.ToSQL {
		out = append(out, l)
	}
	for _, r := range c.Routes {
		out = append(out, r.Link)
	}
	for _, s := range c.Services {
		for _, l := range s.ToNats {
			if l != nil {
				out = append(out, l)
			}
		}
		if s.Clients != nil {
			out = append(out, s.Clients)
		}
	}
	return out
}

// WaitCalm waits until every process is ready and SQL has what the streams have.
func (c *Cluster) WaitCalm(within time.Duration) {
	c.t.Helper()
	for _, s := range c.Services {
		s.WaitReady(within)
	}
	c.wait("SQL has what the streams have", within, func() bool { return c.Lag() == 0 })
}

// Lag is how many messages the streams have that SQL has not; negative when it cannot be told.
func (c *Cluster) Lag() int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	lag := int64(0)
	for p := range partitions {
		s, err := c.JS().Stream(ctx, Stream(p))
		if err != nil {
			return -1
		}
		lag += int64(s.CachedInfo().State.LastSeq) - int64(c.position(p))
	}
	return lag
}

// position is up to where SQL has partition p: the owner's figure; the other replica's is older.
func (c *Cluster) position(p int) float64 {
	top := 0.0
	for _, s := range c.Of("history") {
		one := &Cluster{http: c.http, Services: []*Service{s}}
		top = max(top, one.Metric("history", fmt.Sprintf("parley_history_position{partition=\"%d\"}", p)))
	}
	return top
}

// JS is JetStream, past all links.
func (c *Cluster) JS() jetstream.JetStream { return c.js }

// Connect is a connection to NATS past all links.
func (c *Cluster) connect() {
	urls := make([]string, len(c.Nats))
	for i, n := range c.Nats {
		urls[i] = "nats://" + n.addr
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.RetryOnFailedConnect(true))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	if c.js, err = jetstream.New(nc); err != nil {
		c.t.Fatal(err)
	}
}
