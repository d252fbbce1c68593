package testx

import (
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Nats is one in-process nats-server with JetStream on disk.
type Nats struct {
	*server.Server
	opts *server.Options
	t    TB
}

// NatsServer starts a server on a free port of 127.0.0.1. It is shut down with the test.
func NatsServer(t TB) *Nats {
	t.Helper()
	n := &Nats{t: t, opts: &server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), DisableJetStreamBanner: true,
	}}
	n.start()
	t.Cleanup(n.Stop)
	return n
}

// NatsFrom is NatsServer with the users of a server's configuration file. Passwords that it takes from the environment have to be there.
func NatsFrom(t TB, file string) *Nats {
	t.Helper()
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	o.ServerName, o.Host, o.Port, o.NoSigs, o.NoLog = "test", "127.0.0.1", -1, true, true
	o.JetStream, o.StoreDir, o.DisableJetStreamBanner = true, t.TempDir(), true
	n := &Nats{t: t, opts: o}
	n.start()
	t.Cleanup(n.Stop)
	return n
}

func (n *Nats) start() {
	n.t.Helper()
	s, err := server.NewServer(n.opts.Clone())
	if err != nil {
		n.t.Fatalf("make a nats-server: %v", err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		n.t.Fatalf("the nats-server is not ready after 20 s")
	}
	n.Server = s
	// Keep the port for a restart, so that clients find it again.
	n.opts.Port = s.Addr().(*net.TCPAddr).Port
}

// Stop ends the server; what is on disk stays. Safe to repeat.
func (n *Nats) Stop() {
	n.Server.Shutdown()
	n.Server.WaitForShutdown()
}

// Restart starts it again on the same port and the same store.
func (n *Nats) Restart() {
	n.t.Helper()
	n.start()
}

// Dir is the folder that it keeps everything in.
func (n *Nats) Dir() string { return n.opts.StoreDir }

// Connect makes a plain client connection that ends with the test.
func (n *Nats) Connect() *nats.Conn {
	n.t.Helper()
	return Connect(n.t, n.ClientURL())
}

// Connect makes a plain client connection that ends with the test.
func Connect(t TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatalf("connect to NATS: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Cluster is a number of in-process nats-servers that form a JetStream cluster.
type Cluster struct {
	Nodes []*Nats
}

// NatsCluster starts n nodes and waits until JetStream has a leader and all its peers.
func NatsCluster(t TB, n int) *Cluster {
	t.Helper()
	var routes string
	ports := make([]int, n)
	for i := range ports {
		ports[i] = FreePort(t)
		if i > 0 {
			routes += ","
		}
		routes += fmt.Sprintf("nats://127.0.0.1:%d", ports[i])
	}
	c := &Cluster{}
	for i := range n {
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), DisableJetStreamBanner: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]},
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
	return c
}

// WaitLeader waits until the JetStream meta group has a leader that sees all running nodes.
func (c *Cluster) WaitLeader(t TB) {
	t.Helper()
	Eventually(t, "the NATS cluster has a JetStream leader", 30*time.Second, func() bool {
		for _, n := range c.Nodes {
			if n.Running() && n.JetStreamIsLeader() && len(n.JetStreamClusterPeers()) == len(c.Nodes) {
				return true
			}
		}
		return false
	})
}

// URL is the client URL of all nodes.
func (c *Cluster) URL() string {
	s := ""
	for i, n := range c.Nodes {
		if i > 0 {
			s += ","
		}
		s += n.ClientURL()
	}
	return s
}
