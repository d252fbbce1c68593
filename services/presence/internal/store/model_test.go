package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"

	"parley.example/pkg/api"
)

// model says in plain Go what the scripts should do to one shard.
type model struct {
	cfg      Config
	now, at  int64
	beats    map[string]int64
	sessions map[string]map[uint64]string // gateway → session → user
	gone     map[string]map[uint64]bool
	grace    map[string]int64
	seen     map[string]int64
}

func (m *model) reset() {
	m.beats, m.sessions, m.gone = map[string]int64{}, map[string]map[uint64]string{}, map[string]map[uint64]bool{}
	m.grace = map[string]int64{}
	m.at = m.now
}

func (m *model) touch(g string) {
	if m.sessions[g] == nil {
		m.sessions[g], m.gone[g] = map[uint64]string{}, map[uint64]bool{}
	}
}

// begin is what every script does first.
func (m *model) begin() {
	d := m.now - m.at
	if gap := m.cfg.Lease.Milliseconds() * 2 / 5; d > gap || -d > gap {
		for g := range m.beats {
			m.beats[g] += d
		}
		for u := range m.grace {
			m.grace[u] += d
		}
	}
	m.at = m.now
}

func (m *model) here(user string) bool {
	for _, held := range m.sessions {
		for _, u := range held {
			if u == user {
				return true
			}
		}
	}
	return false
}

func (m *model) leave(user string, last int64, deliberate bool) {
	switch {
	case m.here(user):
	case deliberate || last+m.cfg.Grace.Milliseconds() <= m.now:
		m.seen[user] = last
	default:
		m.grace[user] = last
	}
}

func (m *model) add(g string, id uint64, user string) {
	if !m.gone[g][id] && m.sessions[g][id] == "" {
		m.sessions[g][id] = user
		delete(m.grace, user)
	}
}

func (m *model) apply(g string, list []api.SessionChange) {
	m.begin()
	m.touch(g)
	for _, c := range list {
		if !c.Gone {
			m.add(g, c.ID, c.User)
			m.beats[g] = m.now
		} else if !m.gone[g][c.ID] {
			m.gone[g][c.ID] = true
			if user := m.sessions[g][c.ID]; user != "" {
				delete(m.sessions[g], c.ID)
				m.leave(user, m.now, c.Deliberate)
			}
		}
	}
}

func (m *model) beat(g string, held []api.SessionChange) (resync bool) {
	m.begin()
	m.touch(g)
	m.beats[g] = m.now
	same := len(held) == len(m.sessions[g])
	for _, c := range held {
		same = same && m.sessions[g][c.ID] != ""
	}
	return !same
}

func (m *model) resync(g string, list []api.SessionChange) {
	m.begin()
	m.touch(g)
	named := map[uint64]bool{}
	for _, c := range list {
		named[c.ID] = true
		m.add(g, c.ID, c.User)
	}
	for id, user := range m.sessions[g] {
		if !named[id] {
			delete(m.sessions[g], id)
			m.leave(user, m.now, false)
		}
	}
	m.beats[g] = m.now
}

func (m *model) tick() {
	m.begin()
	for user, last := range m.grace {
		if last+m.cfg.Grace.Milliseconds() <= m.now {
			delete(m.grace, user)
			m.seen[user] = last
		}
	}
	for g, beat := range m.beats {
		if beat+m.cfg.Lease.Milliseconds() > m.now {
			continue
		}
		held := m.sessions[g]
		delete(m.sessions, g)
		delete(m.gone, g)
		delete(m.beats, g)
		for _, user := range held {
			m.leave(user, beat, false)
		}
	}
}

func (m *model) online() []string {
	set := map[string]bool{}
	for _, held := range m.sessions {
		for _, u := range held {
			set[u] = true
		}
	}
	for u := range m.grace {
		set[u] = true
	}
	list := []string{}
	for u := range set {
		list = append(list, u)
	}
	sort.Strings(list)
	return list
}

// usersOf are names that fall into one shard, so that every call passes the model's one clock.
func usersOf(shard, n int) []string {
	var list []string
	for i := 0; len(list) < n; i++ {
		if u := fmt.Sprintf("u%d", i); api.PresenceShard(u) == shard {
			list = append(list, u)
		}
	}
	return list
}

func TestModelScriptsDoWhatItDoes(t *testing.T) {
	redis := miniredis.RunT(t)
	rdb := client(t, redis.Addr())
	const shard = 3
	users := usersOf(shard, 4)
	gateways := []string{"g1", "g2", "g3"}
	// Digests tell random ids apart, not such as 1, 2, 3.
	ids := make([]uint64, 12)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(ids); i++ {
		ids[i] = r.Uint64()
	}
	rapid.Check(t, func(rt *rapid.T) {
		redis.FlushAll()
		ctx := context.Background()
		cfg := Config{Lease: 5 * time.Second, Grace: 5 * time.Second, Forget: time.Hour, LastSeen: 1000 * time.Hour}
		if rapid.Bool().Draw(rt, "longer grace") {
			cfg.Grace = 8 * time.Second
		}
		m := &model{cfg: cfg, now: 1_700_000_000_000, seen: map[string]int64{}}
		m.reset()
		redis.SetTime(time.UnixMilli(m.now))
		w := &world{t: failer{rt, t}, rdb: rdb, events: map[string][]api.PresenceChange{}, online: map[string]bool{}}
		w.replicas = [2]*Store{New(rdb, cfg), New(rdb, cfg)}
		for _, r := range w.replicas {
			r.shards = []int{shard}
		}

		// An id belongs to one user for ever.
		session := rapid.Custom(func(rt *rapid.T) api.SessionChange {
			i := rapid.IntRange(0, len(ids)-1).Draw(rt, "session")
			return api.SessionChange{ID: ids[i], User: users[i%len(users)]}
		})
		sessions := rapid.SliceOfNDistinct(session, 0, 5, func(c api.SessionChange) uint64 { return c.ID })
		gateway := func() string { return rapid.SampledFrom(gateways).Draw(rt, "gateway") }

		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				g, list := gateway(), []api.SessionChange{}
				for range rapid.IntRange(1, 4).Draw(rt, "n") {
					c := session.Draw(rt, "change")
					c.Gone, c.Deliberate = rapid.Bool().Draw(rt, "gone"), rapid.Bool().Draw(rt, "deliberate")
					list = append(list, c)
				}
				w.apply(g, list...)
				m.apply(g, list)
			},
			"beat": func(rt *rapid.T) {
				g, held := gateway(), sessions.Draw(rt, "held")
				if got, want := w.beat(g, held...).Shards[shard].Resync, m.beat(g, held); got != want {
					rt.Fatalf("resync %v, want %v", got, want)
				}
			},
			"resync": func(rt *rapid.T) {
				g, list := gateway(), sessions.Draw(rt, "list")
				w.take(w.next().Resync(ctx, api.ResyncRequest{Gateway: g, Shard: shard, Sessions: list}))
				m.resync(g, list)
			},
			"time passes": func(rt *rapid.T) {
				// Also an outage, and a server whose clock is behind.
				m.now += rapid.SampledFrom([]int64{1, 400, 1000, 1900, 2000, 2001, 60_000, -500, -30_000}).Draw(rt, "ms")
				redis.SetTime(time.UnixMilli(m.now))
				w.tick()
				m.tick()
			},
			"flush": func(rt *rapid.T) {
				redis.FlushAll()
				w.tick()
				m.seen = map[string]int64{}
				m.reset()
				w.online = map[string]bool{} // watchers compare with a snapshot
			},
			"": func(rt *rapid.T) {
				// world checks that versions are dense and that events alternate.
				if got, want := w.snapshot(), m.online(); !slices.Equal(got, want) {
					rt.Fatalf("online %v, want %v", got, want)
				}
				m.begin()
				for u, on := range w.online {
					if on != slices.Contains(m.online(), u) {
						rt.Fatalf("%s was announced online=%v", u, on)
					}
				}
				seen, res, err := w.next().LastSeen(ctx, users)
				w.take(res, err)
				for i, u := range users {
					want := m.seen[u]
					if slices.Contains(m.online(), u) {
						want = m.now
					}
					if seen[i] != want {
						rt.Fatalf("%s was last seen at %d, want %d", u, seen[i], want)
					}
				}
			},
		})
	})
}

// failer lets world fail the drawn case instead of the whole test.
type failer struct {
	*rapid.T
	t *testing.T
}

func (f failer) Cleanup(func())  { panic("not used") }
func (f failer) TempDir() string { return f.t.TempDir() }
