//go:build chaos

package chaos

import (
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/link"
	"parley.example/tests/chaos/load"
)

// TestRedisIsFar: Redis is cut off, then swallows what it should answer, then is slow. People chat all the time, and in the end everybody's picture of who
// is there is true.
func TestRedisIsFar(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 48, Rate: 100, Stay: 20 * time.Second, Seed: 10})
	w.Start()
	slow := link.Way{Delay: 50 * time.Millisecond, Jitter: 150 * time.Millisecond}
	for _, bad := range []struct {
		what     string
		up, down link.Way
	}{
		{"cut off", link.Way{Swallow: true}, link.Way{Swallow: true}},
		{"without answers", link.Way{}, link.Way{Swallow: true}},
		{"slow", slow, slow},
	} {
		before := w.SoFar(checker.Accepted)
		c.ToRedis.Set(bad.up, bad.down)
		pass(15 * time.Second)
		c.ToRedis.Heal()
		if n := w.SoFar(checker.Accepted) - before; n < 300 {
			t.Errorf("%d messages were accepted while Redis was %s", n, bad.what)
		}
		pass(5 * time.Second)
	}
	end(t, c, w, 1000)
}
