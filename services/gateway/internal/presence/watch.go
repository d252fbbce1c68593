package presence

import (
	"context"
	"sync"
	"sync/atomic"

	"parley.example/pkg/api"
)

// Watcher is told who is online. PresenceUpdate must not block, must not change or keep the slices (they are shared by all
// who get the same update), and must not call Watch. It is called in order, never twice at a time for one watcher; a call
// may still be under way when Unwatch returns.
//
// Online and offline are what changed; in a snapshot, online is everybody watched who is online, and what was said before is void. A partial
// one is of a list, and offline has all the others of that list: of who is not on it, it says nothing.
// While unknown is true, the state may have changed without notice; once it can be known, there is a snapshot: who heard that it is unknown
// need not remember anything.
type Watcher interface {
	PresenceUpdate(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool)
}

// watching is one watcher's entry.
type watching struct {
	// order is held while PresenceUpdate runs.
	order sync.Mutex
	// round counts Watch and Unwatch: an update made for an earlier round is void.
	round atomic.Uint64

	// The rest is guarded by Mirror.mu.
	w      Watcher
	self   string
	hidden map[string]struct{} // who is left out of everybody
	all    bool
	names  []string // indexed in byUser
	shards uint16   // those of names
	told   bool     // that it is unknown
	dirty  bool     // is in watchers.dirty
	from   int      // everybody: changes before this one of the batch are in the snapshot
	news   []api.PresenceChange
}

// watchers is guarded by Mirror.mu.
type watchers struct {
	byWatcher map[Watcher]*watching
	everybody map[*watching]struct{}
	byUser    map[string]*watchSet
	pairs     int
	batch     []api.PresenceChange // news for everybody
	dirty     []*watching          // with news of their own
	toldMask  uint16               // unknown, as of the last flush
}

func newWatchers() watchers {
	return watchers{
		byWatcher: map[Watcher]*watching{}, everybody: map[*watching]struct{}{}, byUser: map[string]*watchSet{},
		toldMask: 1<<api.PresenceShards - 1,
	}
}

// Watch tells w of the presence of names from now on (nil: of everybody but hidden), except of self: first, before it returns, a
// snapshot, then what changes. It replaces what w watched before. Do not hold a lock that PresenceUpdate takes.
func (m *Mirror) Watch(w Watcher, self string, names, hidden []string) {
	m.mu.Lock()
	e := m.byWatcher[w]
	if e == nil {
		e = &watching{w: w}
		m.byWatcher[w] = e
	}
	m.mu.Unlock()

	e.order.Lock()
	defer e.order.Unlock()
	m.mu.Lock()
	m.byWatcher[w] = e // Unwatch may have come between
	m.unindex(e)
	e.round.Add(1)
	e.self, e.all, e.news = self, names == nil, nil
	if e.all {
		m.everybody[e] = struct{}{}
		if len(hidden) > 0 {
			e.hidden = make(map[string]struct{}, len(hidden))
			for _, user := range hidden {
				e.hidden[user] = struct{}{}
			}
		}
		e.shards, e.from = 1<<api.PresenceShards-1, len(m.batch)
	} else {
		m.index(e, names)
	}
	online, offline := m.picture(e)
	e.told = m.unknown&e.shards != 0
	unknown, partial := e.told, !e.all
	m.mu.Unlock()
	w.PresenceUpdate(online, offline, unknown, true, partial)
}

// picture is who of those that e watches is online and, of a list, who is not. Mirror.mu is held.
func (m *Mirror) picture(e *watching) (online []string, offline []api.PresenceChange) {
	unknown := m.unknown&e.shards != 0
	if !e.all {
		for _, user := range e.names {
			if _, ok := m.shards[api.PresenceShard(user)].online[user]; ok {
				online = append(online, user)
			} else if !unknown {
				offline = append(offline, api.PresenceChange{User: user})
			}
		}
		return online, offline
	}
	for i := range m.shards {
		for user := range m.shards[i].online {
			if !e.skips(user) {
				online = append(online, user)
			}
		}
	}
	return online, nil
}

// skips reports whether a watcher of everybody is not told of user.
func (e *watching) skips(user string) bool {
	_, hidden := e.hidden[user]
	return hidden || user == e.self
}

// skipsAny reports whether that is so for any of users.
func (e *watching) skipsAny(users map[string]struct{}) bool {
	if _, ok := users[e.self]; ok {
		return true
	}
	for user := range e.hidden {
		if _, ok := users[user]; ok {
			return true
		}
	}
	return false
}

// Unwatch ends what Watch began.
func (m *Mirror) Unwatch(w Watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byWatcher[w]; e != nil {
		e.round.Add(1)
		m.unindex(e)
		delete(m.byWatcher, w)
	}
}

func (m *Mirror) index(e *watching, names []string) {
	seen := make(map[string]struct{}, len(names))
	e.names = make([]string, 0, len(names))
	for _, user := range names {
		if _, twice := seen[user]; twice || user == e.self || user == "" {
			continue
		}
		seen[user] = struct{}{}
		e.names = append(e.names, user)
		set := m.byUser[user]
		if set == nil {
			set = &watchSet{}
			m.byUser[user] = set
		}
		set.add(e)
		e.shards |= 1 << api.PresenceShard(user)
	}
	m.pairs += len(e.names)
}

func (m *Mirror) unindex(e *watching) {
	delete(m.everybody, e)
	for _, user := range e.names {
		set := m.byUser[user]
		if set.remove(e); set.empty() {
			delete(m.byUser, user)
		}
	}
	m.pairs -= len(e.names)
	e.all, e.names, e.hidden, e.shards, e.news, e.from = false, nil, nil, 0, nil, 0
}

// note keeps a change for those who watch its user, and reports whether there is anybody.
func (m *Mirror) note(c api.PresenceChange) bool {
	any := false
	if len(m.everybody) > 0 {
		m.batch = append(m.batch, c)
		any = true
	}
	if set := m.byUser[c.User]; set != nil {
		any = true
		set.each(func(e *watching) {
			e.news = append(e.news, c)
			if !e.dirty {
				e.dirty = true
				m.dirty = append(m.dirty, e)
			}
		})
	}
	return any
}

// update is one call of PresenceUpdate to be made.
type update struct {
	e        *watching
	round    uint64
	online   []string
	offline  []api.PresenceChange
	unknown  bool
	snapshot bool
	partial  bool
}

// runFlushes tells watchers, a moment after the first change of a batch.
func (m *Mirror) runFlushes(ctx context.Context) {
	var list []update // reused
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.flushes:
		}
		if !pause(ctx, m.cfg.Batch) {
			return
		}
		list = m.collect(list[:0])
		for i := range list {
			u := &list[i]
			u.e.order.Lock()
			if u.e.round.Load() == u.round {
				u.e.w.PresenceUpdate(u.online, u.offline, u.unknown, u.snapshot, u.partial)
			}
			u.e.order.Unlock()
			*u = update{}
		}
		if cap(list) > 1<<16 {
			list = nil
		}
	}
}

// collect takes all news. Every watcher of everybody gets the same two slices, unless it is in them itself or came in between.
func (m *Mirror) collect(list []update) []update {
	m.mu.Lock()
	defer m.mu.Unlock()
	batch, dirty := m.batch, m.dirty
	m.batch, m.dirty = nil, nil
	masks := m.unknown != m.toldMask
	m.toldMask = m.unknown

	if len(batch) > 0 || masks {
		shared := reduce(batch, nil)
		in := make(map[string]struct{}, len(batch))
		for _, c := range batch {
			in[c.User] = struct{}{}
		}
		for e := range m.everybody {
			news := shared
			if e.from > 0 {
				news = reduce(batch[e.from:], e.skips)
				e.from = 0
			} else if e.skipsAny(in) {
				news = reduce(batch, e.skips)
			}
			list = m.update(list, e, news)
		}
	}
	for _, e := range dirty {
		e.dirty = false
		if len(e.news) > 0 {
			news := reduce(e.news, nil)
			e.news = nil
			list = m.update(list, e, news)
		}
	}
	if masks {
		for _, e := range m.byWatcher {
			if !e.all {
				list = m.update(list, e, net{})
			}
		}
	}
	return list
}

// update adds a call for e unless it would say nothing new.
func (m *Mirror) update(list []update, e *watching, n net) []update {
	unknown := m.unknown&e.shards != 0
	if len(n.online) == 0 && len(n.offline) == 0 && unknown == e.told {
		return list
	}
	u := update{e: e, round: e.round.Load(), online: n.online, offline: n.offline, unknown: unknown}
	if e.told && !unknown {
		online, offline := m.picture(e)
		u.online, u.snapshot, u.partial = online, true, !e.all
		if u.partial {
			u.offline = since(offline, n.offline)
		}
	}
	e.told = unknown
	return append(list, u)
}

// since puts in when those of offline left who did so just now.
func since(offline, left []api.PresenceChange) []api.PresenceChange {
	at := make(map[string]int64, len(left))
	for _, c := range left {
		at[c.User] = c.LastSeen
	}
	for i := range offline {
		offline[i].LastSeen = at[offline[i].User]
	}
	return offline
}
