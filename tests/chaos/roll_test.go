//go:build chaos

package chaos

import (
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/load"
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
