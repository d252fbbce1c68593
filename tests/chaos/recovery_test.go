//go:build chaos

package chaos

import (
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/load"
)

// TestRecovery does one thing at a time, and measures how long it takes until senders are accepted again and receivers have caught up.
func TestRecovery(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 48, Rate: 150, Seed: 7})
	w.Start()
	const within = 30 * time.Second
	type moment struct {
		what string
		at   time.Duration
	}
	var moments []moment
	note := func(what string) { moments = append(moments, moment{what, w.Since()}) }
	pass(5 * time.Second)
	for range 2 {
		if n := c.Leader(0); n != nil {
			note("leader killed")
			n.Kill()
			pass(10 * time.Second)
			n.Start()
			n.WaitHealthy(time.Minute)
			pass(within - 10*time.Second)
		}
		note("gateway killed")
		c.Gateways[0].Kill()
		pass(10 * time.Second)
		c.Gateways[0].Start()
		c.Gateways[0].WaitReady(time.Minute)
		pass(within - 10*time.Second)

		for _, n := range c.Nats {
			n.Kill()
		}
		pass(5 * time.Second)
		for _, n := range c.Nats {
			n.Start()
		}
		note("all of NATS started again")
		pass(within)

		c.Postgres.Stop()
		pass(20 * time.Second)
		note("PostgreSQL started again after 20 s")
		c.Postgres.Start(t)
		pass(within)
	}
	h := w.Finish()
	for _, m := range moments {
		r := checker.Recovery(h, m.at, within)
		t.Logf("%s: of %d senders half were accepted again after %.1f s, all after %.1f s; receivers had caught up after %.1f s", m.what, r.Senders, r.HalfAgain.Seconds(), r.AllAgain.Seconds(), r.ReceiversCaughtUp.Seconds())
		if r.Senders < 10 || r.AllAgain == 0 {
			t.Errorf("%s: nobody sent", m.what)
		}
	}
	load.Judge(t, h)
}
