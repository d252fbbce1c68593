package testx

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Routed is a cluster whose nodes can be cut off from their peers while the clients of every node stay connected.
//
// Each node dials each other one through a proxy of that pair, so that a cut closes the routes of one node and no other. What the
// nodes gossip as their own addresses leads nowhere, or they would find each other past the proxies.
type Routed struct {
	Cluster
	t      TB
	links  []*link
	routes int // of each node, when nothing is cut
}

// NatsRouted starts n nodes like NatsCluster.
func NatsRouted(t TB, n int) *Routed {
	t.Helper()
	c := &Routed{t: t}
	nowhere := listen(t)
	t.Cleanup(func() { nowhere.Close() })
	go func() {
		for {
			conn, err := nowhere.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	ports := make([]int, n)
	for i := range ports {
		ports[i] = FreePort(t)
	}
	for i := range n {
		routes := ""
		for j := range n {
			if i == j {
				continue
			}
			l := newLink(t, i, j, fmt.Sprintf("127.0.0.1:%d", ports[j]))
			c.links = append(c.links, l)
			if routes != "" {
				routes += ","
			}
			routes += "nats://" + l.ln.Addr().String()
		}
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), DisableJetStreamBanner: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i], Advertise: nowhere.Addr().String()},
			Routes:  server.RoutesFromStr(routes),
		}
		s, err := server.NewServer(o.Clone())
		if err != nil {
			t.Fatalf("make nats-server %d: %v", i, err)
		}
		s.Start()
		c.Nodes = append(c.Nodes, &Nats{Server: s, opts: o, t: t})
	}
	for _, node := range c.Nodes {
		if !node.ReadyForConnections(20 * time.Second) {
			t.Fatalf("a nats-server is not ready after 20 s")
		}
		node.opts.Port = node.Addr().(*net.TCPAddr).Port
		t.Cleanup(node.Stop)
	}
	c.WaitLeader(t)
	// One route for the system account and a pool for the rest.
	c.routes = (n - 1) * (server.DEFAULT_ROUTE_POOL_SIZE + 1)
	c.waitRoutes()
	return c
}

// Cut separates node i from all others, and returns when it and they have noticed.
func (c *Routed) Cut(i int) {
	c.t.Helper()
	for _, l := range c.links {
		if l.from == i || l.to == i {
			l.cut()
		}
	}
	Eventually(c.t, fmt.Sprintf("node %d has no routes", i), 20*time.Second, func() bool {
		for j, n := range c.Nodes {
			if want := len(c.Nodes) - 2; j != i && n.NumRemotes() > want {
				return false
			}
		}
		return c.Nodes[i].NumRoutes() == 0
	})
}

// Heal ends every cut, and returns when all nodes see each other and JetStream has a leader.
func (c *Routed) Heal() {
	c.t.Helper()
	for _, l := range c.links {
		l.heal()
	}
	c.waitRoutes()
	c.WaitLeader(c.t)
}

func (c *Routed) waitRoutes() {
	c.t.Helper()
	Eventually(c.t, "all nodes have all routes", 30*time.Second, func() bool {
		for _, n := range c.Nodes {
			if n.Running() && n.NumRoutes() != c.routes {
				return false
			}
		}
		return true
	})
}

func listen(t TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	return ln
}

// Way is a TCP connection's way to a server, which can be cut.
type Way struct{ l *link }

// NewWay makes a way to backend, HOST:PORT.
func NewWay(t TB, backend string) *Way {
	t.Helper()
	return &Way{newLink(t, 0, 0, backend)}
}

// Addr is where it begins.
func (w *Way) Addr() string { return w.l.ln.Addr().String() }

// Cut closes what is connected, and whatever comes from now on.
func (w *Way) Cut() { w.l.cut() }

// Heal ends a Cut.
func (w *Way) Heal() { w.l.heal() }

// link is the way on which node from dials node to.
type link struct {
	from, to int
	ln       net.Listener
	backend  string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newLink(t TB, from, to int, backend string) *link {
	l := &link{from: from, to: to, ln: listen(t), backend: backend, conns: map[net.Conn]struct{}{}}
	l.wg.Add(1)
	go l.serve()
	t.Cleanup(func() {
		l.ln.Close()
		l.cut()
		l.wg.Wait()
	})
	return l
}

func (l *link) serve() {
	defer l.wg.Done()
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.DialTimeout("tcp", l.backend, 5*time.Second)
		if err != nil {
			in.Close() // the node is not up; the other one tries again
			continue
		}
		if !l.add(in, out) {
			in.Close()
			out.Close()
			continue
		}
		l.wg.Add(2)
		go l.copy(in, out)
		go l.copy(out, in)
	}
}

func (l *link) copy(dst, src net.Conn) {
	defer l.wg.Done()
	_, _ = io.Copy(dst, src) // either end may break it
	dst.Close()
	src.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, dst)
	delete(l.conns, src)
}

func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if !l.down {
			l.conns[c] = struct{}{}
		}
	}
	return !l.down
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		c.Close()
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
