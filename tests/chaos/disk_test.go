//go:build chaos

package chaos

import (
	"fmt"
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/load"
)

// The promise: with room again for so long, people are accepted.
const (
	diskIsFull = 30 * time.Second
	diskHealed = 30 * time.Second
)

// TestDiskFull: there is no space left under NATS nodes for 30 s, then there is: one after the other, each while it leads. Nobody but the
// supervisor, which is what Kubernetes makes of the chart's probes, starts anything again.
func TestDiskFull(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{SmallDisks: true})
	c.Supervise()
	w := load.New(t, c, load.Options{Users: 24, Rate: 60, Seed: 9, Pad: 1000})
	w.Start()
	for i, n := range c.Nats {
		for p := range 2 { // it has to be hit while it leads
			c.Lead(p, n, time.Minute)
		}
		full(t, c, w, i)
	}
	end(t, c, w, 1000)
}

// TestDiskFullTwoNodes: two of three at once. A cluster of its own, for Kubernetes waits longer before it starts a container the second time.
func TestDiskFullTwoNodes(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{SmallDisks: true})
	c.Supervise()
	w := load.New(t, c, load.Options{Users: 24, Rate: 60, Seed: 11, Pad: 1000})
	w.Start()
	full(t, c, w, 0, 1)
	end(t, c, w, 200)
}

// TestDiskFullOneNode: the same with the only node.
func TestDiskFullOneNode(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{SmallDisks: true, Nodes: 1})
	c.Supervise()
	w := load.New(t, c, load.Options{Users: 24, Rate: 60, Seed: 10, Pad: 1000})
	w.Start()
	full(t, c, w, 0)
	end(t, c, w, 200)
}

// full fills the disks of nodes, waits, and gives space again.
func full(t *testing.T, c *cluster.Cluster, w *load.World, nodes ...int) {
	t.Helper()
	what := fmt.Sprintf("%d of %d nodes without space", len(nodes), len(c.Nats))
	pass(2 * time.Second)
	for _, i := range nodes {
		c.Nats[i].Disk.Fill()
	}
	began := time.Now()
	quorum := 2*(len(c.Nats)-len(nodes)) > len(c.Nats)
	if quorum {
		before := w.SoFar(checker.Accepted)
		w.Wait("people are accepted with "+what, diskIsFull, func() bool { return w.SoFar(checker.Accepted) > before+200 })
		pass(diskIsFull - time.Since(began))
		for _, g := range c.Gateways {
			if !g.Ready() {
				t.Errorf("%s says that it is not ready, though people are accepted", g.Name)
			}
		}
	} else {
		for _, g := range c.Gateways {
			g.WaitUnready(diskIsFull)
		}
		pass(diskIsFull - time.Since(began))
	}
	for _, i := range nodes {
		c.Nats[i].Disk.Empty()
	}
	room, before := time.Now(), w.SoFar(checker.Accepted)
	w.Wait("people are accepted after "+what, diskHealed, func() bool { return w.SoFar(checker.Accepted) > before })
	t.Logf("accepted %.1f s after %s", time.Since(room).Seconds(), what)
	w.Wait("many are", time.Minute, func() bool { return w.SoFar(checker.Accepted) > before+100 })
	for _, n := range c.Nats { // what it has then counts when the next one is hit
		n.WaitHealthy(2 * time.Minute)
	}
	for _, g := range c.Gateways {
		g.WaitReady(time.Minute)
	}
}
