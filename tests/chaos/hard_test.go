//go:build chaos

package chaos

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/link"
	"parley.example/tests/chaos/load"
)

// pass lets time go by under load; what happens meanwhile is checked afterwards.
func pass(d time.Duration) { time.Sleep(d) } // the length of a fault

// end finishes, and wants so many accepted messages at least.
func end(t *testing.T, c *cluster.Cluster, w *load.World, accepted int) {
	t.Helper()
	c.Heal()
	h := w.Finish()
	f := w.Figures()
	t.Logf("%+v", f)
	if f.Accepted < accepted {
		t.Errorf("%d accepted, at least %d were expected", f.Accepted, accepted)
	}
	load.Judge(t, h)
}

// counted wants a counter of the gateways at n at least: the fault did what it was for.
func counted(t *testing.T, c *cluster.Cluster, series string, n float64) {
	t.Helper()
	got := c.Metric("gateway", series)
	t.Logf("%s %v", series, got)
	if got < n {
		t.Errorf("%s is %v, at least %v was expected", series, got, n)
	}
}

// TestLeaderStepsDown: the streams' leaders change all the time, under load, and every third message is sent a second time under its id.
func TestLeaderStepsDown(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 24, Rate: 150, Seed: 2, Resend: true})
	w.Start()
	r := rand.New(rand.NewPCG(2, 2))
	steps := 0
	for range 20 {
		if c.StepDown(r.IntN(2)) == nil {
			steps++
		}
		pass(time.Duration(200+r.IntN(600)) * time.Millisecond)
	}
	if steps < 10 {
		t.Errorf("%d leaders stepped down", steps)
	}
	end(t, c, w, 500)
	if f := w.Figures(); f.Resent < 100 {
		t.Errorf("%d messages were sent again", f.Resent)
	}
	counted(t, c, "parley_gateway_publish_retried_total", 1) // the gateways', whose acks the changes of leaders swallowed
}

// TestReceiversNodeCutThenSilence: only the receivers' NATS node loses its peers, the others talk, then nobody says a word any more and the cut heals.
func TestReceiversNodeCutThenSilence(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{Pinned: true})
	w := load.New(t, c, load.Options{Users: 24, Rate: 100, Seed: 3, Pinned: true, Mute: true})
	w.Start()
	pass(2 * time.Second)
	c.Isolate(2, true, true)
	before := w.SoFar(checker.Accepted)
	w.Wait("the others are accepted while the node is cut off", time.Minute, func() bool { return w.SoFar(checker.Accepted) > before+200 })
	w.Hush()
	end(t, c, w, 300)
	counted(t, c, "parley_gateway_repaired_total", 50) // what reached nobody live came by SQL
}

// TestHalfOpen: for twenty seconds what the gateways write to their clients vanishes, though every write succeeds.
func TestHalfOpen(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 24, Rate: 100, Seed: 4})
	w.Start()
	pass(2 * time.Second)
	before := w.SoFar(checker.Sent)
	for _, g := range c.Gateways[:2] {
		g.Clients.Set(link.Way{}, link.Way{Swallow: true})
	}
	pass(20 * time.Second)
	if n := w.SoFar(checker.Sent) - before; n < 200 {
		t.Errorf("%d messages were sent meanwhile", n)
	}
	end(t, c, w, 500)
}

// TestHistoryDownUntilTheStreamIsFull: the streams fill while history is away. Then senders hear unavailable and nothing is acknowledged; when it is back,
// everything goes on, and what was accepted is there.
func TestHistoryDownUntilTheStreamIsFull(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{Settings: map[string]string{"stream-max-bytes": "1048576", "stream-keep": "100"}})
	w := load.New(t, c, load.Options{Users: 24, Rate: 100, Seed: 5, Pad: 4000})
	w.Start()
	for _, s := range c.Of("history") {
		s.Kill()
	}
	const unavailable = `parley_gateway_errors_total{code="unavailable"}`
	heard := c.Metric("gateway", unavailable)
	// All are refused, those of both streams: nothing is accepted for two seconds, while people go on trying.
	last, since := w.SoFar(checker.Accepted), time.Now()
	w.Wait("the streams are full", 2*time.Minute, func() bool {
		if n := w.SoFar(checker.Accepted); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second && c.Metric("gateway", unavailable) > heard+50
	})
	pass(3 * time.Second)
	if n := w.SoFar(checker.Accepted); n != last {
		t.Errorf("%d messages were accepted by full streams", n-last)
	}
	for _, s := range c.Of("history") {
		s.Start()
	}
	w.Wait("senders are accepted again", time.Minute, func() bool { return w.SoFar(checker.Accepted) > last+100 })
	end(t, c, w, 300)
}

// TestOldBackup: the streams are restored from a copy that is older than SQL. History refuses them, and nothing is accepted that would get a seq a second
// time; after the repair of docs/operations.md everything goes on.
func TestOldBackup(t *testing.T) {
	byHand(t)
	c := cluster.New(t, cluster.Options{})
	w := load.New(t, c, load.Options{Users: 24, Rate: 100, Seed: 6})
	w.Start()
	stop := func() {
		for _, n := range c.Nats {
			p := n.Process()
			p.Signal(t, syscall.SIGTERM)
			p.Exited(t, time.Minute)
		}
	}
	start := func() {
		for _, n := range c.Nats {
			n.Start()
		}
		for _, n := range c.Nats {
			n.WaitHealthy(time.Minute)
		}
	}
	pass(3 * time.Second)
	w.Hush()
	stop()
	for _, n := range c.Nats {
		if err := os.CopyFS(n.Store+".old", os.DirFS(n.Store)); err != nil {
			t.Fatal(err)
		}
	}
	start()
	w.Talk()
	before := w.SoFar(checker.Accepted)
	w.Wait("people chat on", time.Minute, func() bool { return w.SoFar(checker.Accepted) > before+200 })
	w.Hush()
	c.WaitCalm(time.Minute)
	stop()
	for _, n := range c.Nats {
		if err := os.RemoveAll(n.Store); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(n.Store+".old", n.Store); err != nil {
			t.Fatal(err)
		}
	}
	start()
	w.Wait("history refuses", time.Minute, func() bool { return c.Metric("history", "parley_history_partition_refused{") > 0 })
	before = w.SoFar(checker.Accepted)
	w.Talk()
	pass(5 * time.Second)
	if n := w.SoFar(checker.Accepted) - before; n > 0 {
		t.Errorf("%d messages were accepted into streams that are older than SQL", n)
	}
	// The repair: what these streams have is in SQL. History makes new ones, above every seq that was ever given.
	for p := range 2 {
		if err := c.JS().DeleteStream(t.Context(), cluster.Stream(p)); err != nil {
			t.Fatal(err)
		}
	}
	before = w.SoFar(checker.Accepted)
	w.Wait("people are accepted again", time.Minute, func() bool { return w.SoFar(checker.Accepted) > before+200 })
	end(t, c, w, 500)
}
