package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// Node is one nats-server process.
type Node struct {
	Name, Store string
	Disk        *harness.Disk // with Options.SmallDisks
	addr        string
	monitor     string
	conf        string
	c           *Cluster
	mu          sync.Mutex
	process     *harness.Process
}

// Stream is the name of partition p's stream.
func Stream(p int) string { return subject.Stream(p) }

// startNats starts the nodes, which see each other through links only: what they gossip as their own address leads nowhere.
func (c *Cluster) startNats(o Options) {
	t := c.t
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
	c.Nats = make([]*Node, o.Nodes)
	route := make([]string, o.Nodes)
	for i := range c.Nats {
		dir, disk := "", (*harness.Disk)(nil)
		if o.SmallDisks {
			disk = harness.NewDisk(t, smallDisk)
			dir = disk.Dir
		} else {
			dir = t.TempDir()
		}
		c.Nats[i] = &Node{Disk: disk, Name: fmt.Sprintf("n%d", i), Store: filepath.Join(dir, "store"), c: c, conf: filepath.Join(dir, "nats.conf"),
			addr: fmt.Sprintf("127.0.0.1:%d", c.freePort()), monitor: fmt.Sprintf("127.0.0.1:%d", testx.FreePort(t))}
		route[i] = fmt.Sprintf("127.0.0.1:%d", c.freePort())
	}
	for i, n := range c.Nats {
		var routes []string
		for j := range c.Nats {
			if i != j {
				l := &Route{c.link(fmt.Sprintf("route n%d to n%d", i, j), route[j]), i, j}
				c.Routes = append(c.Routes, l)
				routes = append(routes, "nats://"+l.Addr)
			}
		}
		conf := fmt.Sprintf(`server_name: %s
listen: "%s"
http: "%s"
jetstream { store_dir: "%s", sync_interval: always, max_file_store: 4GB, max_memory_store: 256MB }
ping_interval: 2s
ping_max: 2
write_deadline: 5s
lame_duck_grace_period: 5s
lame_duck_duration: 30s
`, n.Name, n.addr, n.monitor, n.Store)
		if o.Nodes > 1 {
			conf += fmt.Sprintf("cluster { name: parley, listen: \"%s\", advertise: \"%s\", no_advertise: true, routes: [%s] }\n", route[i], nowhere.Addr(), strings.Join(routes, ", "))
		}
		if err := os.WriteFile(n.conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nats {
		n.Start()
	}
	for _, n := range c.Nats {
		n.WaitHealthy(time.Minute)
	}
	c.connect()
}

// Start starts it (again), with what it has on disk.
func (n *Node) Start() {
	n.c.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = harness.Start(n.c.t, n.Name, harness.NatsServer, nil, "-c", n.conf)
}

// Process is the one that runs, or ran last.
func (n *Node) Process() *harness.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Kill ends it at once.
func (n *Node) Kill() { n.Process().Kill() }

// Stop makes it stand still, Continue lets it go on.
func (n *Node) Stop() { n.Process().Signal(n.c.t, syscall.SIGSTOP) }

// Continue is the end of Stop; it does nothing to a node that runs or is gone.
func (n *Node) Continue() { _ = syscall.Kill(n.Process().Pid(), syscall.SIGCONT) }

// Healthy reports whether JetStream on it is up to date.
func (n *Node) Healthy() bool { return n.c.ok("http://" + n.monitor + "/healthz") }

// WaitHealthy waits for that.
func (n *Node) WaitHealthy(within time.Duration) {
	n.c.t.Helper()
	n.c.wait(n.Name+" is healthy", within, n.Healthy)
}

// Leader is the node that leads partition p's stream, nil while nobody does.
func (c *Cluster) Leader(p int) *Node {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := c.js.Stream(ctx, Stream(p))
	if err != nil || s.CachedInfo().Cluster == nil {
		return nil
	}
	for _, n := range c.Nats {
		if n.Name == s.CachedInfo().Cluster.Leader {
			return n
		}
	}
	return nil
}

// StepDown makes partition p's stream look for another leader.
func (c *Cluster) StepDown(p int) error {
	_, err := c.js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+Stream(p), nil, 3*time.Second)
	return err
}

// Conn is a connection to NATS past all links.
func (c *Cluster) Conn() *nats.Conn { return c.js.Conn() }

// Isolate cuts a node's routes: entirely, or what comes in or goes out only (it is swallowed, as by a one-way partition).
func (c *Cluster) Isolate(node int, in, out bool) {
	for _, r := range c.Routes {
		switch {
		case r.From != node && r.To != node:
		case in && out:
			r.Cut()
		case r.From == node:
			r.Set(way(out), way(in))
		default:
			r.Set(way(in), way(out))
		}
	}
}

// Rejoin ends Isolate.
func (c *Cluster) Rejoin(node int) {
	for _, r := range c.Routes {
		if r.From == node || r.To == node {
			r.Heal()
		}
	}
}
