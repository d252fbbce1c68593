package store

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"parley.example/pkg/api"
)

// No script runs for more than an hour (NATS is away: the replicas let no time pass; or all of them are down). The keys of a gateway's
// sessions expire, the users' counts do not. Afterwards the gateway registers again, its user leaves, and has to be offline.
func TestLeasesEndAfterAnHourWithoutAScript(t *testing.T) {
	redis := miniredis.RunT(t)
	rdb := client(t, redis.Addr())
	cfg := Config{Lease: 5 * time.Second, Grace: time.Second, Settle: time.Second, Forget: time.Minute, LastSeen: 1000 * time.Hour}
	now := time.UnixMilli(1_700_000_000_000)
	redis.SetTime(now)
	w := newWorld(t, rdb, cfg)
	w.apply("g", came(1<<40, "avi"))
	w.apply("dead", came(1<<41, "lisa")) // never heard of again
	w.expect("avi", "lisa")

	outage := 61 * time.Minute
	now = now.Add(outage)
	redis.FastForward(outage)
	redis.SetTime(now)

	clear(w.online) // the shards begin anew
	s := api.PresenceShard("avi")
	before := w.epoch[s]
	if w.beat("g", came(1<<40, "avi")).Shards[s].Resync {
		w.take(w.next().Resync(context.Background(), api.ResyncRequest{Gateway: "g", Shard: s, Sessions: []api.SessionChange{came(1<<40, "avi")}}))
	}
	if w.epoch[s] == before {
		t.Error("the epoch goes on")
	}
	w.apply("g", left(1<<40, "avi"))
	for range 40 {
		now = now.Add(500 * time.Millisecond)
		redis.SetTime(now)
		w.beat("g")
		w.tick()
	}
	if got := w.snapshot(); len(got) > 0 {
		t.Fatalf("%v are online and nobody is connected", got)
	}
}
