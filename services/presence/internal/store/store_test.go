package store

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

var quick = Config{Lease: 300 * time.Millisecond, Grace: 200 * time.Millisecond, Settle: 0, Forget: time.Minute, LastSeen: time.Hour}

// onAll runs a test against a real redis-server, the embedded one, and a Redis Cluster of three nodes, which refuses a script that
// touches two slots.
func onAll(t *testing.T, f func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("redis", func(t *testing.T) { f(t, client(t, testx.RedisServer(t).Addr)) })
	t.Run("embedded", func(t *testing.T) { f(t, client(t, miniredis.RunT(t).Addr())) })
	t.Run("cluster", func(t *testing.T) {
		var addrs []string
		for _, node := range testx.RedisCluster(t, 3) {
			addrs = append(addrs, node.Addr)
		}
		rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, MaxRetries: -1})
		t.Cleanup(func() { _ = rdb.Close() })
		f(t, rdb)
	})
}

// flush empties the whole of Redis.
func flush(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	ctx := context.Background()
	err := rdb.FlushAll(ctx).Err()
	if c, ok := rdb.(*redis.ClusterClient); ok {
		err = c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return node.FlushAll(ctx).Err() })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func client(t testx.TB, addr string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// world is two replicas and all that they announced, in the order of the versions.
type world struct {
	t        testx.TB
	rdb      redis.UniversalClient
	replicas [2]*Store
	turn     int
	events   map[string][]api.PresenceChange
	online   map[string]bool
	version  [api.PresenceShards]int64
	epoch    [api.PresenceShards]string
}

func newWorld(t testx.TB, rdb redis.UniversalClient, cfg Config) *world {
	w := &world{t: t, rdb: rdb, events: map[string][]api.PresenceChange{}, online: map[string]bool{}}
	w.replicas = [2]*Store{New(w.rdb, cfg), New(w.rdb, cfg)}
	return w
}

// next takes turns, as load balancing would.
func (w *world) next() *Store {
	w.turn++
	return w.replicas[w.turn%2]
}

func (w *world) take(results []Result, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("script: %v", err)
	}
	for _, r := range results {
		if r.Epoch != w.epoch[r.Shard] {
			w.epoch[r.Shard], w.version[r.Shard] = r.Epoch, 0
		}
		if r.From != w.version[r.Shard] || r.Version != r.From+int64(len(r.Changes)) {
			w.t.Fatalf("versions are not dense: had %d, got %d to %d with %d changes", w.version[r.Shard], r.From, r.Version, len(r.Changes))
		}
		w.version[r.Shard] = r.Version
		for _, c := range r.Changes {
			if w.online[c.User] == c.Online {
				w.t.Fatalf("%s announced twice as online=%v", c.User, c.Online)
			}
			if !c.Online && c.LastSeen == 0 {
				w.t.Fatalf("%s went offline without a time", c.User)
			}
			w.online[c.User] = c.Online
			w.events[c.User] = append(w.events[c.User], c)
		}
	}
}

func (w *world) apply(gateway string, changes ...api.SessionChange) {
	w.t.Helper()
	w.take(w.next().Apply(context.Background(), api.SessionsRequest{Gateway: gateway, Changes: changes}))
}

func (w *world) tick() {
	w.t.Helper()
	w.take(w.next().Tick(context.Background(), true))
}

func (w *world) beat(gateway string, sessions ...api.SessionChange) api.HeartbeatResponse {
	w.t.Helper()
	req := api.HeartbeatRequest{Gateway: gateway}
	for _, s := range sessions {
		req.Digests[api.PresenceShard(s.User)].Add(s.ID)
	}
	for i := range req.Digests {
		req.Digests[i].Epoch, req.Digests[i].Version = w.epoch[i], w.version[i]
	}
	resp, res, err := w.next().Heartbeat(context.Background(), req)
	w.take(res, err)
	return resp
}

func (w *world) snapshot() []string {
	w.t.Helper()
	var names []string
	for _, i := range w.replicas[0].shards {
		for after, more := "", true; more; {
			snap, res, err := w.next().Snapshot(context.Background(), i, after, 30) // some names a page
			w.take(res, err)
			if snap.Version != w.version[i] {
				w.t.Fatalf("a snapshot of version %d after %d", snap.Version, w.version[i])
			}
			names = append(names, snap.Online...)
			if more = snap.More; more {
				after = names[len(names)-1]
			}
		}
	}
	sort.Strings(names)
	return names
}

func (w *world) expect(names ...string) {
	w.t.Helper()
	if got := w.snapshot(); !slices.Equal(got, names) {
		w.t.Fatalf("online are %v, want %v", got, names)
	}
	for u, on := range w.online {
		if on != slices.Contains(names, u) {
			w.t.Fatalf("%s was announced as online=%v, want %v", u, on, !on)
		}
	}
}

// until lets time pass while the gateways keep their leases.
func (w *world) until(what string, cond func() bool, alive ...string) {
	w.t.Helper()
	testx.Eventually(w.t, what, 10*time.Second, func() bool {
		for _, g := range alive {
			w.beat(g)
		}
		w.tick()
		return cond()
	})
}

func came(id uint64, user string) api.SessionChange { return api.SessionChange{ID: id, User: user} }
func lost(id uint64, user string) api.SessionChange {
	return api.SessionChange{ID: id, User: user, Gone: true}
}
func left(id uint64, user string) api.SessionChange {
	return api.SessionChange{ID: id, User: user, Gone: true, Deliberate: true}
}

func TestSessionsComeAndGo(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, quick)
		w.expect()
		w.apply("g1", came(1, "avi"), came(2, "lisa"), came(3, "avi"))
		w.apply("g2", came(4, "avi"), came(1<<63+5, "Ünal"))
		w.expect("avi", "lisa", "Ünal")
		w.apply("g1", left(1, "avi"), lost(3, "avi"))
		w.apply("g1", left(1, "avi"), came(1, "avi"))
		w.expect("avi", "lisa", "Ünal")
		w.apply("g2", left(4, "avi"))
		w.expect("lisa", "Ünal")
		w.apply("g2", came(4, "avi")) // late and doubled: what went never comes back
		w.expect("lisa", "Ünal")
		w.apply("g2", left(9, "avi"), came(9, "avi")) // the wrong way round
		w.expect("lisa", "Ünal")
		if n := len(w.events["avi"]); n != 2 {
			t.Fatalf("avi was announced %d times, want 2", n)
		}
	})
}

func TestSessionsLostHaveGraceAndThoseThatLeaveHaveNone(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, quick)
		w.apply("g1", came(1, "avi"))
		w.apply("g1", lost(1, "avi"))
		w.expect("avi")
		w.apply("g2", came(2, "avi"))
		if n := len(w.events["avi"]); n != 1 {
			t.Fatalf("a reconnect was announced: %v", w.events["avi"])
		}
		w.apply("g2", lost(2, "avi"))
		w.until("avi is offline", func() bool { return !w.online["avi"] }, "g1", "g2")
		w.expect()
		seen, res, err := w.next().LastSeen(context.Background(), []string{"nobody", "avi"})
		w.take(res, err)
		if seen[0] != 0 || seen[1] != w.events["avi"][1].LastSeen {
			t.Fatalf("last seen %v, announced %v", seen, w.events["avi"])
		}
	})
}

func TestLeasesTakeTheirSessionsAlong(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, quick)
		for i := range 300 {
			w.apply("dead", came(uint64(i+1), fmt.Sprintf("u%d", i)))
		}
		w.apply("alive", came(1001, "u1"), came(1002, "avi"))
		w.until("all of the dead gateway are offline", func() bool {
			n := 0
			for _, on := range w.online {
				if on {
					n++
				}
			}
			return n == 2
		}, "alive")
		w.expect("avi", "u1")
		// It was only cut off: it finds that it must register again.
		if !w.beat("dead", came(1, "u0")).Shards[api.PresenceShard("u0")].Resync {
			t.Fatal("a gateway that lost its lease is not told to register again")
		}
	})
}

func TestDigestsShowDifferencesAndAResyncMendsThem(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, quick)
		s := api.PresenceShard("avi")
		held := []api.SessionChange{came(7<<40+1, "avi"), came(3, "avi")}
		w.apply("g", held...)
		if w.beat("g", held...).Shards[s].Resync {
			t.Fatal("equal digests differ")
		}
		now := []api.SessionChange{held[0], came(8, "avi")}
		if !w.beat("g", now...).Shards[s].Resync {
			t.Fatal("different digests are equal")
		}
		w.take(w.next().Resync(context.Background(), api.ResyncRequest{Gateway: "g", Shard: s, Sessions: now[:1], From: 4}))
		w.take(w.next().Resync(context.Background(), api.ResyncRequest{Gateway: "g", Shard: s, Sessions: now[1:], To: 9}))
		if w.beat("g", now...).Shards[s].Resync != false {
			t.Fatal("still different after a resync in two parts")
		}
		w.take(w.next().Resync(context.Background(), api.ResyncRequest{Gateway: "g", Shard: s}))
		if w.beat("g").Shards[s].Resync {
			t.Fatal("different after a resync with nothing")
		}
		w.until("avi is offline", func() bool { return !w.online["avi"] }, "g")
	})
}

func TestEpochBeginsWhenDataIsLost(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, quick)
		w.apply("g", came(1, "avi"), came(2, "lisa"))
		s := api.PresenceShard("avi")
		before := w.epoch[s]
		flush(t, rdb)
		if !w.beat("g", came(1, "avi"), came(2, "lisa")).Shards[s].Resync || w.epoch[s] == before {
			t.Fatal("the loss was not seen")
		}
		w.take(w.next().Tick(context.Background(), false))
		e := w.epoch
		w.tick()
		w.tick()
		if w.epoch != e {
			t.Fatal("replicas that saw the old epoch keep beginning new ones")
		}
	})
}

func TestEpochRollbackIsSeen(t *testing.T) {
	ctx := context.Background()
	back := func(t *testing.T, w *world, who func() string) {
		t.Helper()
		w.apply("g", came(1, "avi"))
		w.tick()
		w.tick()
		saved := map[string]string{}
		for _, k := range w.rdb.Keys(ctx, "*").Val() {
			saved[k] = w.rdb.Dump(ctx, k).Val()
		}
		w.apply("g", came(2, "lisa"), came(3, "avi"), left(1, "avi"))
		w.apply("g", left(3, "avi"))
		w.rdb.FlushAll(ctx)
		for k, v := range saved {
			if err := w.rdb.Restore(ctx, k, 0, v).Err(); err != nil {
				t.Fatal(err)
			}
		}
		before := w.epoch[api.PresenceShard("avi")]
		if who() == before {
			t.Fatal("a server that forgot confirmed writes was believed")
		}
	}
	// DUMP is the real server's only.
	rdb := client(t, testx.RedisServer(t).Addr)
	t.Run("by the replica", func(t *testing.T) {
		w := newWorld(t, rdb, quick)
		s := api.PresenceShard("avi")
		back(t, w, func() string {
			for range 2 {
				res, err := w.next().Tick(ctx, false)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range res {
					if r.Shard == s && r.New {
						return r.Epoch
					}
				}
			}
			return w.epoch[s]
		})
	})
	t.Run("by the gateway, when the replica is gone too", func(t *testing.T) {
		w := newWorld(t, rdb, quick)
		s := api.PresenceShard("avi")
		back(t, w, func() string {
			req := api.HeartbeatRequest{Gateway: "g"}
			req.Digests[s].Epoch, req.Digests[s].Version = w.epoch[s], w.version[s]
			resp, _, err := New(w.rdb, quick).Heartbeat(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			return resp.Shards[s].Epoch
		})
	})
}

func TestSettlingShardAnnouncesNothing(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		cfg := quick
		cfg.Settle = 150 * time.Millisecond
		w := newWorld(t, rdb, cfg)
		s := api.PresenceShard("avi")
		res, err := w.next().Apply(context.Background(), api.SessionsRequest{Gateway: "g", Changes: []api.SessionChange{came(1, "avi")}})
		if err != nil || !res[0].New || !res[0].Settling || len(res[0].Changes) > 0 {
			t.Fatalf("the first word to an empty store: %+v %v", res, err)
		}
		var settled bool
		testx.Eventually(t, "the shard has settled", 5*time.Second, func() bool {
			w.beat("g", came(1, "avi"))
			res, err := w.next().Tick(context.Background(), false)
			for _, r := range res {
				settled = settled || r.Shard == s && r.Settled
			}
			w.take(res, err)
			snap, res, err := w.next().Snapshot(context.Background(), s, "", 1000)
			w.take(res, err)
			return !snap.Settling
		})
		if got := w.snapshot(); !slices.Equal(got, []string{"avi"}) || len(w.events) > 0 {
			t.Fatalf("after settling: %v, events %v", got, w.events)
		}
	})
}

// The settling time is over, but a gateway that is there has not registered: the shard stays unknown, where it would be wrong. One that never
// does keeps it so for three times as long at most.
func TestSettlingShardWaitsForWhoIsLate(t *testing.T) {
	onAll(t, func(t *testing.T, rdb redis.UniversalClient) {
		cfg := quick
		cfg.Settle, cfg.Lease = 800*time.Millisecond, 5*time.Second // of a short lease a slow machine makes gaps, which do not count
		w := newWorld(t, rdb, cfg)
		s := api.PresenceShard("avi")
		settling := func(held ...api.SessionChange) bool {
			w.beat("prompt")
			return w.beat("late", held...).Shards[s].Settling
		}
		avi := came(1, "avi")
		if !settling(avi) {
			t.Fatal("an empty store does not settle")
		}
		began := time.Now()
		for until := cfg.Settle * 5 / 4; time.Since(began) < until; {
			if !settling(avi) && time.Since(began) < until {
				t.Fatalf("settled after %s without the gateway that is late", time.Since(began))
			}
		}
		w.take(w.next().Resync(context.Background(), api.ResyncRequest{Gateway: "late", Shard: s, Sessions: []api.SessionChange{avi}}))
		if settling(avi); settling(avi) {
			t.Fatal("not settled when all have registered")
		}
		if got := w.snapshot(); !slices.Equal(got, []string{"avi"}) || len(w.events) > 0 {
			t.Fatalf("after settling: %v, events %v", got, w.events)
		}

		// One that says nothing any more is waited for as well, for a lease.
		flush(t, rdb)
		w.tick()
		w.tick()
		began = time.Now()
		testx.Eventually(t, "the shard has settled", 20*time.Second, func() bool { return !w.beat("prompt").Shards[s].Settling })
		if d := time.Since(began); d < 2*cfg.Settle {
			t.Errorf("settled after %s, while a gateway that was heard before the loss has said nothing", d)
		}

		flush(t, rdb)
		testx.Eventually(t, "the loss is seen", 5*time.Second, func() bool { return settling(avi) })
		testx.Eventually(t, "who never registers is not waited for for ever", 5*time.Second, func() bool { return !settling(avi) })
	})
}
