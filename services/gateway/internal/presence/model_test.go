package presence

import (
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

// TestPresenceEqualsTheModel: whatever happens to sessions, heartbeats, requests, events, replicas, gateways and Redis, in any order and
// all at once: when it is over, every watcher on every gateway sees exactly the users who have a session on a gateway that lives, and on
// the way each was told of each user's comings and goings in turn (viewer checks that).
func TestPresenceEqualsTheModel(t *testing.T) {
	cases := 8 // some seconds each, mostly of waiting for leases
	if os.Getenv("PARLEY_LONG") == "1" {
		cases = 120
	}
	drawCases(t, cases)
	r := testx.RedisServer(t)
	rdb := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer rdb.Close()
	rapid.Check(t, func(rt *rapid.T) {
		w := newModelWorld(rt, t, r.Addr, rdb)
		defer w.end()
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			for range rapid.IntRange(10, 60).Draw(rt, "steps") {
				step := rapid.SampledFrom(modelSteps).Draw(rt, "step")
				w.seen[step.name]++
				step.do(w, rt)
			}
			w.heal()
			healed := time.Now()
			w.compare()
			w.slowest = max(w.slowest, time.Since(healed))
		}
		t.Logf("settled within %s; steps %v, traffic %v", w.slowest.Round(time.Millisecond), w.seen, w.traffic())
	})
}

// drawCases sets how many cases rapid draws in one test.
func drawCases(t *testing.T, n int) {
	f := flag.Lookup("rapid.checks")
	old := f.Value.String()
	if err := f.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(old) }) // a value that it had
}

// modelWorld is a scene and, in open, the model: who is connected where.
type modelWorld struct {
	*scene
	rdb      *redis.Client
	replicas []*modelReplica
	gateways []*modelGateway
	open     []session
	past     []session
	users    []string
	seen     map[string]int // steps by name
	cleanups []func()
	counts   map[string]int // of the gateways that are gone
	slowest  time.Duration  // from the end of all faults until everything was right
}

type modelReplica struct {
	line *line
	stop func()
}

// kill does not wait until the rest of it, which reaches nobody, has ended; the case's end does.
func (r *modelReplica) kill() { r.line.die(); go r.stop() }

type modelGateway struct {
	*gateway
	traffic *traffic
	viewers []*viewer
}

// caseTB hands a case's helpers what they need of a test, and undoes what they made when the case ends.
type caseTB struct {
	*rapid.T
	w *modelWorld
	t *testing.T
}

func (c caseTB) Cleanup(f func()) { c.w.cleanups = append(c.w.cleanups, f) }
func (c caseTB) TempDir() string  { return c.t.TempDir() }

const modelGateways = 3

func newModelWorld(rt *rapid.T, t *testing.T, addr string, rdb *redis.Client) *modelWorld {
	w := &modelWorld{rdb: rdb, users: names("u", 8), seen: map[string]int{}, counts: map[string]int{}}
	if err := rdb.FlushAll(context.Background()).Err(); err != nil {
		rt.Fatalf("empty Redis: %v", err)
	}
	w.scene = newScene(caseTB{rt, w, t}, addr, 0)
	for range 3 {
		w.replicas = append(w.replicas, w.newReplica())
	}
	for i := range modelGateways {
		w.gateways = append(w.gateways, w.newGateway(rt, i))
	}
	return w
}

func (w *modelWorld) end() {
	for _, g := range w.gateways {
		g.traffic.end()
	}
	for _, f := range slices.Backward(w.cleanups) {
		f()
	}
}

func (w *modelWorld) newReplica() *modelReplica {
	l := newLine()
	return &modelReplica{l, w.replicaOn(l)}
}

func (w *modelWorld) newGateway(rt *rapid.T, i int) *modelGateway {
	g := &modelGateway{traffic: newTraffic(rapid.Uint64().Draw(rt, "traffic"))}
	g.gateway = w.gatewayOn(g.traffic)
	g.viewers = []*viewer{w.viewer(g.gateway, "none"), w.viewer(g.gateway, w.users[i], w.users...)}
	return g
}

func (w *modelWorld) pick(rt *rapid.T) *modelGateway {
	return w.gateways[rapid.IntRange(0, len(w.gateways)-1).Draw(rt, "gateway")]
}

// take removes one open session from the model.
func (w *modelWorld) take(rt *rapid.T) (session, bool) {
	if len(w.open) == 0 {
		return session{}, false
	}
	i := rapid.IntRange(0, len(w.open)-1).Draw(rt, "session")
	c := w.open[i]
	w.open = slices.Delete(w.open, i, i+1)
	w.past = append(w.past, c)
	return c, true
}

type modelStep struct {
	name string
	do   func(w *modelWorld, rt *rapid.T)
}

// modelSteps has each step as often as it is likely.
var modelSteps = slices.Concat(
	slices.Repeat([]modelStep{{"connect", func(w *modelWorld, rt *rapid.T) {
		w.open = append(w.open, w.connect(w.pick(rt).gateway, rapid.SampledFrom(w.users).Draw(rt, "user")))
	}}}, 12),
	slices.Repeat([]modelStep{{"lose a session", func(w *modelWorld, rt *rapid.T) {
		if c, ok := w.take(rt); ok {
			c.lose()
		}
	}}}, 4),
	slices.Repeat([]modelStep{{"leave", func(w *modelWorld, rt *rapid.T) {
		if c, ok := w.take(rt); ok {
			c.leave()
		}
	}}}, 4),
	[]modelStep{
		{"say it again", func(w *modelWorld, rt *rapid.T) {
			for _, c := range w.open {
				c.g.Online(c.id, c.user)
			}
			for _, c := range w.past {
				c.g.Gone(c.id, c.user, rapid.Bool().Draw(rt, "deliberate"))
			}
		}},
		{"move", func(w *modelWorld, rt *rapid.T) { // a client that reconnects elsewhere
			if c, ok := w.take(rt); ok {
				c.lose()
				w.open = append(w.open, w.connect(w.pick(rt).gateway, c.user))
			}
		}},
		{"lose heartbeats", func(w *modelWorld, rt *rapid.T) {
			w.pick(rt).traffic.deaf.Store(rapid.Bool().Draw(rt, "lost"))
		}},
		{"spoil events", func(w *modelWorld, rt *rapid.T) { w.pick(rt).traffic.events.spoil(rt) }},
		{"spoil requests", func(w *modelWorld, rt *rapid.T) { w.pick(rt).traffic.requests.spoil(rt) }},
		{"cut a gateway off", func(w *modelWorld, rt *rapid.T) { w.pick(rt).cut.Store(rapid.Bool().Draw(rt, "cut")) }},
		{"kill a gateway", func(w *modelWorld, rt *rapid.T) {
			i := rapid.IntRange(0, modelGateways-1).Draw(rt, "gateway")
			g := w.gateways[i]
			g.traffic.end()
			g.kill()
			w.count(g)
			var rest []session
			for _, c := range w.open {
				if c.g != g.gateway {
					rest = append(rest, c)
				}
			}
			w.open = rest
			w.past = slices.DeleteFunc(w.past, func(c session) bool { return c.g == g.gateway })
			w.gateways[i] = w.newGateway(rt, i)
		}},
		{"kill a replica", func(w *modelWorld, rt *rapid.T) {
			i := rapid.IntRange(0, len(w.replicas)-1).Draw(rt, "replica")
			w.replicas[i].kill()
			w.replicas[i] = w.newReplica()
		}},
		{"flush Redis", func(w *modelWorld, rt *rapid.T) {
			if err := w.rdb.FlushAll(context.Background()).Err(); err != nil {
				rt.Fatalf("flush: %v", err)
			}
		}},
	},
	slices.Repeat([]modelStep{{"wait", func(_ *modelWorld, rt *rapid.T) {
		// Some end within a batch or a heartbeat, few of them outlast a grace or a lease.
		ms := rapid.SampledFrom([]int{1, 5, 20, 20, 100, 300, 900, 2300}).Draw(rt, "ms")
		time.Sleep(time.Duration(ms) * time.Millisecond) // what is tested is what time does
	}}}, 3),
)

// heal ends all faults; what they did stays.
func (w *modelWorld) heal() {
	for _, g := range w.gateways {
		g.cut.Store(false)
		g.traffic.heal()
	}
}

// compare waits until the service has what the model has, and every watcher and a newcomer see it. The service first: watchers may see the
// right thing because they have not heard yet of what is to be repaired.
func (w *modelWorld) compare() {
	want := map[string]bool{}
	for _, c := range w.open {
		want[c.user] = true
	}
	without := func(self string) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(u string) bool { return u == self })
	}
	var online []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // polling interval
		var settled bool
		if online, settled = w.service(); settled && slices.Equal(online, without("")) {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the service has %v, the model %v", online, without(""))
		}
	}
	for _, g := range w.gateways {
		for _, v := range g.viewers {
			v.sees(without(v.name)...)
		}
		newcomer := w.viewer(g.gateway, "newcomer")
		newcomer.sees(without("newcomer")...)
		g.Unwatch(newcomer)
	}
}

// service asks the presence service who is online.
func (w *modelWorld) service() (online []string, settled bool) {
	for i := range api.PresenceShards {
		snap, err := api.PresenceSnapshot.Call(context.Background(), rpc.Caller{Conn: w.gateways[0].nc, Timeout: 5 * time.Second}, api.SnapshotRequest{Shard: i})
		if err != nil || snap.Settling {
			return nil, false
		}
		online = append(online, snap.Online...)
	}
	slices.Sort(online)
	return online, true
}

func (w *modelWorld) count(g *modelGateway) {
	for k, n := range g.traffic.counted() {
		w.counts[k] += n
	}
}

func (w *modelWorld) traffic() map[string]int {
	for _, g := range w.gateways {
		w.count(g)
	}
	return w.counts
}

// traffic is what can happen to a gateway's events and requests on their way.
type traffic struct {
	deaf     atomic.Bool // heartbeats get lost
	events   way
	requests way
}

func newTraffic(seed uint64) *traffic {
	t := &traffic{}
	for i, w := range []*way{&t.events, &t.requests} {
		w.rand, w.n = rand.New(rand.NewPCG(seed, uint64(i))), map[string]int{}
	}
	return t
}

func (t *traffic) heal() {
	t.deaf.Store(false)
	t.events.heal()
	t.requests.heal()
}

// end stops what is still to be delivered.
func (t *traffic) end() {
	t.events.end()
	t.requests.end()
}

func (t *traffic) counted() map[string]int {
	out := map[string]int{}
	for name, w := range map[string]*way{"events": &t.events, "requests": &t.requests} {
		w.mu.Lock()
		for k, n := range w.n {
			out[name+" "+k] = n
		}
		w.mu.Unlock()
	}
	return out
}

// way loses, doubles and delays what passes. Delayed things are overtaken by later ones.
type way struct {
	mu                sync.Mutex
	rand              *rand.Rand
	lose, twice, late float64
	ended             bool
	wg                sync.WaitGroup
	n                 map[string]int
}

func (w *way) spoil(rt *rapid.T) {
	rate := rapid.SampledFrom([]float64{0, .1, .5})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose, w.twice, w.late = rate.Draw(rt, "lost"), rate.Draw(rt, "doubled"), rate.Draw(rt, "late")
}

func (w *way) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose, w.twice, w.late = 0, 0, 0
}

func (w *way) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wg.Wait()
}

// draw decides what happens to one thing, and has f done later for its late copy.
func (w *way) draw(f func()) (lost, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return true, false
	}
	w.n["all"]++
	if w.rand.Float64() < w.lose {
		w.n["lost"]++
		return true, false
	}
	late = w.rand.Float64() < w.late
	twice := w.rand.Float64() < w.twice
	if late {
		w.n["late"]++
	}
	if twice {
		w.n["doubled"]++
	}
	if late || twice {
		in := time.Duration(w.rand.Int64N(int64(200 * time.Millisecond)))
		w.wg.Add(1)
		time.AfterFunc(in, func() { defer w.wg.Done(); f() })
	}
	return false, late
}
