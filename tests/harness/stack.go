package harness

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/pkg/testx"
)

// Options of a Stack; the zero value is one gateway, one NATS server and SQLite.
type Options struct {
	Gateways int               // default 1
	Presence int               // replicas, default 1
	Nats     int               // 1 (default) or 3: a cluster with three copies of everything
	Accounts int               // users that are there before a gateway looks, in Stack.Accounts
	Postgres bool              // a server of the stack's own instead of SQLite
	Settings map[string]string // of all processes, by flag name
	// CutNats: each gateway reaches NATS on a way of its own, Gateway.ToNats. With one NATS server.
	CutNats bool
	// Restricted: NATS lets every process do only what the chart allows it, each with a user of its own. With one NATS server.
	Restricted bool
}

// Stack is a deployment: every service a process of its own.
type Stack struct {
	t        testing.TB
	settings map[string]string
	http     *http.Client
	names    atomic.Int64
	users    map[string]string // of NATS, with their passwords; nil: it asks nobody who they are
	hashing  chan struct{}     // slots: scenarios side by side are no login storm

	Secret   []byte        // 32 bytes: the key that signs tokens
	Node     *testx.Nats   // the NATS server, when there is one
	Cluster  *testx.Routed // or the cluster
	Postgres *testx.Pg     // nil with SQLite
	Redis    *testx.Redis
	Auth     *Process
	Presence []*Process
	History  *Process
	Gateways []*Gateway
	Balancer *Balancer // in front of all gateways
	Accounts []*User
}

// Gateway is one gateway process.
type Gateway struct {
	*Process
	URL   string // http://host:port
	Admin string // http://host:port
	nats  string

	ToNats *testx.Way // with Options.CutNats
}

// Partitions of every stack: more than one, so that what holds within one only shows.
const Partitions = 2

// Defaults that suit many tests side by side: limits are not in the way of those that test something else.
var defaults = map[string]string{
	"log-level": "info", "admin": "127.0.0.1:0", "http": "127.0.0.1:0",
	"http-rate": "100000", "http-burst": "100000", "messages-per-minute": "600000", "message-burst": "100000", "frames-per-second": "10000",
	"login-tries-address": "1000000", "address-connections": "20000", "auth-timeout": "3s", "drain": "1s",
	"partitions": strconv.Itoa(Partitions),
}

// New starts a deployment and waits until it is ready.
func New(t testing.TB, o Options) *Stack {
	t.Helper()
	o.Gateways, o.Nats, o.Presence = max(o.Gateways, 1), max(o.Nats, 1), max(o.Presence, 1)
	s := &Stack{t: t, settings: maps.Clone(defaults), Secret: make([]byte, 32), hashing: make(chan struct{}, 2)}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	s.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	_, _ = rand.Read(s.Secret) // never fails (crypto/rand)
	s.settings["token-key"] = base64.StdEncoding.EncodeToString(s.Secret)
	s.settings["nats-replicas"] = strconv.Itoa(o.Nats)
	s.startStores(o)
	maps.Copy(s.settings, o.Settings)
	s.Auth = s.start("auth", "auth", nil)
	for i := range o.Presence {
		s.Presence = append(s.Presence, s.start(fmt.Sprintf("presence %d", i), "presence", nil))
	}
	s.History = s.start("history", "history", nil)
	if o.Accounts > 0 {
		s.WaitReady("http://" + s.Auth.LogValue(t, "admin")) // it makes the tables
		s.Accounts = s.For(t).newAccounts("user", o.Accounts)
	}
	for i := range o.Gateways {
		g := &Gateway{nats: s.settings["nats-url"]}
		if s.Cluster != nil {
			g.nats = s.Cluster.Nodes[i%len(s.Cluster.Nodes)].ClientURL()
		}
		if o.CutNats {
			g.ToNats = testx.NewWay(t, s.Node.Addr().String())
			g.nats = "nats://" + g.ToNats.Addr()
		}
		s.Gateways = append(s.Gateways, g)
		s.startGateway(i, s.settings["http"])
	}
	urls := make([]string, len(s.Gateways))
	for i, g := range s.Gateways {
		urls[i] = strings.TrimPrefix(g.URL, "http://")
	}
	s.Balancer = newBalancer(t, urls)
	for _, p := range append([]*Process{s.Auth, s.History}, s.Presence...) {
		s.WaitReady("http://" + p.LogValue(t, "admin"))
	}
	for _, g := range s.Gateways {
		s.WaitReady(g.Admin)
	}
	return s
}

func (s *Stack) startStores(o Options) {
	t := s.t
	if o.Restricted {
		s.users = NatsUsers(t)
		s.Node = testx.NatsFrom(t, filepath.Join(root(t), NatsUsersFile))
		s.settings["nats-url"] = s.Node.ClientURL()
	} else if o.Nats == 1 {
		s.Node = testx.NatsServer(t)
		s.settings["nats-url"] = s.Node.ClientURL()
	} else {
		s.Cluster = testx.NatsRouted(t, o.Nats)
		// The services stay away from the last node, so that a test can cut it off together with one gateway only.
		s.settings["nats-url"] = s.Cluster.Nodes[0].ClientURL() + "," + s.Cluster.Nodes[1].ClientURL()
	}
	s.Redis = testx.RedisServer(t)
	s.settings["redis-url"] = "redis://" + s.Redis.Addr + "/0"
	if o.Postgres {
		s.Postgres = testx.PostgresServer(t)
		s.settings["sql-url"] = s.Postgres.Database(t)
	} else {
		s.settings["sql-url"] = "sqlite:" + filepath.Join(t.TempDir(), "parley.db")
	}
}

func (s *Stack) start(name, program string, more map[string]string) *Process {
	settings := maps.Clone(s.settings)
	if s.users != nil {
		settings["nats-user"], settings["nats-password"] = program, s.users[program]
	}
	maps.Copy(settings, more)
	return Start(s.t, name, program, settings)
}

func (s *Stack) startGateway(i int, addr string) {
	s.t.Helper()
	g := s.Gateways[i]
	g.Process = s.start(fmt.Sprintf("gateway %d", i), "gateway", map[string]string{"nats-url": g.nats, "http": addr})
	g.URL, g.Admin = "http://"+g.LogValue(s.t, "http"), "http://"+g.LogValue(s.t, "admin")
}

// KillGateway ends gateway i with SIGKILL.
func (s *Stack) KillGateway(i int) { s.Gateways[i].Kill() }

// RestartGateway starts gateway i again at its old address, and waits until it is ready.
func (s *Stack) RestartGateway(i int) {
	s.t.Helper()
	s.Gateways[i].Kill()
	s.startGateway(i, strings.TrimPrefix(s.Gateways[i].URL, "http://"))
	s.WaitReady(s.Gateways[i].Admin)
}

// RestartPresence starts presence replica i anew, which a test may have killed, and waits until it is ready.
func (s *Stack) RestartPresence(i int) {
	s.t.Helper()
	s.Presence[i].Kill()
	s.Presence[i] = s.start(s.Presence[i].Name, "presence", nil)
	s.WaitReady("http://" + s.Presence[i].LogValue(s.t, "admin"))
}

// RestartHistory starts history anew, and waits until it is ready.
func (s *Stack) RestartHistory() {
	s.t.Helper()
	s.History.Kill()
	s.History = s.start("history", "history", nil)
	s.WaitReady("http://" + s.History.LogValue(s.t, "admin"))
}

// StopNats ends all NATS servers.
func (s *Stack) StopNats() {
	if s.Node != nil {
		s.Node.Stop()
		return
	}
	for _, n := range s.Cluster.Nodes {
		n.Stop()
	}
}

// StartNats starts them again.
func (s *Stack) StartNats() {
	s.t.Helper()
	if s.Node != nil {
		s.Node.Restart()
		return
	}
	for _, n := range s.Cluster.Nodes {
		n.Restart()
	}
	s.Cluster.WaitLeader(s.t)
}

// Ready reports whether a process says that it can do its work.
func (s *Stack) Ready(base string) bool {
	resp, err := s.http.Get(base + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return resp.StatusCode == http.StatusOK
}

// WaitReady waits for that.
func (s *Stack) WaitReady(base string) {
	s.t.Helper()
	testx.Eventually(s.t, base+" is ready", 60*time.Second, func() bool { return s.Ready(base) })
}

// For is the stack in the hands of a subtest, which fails instead of its parent.
func (s *Stack) For(t testing.TB) *View { return &View{Stack: s, t: t} }

// View is a Stack as one subtest uses it.
type View struct {
	*Stack
	t testing.TB
}

// Outside is a deployment that the test runs itself, behind one address.
func Outside(t testing.TB, base string) *View {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	s := &Stack{t: t, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}, Gateways: []*Gateway{{URL: base}}, hashing: make(chan struct{}, 2)}
	return s.For(t)
}
