package presence

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"parley.example/pkg/api"
)

// shard is the mirror of one shard. The state that watchers were told of (online) stays while the shard is unknown;
// when it is known again, only the differences are news.
type shard struct {
	epoch    string
	version  int64
	online   map[string]struct{}
	synced   bool // epoch, version and online are the service's, nothing missing in between
	settling bool // the service said so
	fetching bool
	early    []api.Changes // wait for what comes before them, or for a snapshot
	target   int64         // the service has at least this version of the epoch
	late     time.Time     // since when something is missing; zero: nothing
	retry    time.Time     // not before
}

// maxEarly bounds the batches that wait; the snapshot that ends the waiting has what is dropped, or shows a gap again.
const maxEarly = 256

func (s *shard) isLate(now time.Time) {
	if s.late.IsZero() {
		s.late = now
	}
}

// runEvents takes what NATS brought, and looks after gaps and silence.
func (m *Mirror) runEvents(ctx context.Context) {
	tick := time.NewTicker(max(m.cfg.Patience/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ch := <-m.events:
			m.mu.Lock()
			m.event(ch, time.Now())
			m.mu.Unlock()
		case now := <-tick.C:
			m.mu.Lock()
			m.check(now)
			m.mu.Unlock()
		}
	}
}

// event takes one batch. m.mu is held.
func (m *Mirror) event(ch api.Changes, now time.Time) {
	s := &m.shards[ch.Shard]
	switch {
	case ch.Settling:
		if ch.Epoch != s.epoch {
			m.settle(ch.Shard, now)
			wake(m.beats) // register again at once
		}
	case len(ch.List) == 0:
		if ch.Epoch != s.epoch || !s.synced {
			if !s.settling {
				wake(m.beats)
			}
			s.settling = false
			m.fetch(ch.Shard, now)
		}
	case s.settling:
		// Of the epoch that ended, or so young that the snapshot will have it.
	case !s.synced:
		s.early = keepEarly(s.early, ch)
	case ch.Epoch != s.epoch:
		m.fetch(ch.Shard, now)
		s.early = keepEarly(s.early, ch)
	case ch.From > s.version:
		s.early = keepEarly(s.early, ch)
		s.isLate(now)
	default:
		m.apply(ch)
		m.drain(ch.Shard)
	}
}

func keepEarly(early []api.Changes, ch api.Changes) []api.Changes {
	if len(early) < maxEarly {
		return append(early, ch)
	}
	return early
}

// apply takes what is new in a batch that does not begin after the mirror's version.
func (m *Mirror) apply(ch api.Changes) {
	s := &m.shards[ch.Shard]
	known := s.version - ch.From
	if known >= int64(len(ch.List)) {
		return
	}
	for _, c := range ch.List[known:] {
		m.change(ch.Shard, c)
	}
	s.version = ch.From + int64(len(ch.List))
}

// drain applies the early batches whose turn has come.
func (m *Mirror) drain(i int) {
	s := &m.shards[i]
	slices.SortFunc(s.early, func(a, b api.Changes) int { return int(a.From - b.From) })
	rest := s.early[:0]
	for _, ch := range s.early {
		switch {
		case ch.Epoch != s.epoch:
		case ch.From <= s.version:
			m.apply(ch)
		default:
			rest = append(rest, ch)
		}
	}
	if s.early = rest; len(rest) == 0 {
		s.early = nil
		if s.version >= s.target {
			s.late = time.Time{}
			m.know(i)
		}
	}
}

// change is one user's change; it is news only if it is one.
func (m *Mirror) change(i int, c api.PresenceChange) {
	online := m.shards[i].online
	if _, ok := online[c.User]; ok == c.Online {
		return
	}
	if c.Online {
		online[c.User] = struct{}{}
	} else {
		delete(online, c.User)
	}
	if m.note(c) {
		wake(m.flushes)
	}
}

// know makes a shard known, if heartbeats are answered and nothing is missing.
func (m *Mirror) know(i int) {
	s := &m.shards[i]
	if s.synced && s.late.IsZero() && !s.settling && !m.lastBeat.IsZero() && time.Since(m.lastBeat) <= m.cfg.UnknownAfter {
		m.mark(i, false)
	}
}

func (m *Mirror) mark(i int, unknown bool) {
	mask := m.unknown &^ (1 << i)
	if unknown {
		mask |= 1 << i
	}
	if mask != m.unknown {
		m.unknown = mask
		wake(m.flushes)
	}
}

// settle waits for a new epoch to settle.
func (m *Mirror) settle(i int, now time.Time) {
	s := &m.shards[i]
	s.settling, s.synced, s.early, s.target = true, false, nil, 0
	s.isLate(now)
	m.mark(i, true)
}

// fetch asks for a snapshot. Until it is here, events wait. Who was silent for long may have lost its lease: it hears the answer to a
// heartbeat, and registers what is missing, before it believes a snapshot, or it would tell that its own users have gone; check
// tries again.
func (m *Mirror) fetch(i int, now time.Time) {
	s := &m.shards[i]
	s.synced = false
	s.isLate(now)
	if m.own.isAbsent(i) || now.Sub(m.lastBeat) > 2*m.cfg.Heartbeat {
		return
	}
	if !s.fetching && !now.Before(s.retry) {
		s.fetching = true
		m.fetches <- i // has room for every shard
	}
}

// check looks after what has no event of its own.
func (m *Mirror) check(now time.Time) {
	silent := now.Sub(m.lastBeat) > m.cfg.UnknownAfter
	for i := range m.shards {
		s := &m.shards[i]
		if silent || !s.late.IsZero() && now.Sub(s.late) > m.cfg.UnknownAfter {
			m.mark(i, true)
		}
		if !s.settling && !s.late.IsZero() && now.Sub(s.late) > m.cfg.Patience {
			m.fetch(i, now)
		}
	}
}

// seen writes what the mirror has into a heartbeat.
func (m *Mirror) seen(req *api.HeartbeatRequest) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range m.shards {
		if s := &m.shards[i]; s.synced {
			req.Digests[i].Epoch, req.Digests[i].Version = s.epoch, s.version
		}
	}
}

// heard takes the answer to a heartbeat.
func (m *Mirror) heard(resp api.HeartbeatResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.lastBeat = now
	for i, st := range resp.Shards {
		s := &m.shards[i]
		switch {
		case st.Settling:
			m.settle(i, now)
			continue
		case !s.synced || s.epoch != st.Epoch:
			s.settling = false
			m.fetch(i, now)
			continue
		case st.Version > s.version:
			// Its event is under way, or lost: patience decides.
			s.target = max(s.target, st.Version)
			s.isLate(now)
			continue
		}
		m.know(i)
	}
}

// runFetches gets snapshots.
func (m *Mirror) runFetches(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case i := <-m.fetches:
			snap, err := m.snapshot(ctx, i)
			m.fetched(i, snap, err)
		}
	}
}

var errPages = errors.New("the epoch changed between two pages of a snapshot")

// snapshot gets all pages. It counts as of the first page's version: what happened since is applied once more.
func (m *Mirror) snapshot(ctx context.Context, shard int) (api.SnapshotResponse, error) {
	var all api.SnapshotResponse
	req := api.SnapshotRequest{Shard: shard}
	for {
		call, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		page, err := api.PresenceSnapshot.Call(call, m.services, req)
		cancel()
		switch {
		case err != nil:
			return all, err
		case req.After == "":
			all = page
		case page.Epoch != all.Epoch:
			return all, errPages
		default:
			all.Online = append(all.Online, page.Online...)
		}
		if !page.More || len(page.Online) == 0 {
			return all, nil
		}
		req.After = page.Online[len(page.Online)-1]
	}
}

// fetched takes a snapshot: the differences from what watchers know are changes.
func (m *Mirror) fetched(i int, snap api.SnapshotResponse, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	s := &m.shards[i]
	s.fetching = false
	if err != nil {
		m.log.Debug("no snapshot of presence", "shard", i, "error", err)
		// Not all gateways at once.
		s.retry = now.Add(m.cfg.Patience + rand.N(m.cfg.Patience+1))
		return
	}
	m.m.snapshots.Inc()
	if snap.Settling {
		m.settle(i, now)
		return
	}
	if m.own.isAbsent(i) {
		s.isLate(now)
		return // see fetch
	}
	online := make(map[string]struct{}, len(snap.Online))
	for _, user := range snap.Online {
		online[user] = struct{}{}
	}
	for user := range s.online {
		if _, ok := online[user]; !ok {
			m.change(i, api.PresenceChange{User: user})
		}
	}
	for user := range online {
		m.change(i, api.PresenceChange{User: user, Online: true})
	}
	s.epoch, s.version, s.synced, s.settling, s.late = snap.Epoch, snap.Version, true, false, time.Time{}
	s.target = 0
	m.drain(i)
	if len(s.early) > 0 {
		s.isLate(now)
	}
}
