package presence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

// still is a mirror that does not run, so that a test makes every step itself.
func still() *Mirror {
	m := New(rpc.Caller{}, nil, Config{}, testx.Quiet(), prometheus.NewRegistry())
	for i := range m.shards {
		m.shards[i].epoch, m.shards[i].synced = "e", true
	}
	m.unknown, m.toldMask, m.lastBeat = 0, 0, time.Now()
	return m
}

// announce brings one batch a change, as the service would.
func (m *Mirror) announce(changes ...api.PresenceChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		i := api.PresenceShard(c.User)
		m.event(api.Changes{Shard: i, Epoch: "e", From: m.shards[i].version, List: []api.PresenceChange{c}}, time.Now())
	}
}

// flush tells watchers what there is to tell, and returns how many were told.
func (m *Mirror) flush() int {
	list := m.collect(nil)
	for _, u := range list {
		u.e.w.PresenceUpdate(u.online, u.offline, u.unknown, u.snapshot, u.partial)
	}
	return len(list)
}

func up(user string) api.PresenceChange   { return api.PresenceChange{User: user, Online: true} }
func down(user string) api.PresenceChange { return api.PresenceChange{User: user, LastSeen: 1} }

// record keeps what a watcher is given.
type record struct{ updates []update }

func (r *record) PresenceUpdate(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) {
	r.updates = append(r.updates, update{online: online, offline: offline, unknown: unknown, snapshot: snapshot, partial: partial})
}

func TestWatchersOfEverybodyShareOneBatch(t *testing.T) {
	m := still()
	var a, b, self record
	m.Watch(&a, "a", nil, nil)
	m.Watch(&b, "b", nil, nil)
	m.Watch(&self, "noa", nil, nil)
	m.announce(up("avi"), up("noa"), up("tom"))
	if n := m.flush(); n != 3 {
		t.Fatalf("%d were told", n)
	}
	got, same := a.updates[1].online, b.updates[1].online
	if len(got) != 3 || unsafe.SliceData(got) != unsafe.SliceData(same) {
		t.Fatalf("not one batch: %v %v", got, same)
	}
	if own := self.updates[1].online; len(own) != 2 || slices.Contains(own, "noa") {
		t.Fatalf("told of itself: %v", own)
	}
	if m.flush() != 0 {
		t.Fatal("told without news")
	}
}

func TestWatchersOfEverybodyButWhoIsHidden(t *testing.T) {
	m := still()
	m.announce(up("eva"), up("avi"))
	m.flush()
	var all, some record
	m.Watch(&all, "a", nil, nil)
	m.Watch(&some, "b", nil, []string{"eva", "era"})
	if s := some.updates[0].online; !slices.Equal(s, []string{"avi"}) {
		t.Fatalf("snapshot %v", s)
	}
	m.announce(down("eva"))
	if n := m.flush(); n != 1 {
		t.Fatalf("%d were told of a hidden one", n)
	}
	m.announce(up("era"), up("tom"), up("eva"))
	m.flush()
	if u := some.updates[1]; !slices.Equal(u.online, []string{"tom"}) {
		t.Fatalf("told %v", u.online)
	}
	if u := all.updates[2]; len(u.online) != 3 {
		t.Fatalf("the other one was told %v", u.online)
	}
}

func TestSnapshotInTheMiddleOfABatch(t *testing.T) {
	m := still()
	var early, late, list record
	m.Watch(&early, "a", nil, nil)
	m.announce(up("avi"), up("tom"), down("tom"))
	m.Watch(&late, "b", nil, nil)
	m.Watch(&list, "c", []string{"avi", "tom"}, nil)
	m.announce(up("tom"), down("avi"))
	m.flush()
	if s := late.updates[0].online; !slices.Equal(s, []string{"avi"}) {
		t.Fatalf("snapshot %v", s)
	}
	for _, r := range []*record{&late, &list} {
		if u := r.updates[1]; !slices.Equal(u.online, []string{"tom"}) || len(u.offline) != 1 || u.offline[0].User != "avi" {
			t.Fatalf("after the snapshot: %+v", u)
		}
	}
	if u := early.updates[1]; !slices.Equal(u.online, []string{"tom"}) || len(u.offline) != 0 {
		t.Fatalf("avi came and went within one batch, and was told: %+v", u)
	}
}

func TestWatchReplacesAnEarlierOneAndUnwatchEnds(t *testing.T) {
	m := still()
	var r record
	m.Watch(&r, "me", nil, nil)
	m.Watch(&r, "me", []string{"avi", "me", "avi", ""}, nil)
	m.announce(up("tom"), up("avi"), up("me"))
	m.flush()
	if len(r.updates) != 3 || !slices.Equal(r.updates[2].online, []string{"avi"}) {
		t.Fatalf("told %+v", r.updates)
	}
	m.Watch(&r, "me", []string{}, nil)
	m.announce(down("avi"))
	m.flush()
	if len(r.updates) != 4 || m.pairs != 0 || len(m.byUser) != 0 {
		t.Fatalf("who watches nobody is told %+v", r.updates[3:])
	}
	m.Watch(&r, "me", nil, nil)
	m.announce(up("avi"))
	m.Unwatch(&r)
	m.Unwatch(&r)
	m.flush()
	if len(r.updates) != 5 || len(m.byWatcher) != 0 || len(m.everybody) != 0 {
		t.Fatalf("told after Unwatch: %+v", r.updates)
	}
}

func TestUnknownConcernsThoseWhoWatchTheShard(t *testing.T) {
	m := still()
	i := api.PresenceShard("avi")
	other := "u"
	for n := 0; api.PresenceShard(other) == i; n++ {
		other = fmt.Sprint("u", n)
	}
	var all, avi, else_ record
	m.Watch(&all, "a", nil, nil)
	m.Watch(&avi, "b", []string{"avi"}, nil)
	m.Watch(&else_, "c", []string{other}, nil)
	m.mu.Lock()
	m.event(api.Changes{Shard: i, Epoch: "f", Settling: true}, time.Now())
	m.mu.Unlock()
	if n := m.flush(); n != 2 || !all.updates[1].unknown || !avi.updates[1].unknown || len(else_.updates) != 1 {
		t.Fatalf("%d were told that avi's shard is unknown", n)
	}
	if _, known := m.IsOnline("avi"); known {
		t.Fatal("known while settling")
	}
	m.fetched(i, api.SnapshotResponse{Epoch: "f", Version: 4, Online: []string{"avi"}}, nil)
	m.flush()
	for _, r := range []*record{&all, &avi} {
		if u := r.updates[2]; u.unknown || !slices.Equal(u.online, []string{"avi"}) {
			t.Fatalf("after settling: %+v", u)
		}
	}
}

func TestBatchesInAnyOrderAndDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := still()
		v := &viewer{t: failer{t}, online: map[string]bool{}, told: map[string]int{}}
		m.Watch(v, "", nil, nil)
		// A history of one shard, cut into batches.
		const user = "avi"
		i := api.PresenceShard(user)
		var batches []api.Changes
		on := false
		for from := int64(0); from < 20; {
			ch := api.Changes{Shard: i, Epoch: "e", From: from}
			for range rapid.IntRange(1, 4).Draw(t, "n") {
				on = !on
				ch.List = append(ch.List, api.PresenceChange{User: user, Online: on})
			}
			from += int64(len(ch.List))
			batches = append(batches, ch)
		}
		batches = append(batches, rapid.SliceOf(rapid.SampledFrom(batches)).Draw(t, "doubled")...)
		for _, ch := range rapid.Permutation(batches).Draw(t, "order") {
			m.mu.Lock()
			m.event(ch, time.Now())
			m.mu.Unlock()
			if rapid.Bool().Draw(t, "flush") {
				m.flush()
			}
		}
		m.flush()
		if got, _ := m.IsOnline(user); got != on || v.online[user] != on {
			t.Fatalf("online %v, told %v, want %v", got, v.online[user], on)
		}
	})
}

type failer struct{ *rapid.T }

func (failer) Cleanup(func())  {}
func (failer) TempDir() string { return "" }

func TestEventGapIsFetchedAfterPatience(t *testing.T) {
	m := still()
	i := api.PresenceShard("avi")
	now := time.Now()
	m.mu.Lock()
	m.event(api.Changes{Shard: i, Epoch: "e", From: 3, List: []api.PresenceChange{up("avi")}}, now)
	m.check(now)
	if len(m.fetches) != 0 {
		t.Fatal("no patience with a batch that was overtaken")
	}
	m.check(now.Add(m.cfg.Patience + 1))
	m.check(now.Add(m.cfg.Patience + 2))
	m.mu.Unlock()
	if len(m.fetches) != 1 {
		t.Fatalf("%d fetches", len(m.fetches))
	}
	m.fetched(i, api.SnapshotResponse{Epoch: "e", Version: 3}, nil)
	if on, known := m.IsOnline("avi"); !on || !known {
		t.Fatal("the batch that came before the snapshot was forgotten")
	}
}

// table is what presence makes of the requests.
type table struct{ held map[uint64]string }

func (p *table) take(list []api.SessionChange) {
	for _, c := range list {
		if c.Gone {
			delete(p.held, c.ID)
		} else {
			p.held[c.ID] = c.User
		}
	}
}

func TestSessionTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := still()
		here, presence := map[uint64]string{}, &table{map[uint64]string{}}
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"online": func(t *rapid.T) {
				next++
				user := fmt.Sprint("u", rapid.IntRange(0, 5).Draw(t, "user"))
				here[next] = user
				m.Online(next, user)
				m.Online(next, user)
			},
			"gone": func(t *rapid.T) {
				if len(here) == 0 {
					return
				}
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(here))).Draw(t, "session")
				m.Gone(id, here[id], true)
				m.Gone(id, here[id], false)
				delete(here, id)
			},
			"send": func(t *rapid.T) { presence.take(m.own.take(rapid.IntRange(1, 4).Draw(t, "max"))) },
			"lose": func(t *rapid.T) { m.giveUp("test", nil) },
			"resync": func(t *rapid.T) {
				max := rapid.IntRange(1, 4).Draw(t, "max")
				for i := range api.PresenceShards {
					for _, req := range m.own.all("g", i, max) {
						maps.DeleteFunc(presence.held, func(id uint64, user string) bool {
							return api.PresenceShard(user) == i && id >= req.From && (req.To == 0 || id <= req.To)
						})
						presence.take(req.Sessions)
					}
				}
				var want [api.PresenceShards]api.ShardDigest
				for id, user := range presence.held {
					want[api.PresenceShard(user)].Add(id)
				}
				if m.own.digests() != want {
					t.Fatal("the digest after a resync differs")
				}
			},
			"": func(t *rapid.T) {
				rest := &table{maps.Clone(presence.held)}
				rest.take(slices.DeleteFunc(slices.Clone(m.own.queue), func(c api.SessionChange) bool { return c.ID == 0 }))
				var sum, want [api.PresenceShards]api.ShardDigest
				for id, user := range presence.held {
					want[api.PresenceShard(user)].Add(id)
				}
				sum = m.own.digests()
				if sum == want && !maps.Equal(rest.held, here) {
					t.Fatalf("equal digests, but presence would have %v instead of %v", rest.held, here)
				}
			},
		})
	})
}

func TestWatchAndUnwatchWhileThingsChange(t *testing.T) {
	m := still()
	ctx, cancel := context.WithCancel(context.Background())
	m.cfg.Batch = time.Millisecond
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); m.runFlushes(ctx) }()
	users := names("u", 40)
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range 60 {
				v := &viewer{t: t, name: users[i], online: map[string]bool{}, told: map[string]int{}}
				list := users[n%20 : n%20+20]
				if n%3 == 0 {
					list = nil
				}
				m.Watch(v, users[i], list, nil)
				m.announce(up(users[n%40]), down(users[(n+i)%40]))
				m.Unwatch(v)
			}
		}()
	}
	last := &viewer{t: t, name: "x", online: map[string]bool{}, told: map[string]int{}}
	m.Watch(last, "x", nil, nil)
	for _, u := range users {
		m.announce(up(u))
	}
	testx.Eventually(t, "everything is told", 10*time.Second, func() bool {
		for _, u := range users {
			m.announce(up(u))
		}
		return len(last.picture()) == len(users)*6-1
	})
	cancel()
	wg.Wait()
	if m.pairs != 0 || len(m.byUser) != 0 || len(m.byWatcher) != 1 {
		t.Fatalf("left behind: %d pairs, %d users, %d watchers", m.pairs, len(m.byUser), len(m.byWatcher))
	}
}

// pages is a service whose snapshots have two names a page and that changes between them.
type pages struct {
	names []string
	epoch string
	asked int
}

func (p *pages) snapshot(_ context.Context, req api.SnapshotRequest) (api.SnapshotResponse, error) {
	p.asked++
	rest := slices.DeleteFunc(slices.Clone(p.names), func(n string) bool { return n <= req.After })
	resp := api.SnapshotResponse{Epoch: p.epoch, Version: int64(p.asked), Online: rest[:min(2, len(rest))], More: len(rest) > 2}
	if p.asked == 1 {
		p.names = p.names[1:] // the first one leaves, after its page was read
	}
	return resp, nil
}

func TestSnapshotInPagesCountsAsOfTheFirst(t *testing.T) {
	m := still()
	users := []string{"a", "b", "c", "d", "e"}
	p := &pages{names: users, epoch: "e"}
	m.services = rpc.Caller{Timeout: time.Minute, Conn: rpc.Local(api.PresenceSnapshot.Handle(p.snapshot))}
	snap, err := m.snapshot(context.Background(), 0)
	if err != nil || !slices.Equal(snap.Online, users) || snap.Version != 1 || p.asked != 3 {
		t.Fatalf("%+v after %d pages: %v", snap, p.asked, err)
	}
	m.fetched(0, snap, nil)
	m.mu.Lock()
	m.event(api.Changes{Shard: 0, Epoch: "e", From: 1, List: []api.PresenceChange{down("a")}}, time.Now())
	m.mu.Unlock()
	if _, on := m.shards[0].online["a"]; on || len(m.shards[0].online) != 4 {
		t.Fatalf("online: %v", m.shards[0].online)
	}
}
