//go:build chaos

package chaos

import (
	"os"
	"testing"
	"time"

	"parley/tests/chaos/checker"
	"parley/tests/chaos/cluster"
	"parley/tests/chaos/load"
)

// TestGatewaysRolled: every gateway is replaced, twice, as a deployment does it. Nothing is lost, and nobody waits more than five seconds for a connection.
func TestGatewaysRolled(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 120, Rate: 200, Seed: 8})
	w.Start()
	from := w.Since()
	for range 2 {
		for _, g := range c.Of("gateway") {
			g.Roll()
			pass(2 * time.Second)
		}
	}
	to := w.Since()
	c.Heal()
	h := w.Finish()
	in := checker.During(h, from, to)
	if in.Accepted < 1000 || in.Broken < 200 {
		t.Fatalf("too little happened: %+v", in)
	}
	t.Logf("%d accepted, %d reconnects in %s; the longest without a connection %.2f s (%s), the longest until accepted %.2f s (%s)", in.Accepted, in.Broken, (to - from).Round(time.Second),
		in.Reconnect.Seconds(), in.SlowestDevice, in.Accept.Seconds(), in.SlowestMessage)
	if in.Reconnect > 5*time.Second {
		t.Errorf("%s waited %s for a connection", in.SlowestDevice, in.Reconnect)
	}
	load.Judge(t, h)
}

// TestDiskFull: there is no space left under one NATS node, the leader of a stream. The others go on; given space and started again, it catches up.
func TestDiskFull(t *testing.T) {
	byHand(t)
	if os.Getuid() != 0 {
		t.Fatal("a small disk has to be mounted, which only root can do: run it as root, or leave this test out with -skip TestDiskFull")
	}
	c := cluster.New(t, cluster.Options{SmallDisk: true})
	w := load.New(t, c, load.Options{Users: 48, Rate: 150, Seed: 9, Pad: 2000})
	w.Start()
	small := c.Nats[0]
	for p := range 2 { // it has to be hit while it leads
		c.Lead(p, small, time.Minute)
	}
	pass(2 * time.Second)
	small.FillDisk()
	before := w.SoFar(checker.Accepted)
	w.Wait("people are accepted while a node has no space", time.Minute, func() bool { return w.SoFar(checker.Accepted) > before+1000 })
	if small.Free() > 1<<20 {
		t.Errorf("the disk has %d bytes", small.Free())
	}
	small.FreeDisk()
	small.Kill()
	small.Start()
	small.WaitHealthy(time.Minute)
	// What it has now counts: the others go one after the other.
	for _, n := range c.Nats[1:] {
		n.Kill()
		pass(3 * time.Second)
		n.Start()
		n.WaitHealthy(time.Minute)
	}
	end(t, c, w, 1500)
}
