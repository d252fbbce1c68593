package presence

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.example/pkg/api"
)

// maxQueue is how many changes may wait while presence is slow; with more, the shards are compared and sent as a whole.
const maxQueue = 20_000

// runSender tells presence of sessions that came and went, in batches, one at a time.
func (m *Mirror) runSender(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.send:
		}
		if !pause(ctx, m.cfg.Collect) {
			return
		}
		for m.tell(ctx) {
		}
	}
}

// tell sends one batch and one shard that presence asked for; it reports whether there may be more.
func (m *Mirror) tell(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-m.turn:
	}
	defer func() { m.turn <- struct{}{} }()
	more := false
	if m.own.pending() > maxQueue {
		m.giveUp("too many at once", nil)
	}
	if list := m.own.take(api.PresenceSessionsMax); len(list) > 0 {
		more = true
		call, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		_, err := api.PresenceSessions.Call(call, m.services, api.SessionsRequest{Gateway: m.cfg.Gateway, Changes: list})
		cancel()
		if err != nil {
			m.giveUp("presence does not answer", err)
		}
	}
	if shard := m.own.nextResync(); shard >= 0 {
		more = true
		m.m.resyncs.Inc()
		m.register(ctx, shard)
	}
	return more && ctx.Err() == nil
}

// register sends a shard as a whole. If it fails, the next heartbeat will ask again.
func (m *Mirror) register(ctx context.Context, shard int) {
	for _, req := range m.own.all(m.cfg.Gateway, shard, api.PresenceResyncMax) {
		call, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		_, err := api.PresenceResync.Call(call, m.services, req)
		cancel()
		if err != nil {
			m.log.Debug("a shard was not sent again", "shard", shard, "error", err)
			return
		}
	}
	if m.own.registered(shard) {
		wake(m.beats) // presence may wait for us
	}
}

// giveUp drops what waits: the digests of the next heartbeat will differ, and presence will ask for everything.
func (m *Mirror) giveUp(why string, err error) {
	n := len(m.own.take(int(^uint(0) >> 1)))
	m.log.Debug("changes of sessions are left to the next comparison", "why", why, "dropped", n, "error", err)
}

// runBeats sends a heartbeat every so often, sooner after a failure.
func (m *Mirror) runBeats(ctx context.Context) {
	for {
		next := m.cfg.Heartbeat - rand.N(m.cfg.Heartbeat/10+1) // jitter, so that gateways do not fall into step
		if err := m.beat(ctx); err != nil {
			next = m.cfg.Heartbeat / 5
			m.log.Debug("a heartbeat failed", "error", err)
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-m.beats:
			t.Stop()
			// The shards of one Redis lose their data together: wait a moment for the others.
			if !pause(ctx, m.cfg.Heartbeat/30) {
				return
			}
		}
	}
}

// beat sends one heartbeat. Digests count only while no change is under way, so it waits for its turn; but not
// for long, because the lease is more important.
func (m *Mirror) beat(ctx context.Context) error {
	req := api.HeartbeatRequest{Gateway: m.cfg.Gateway}
	wait := time.NewTimer(m.cfg.Heartbeat / 3)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.turn:
		defer func() { m.turn <- struct{}{} }()
	case <-wait.C:
		req.RenewOnly = true
	}
	req.Digests = m.own.digests()
	m.seen(&req)
	call, cancel := context.WithTimeout(ctx, m.cfg.BeatTimeout)
	defer cancel()
	resp, err := api.PresenceHeartbeat.Call(call, m.services, req)
	if err != nil {
		return err
	}
	var mask uint16
	for i, st := range resp.Shards {
		if st.Resync {
			mask |= 1 << i
		}
	}
	if !req.RenewOnly {
		m.own.compared(mask)
	}
	if mask != 0 {
		wake(m.send)
	}
	m.heard(resp)
	return nil
}

// goodbye says that all sessions here are lost: their users have their grace to connect elsewhere.
func (m *Mirror) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	var g errgroup.Group
	for i := range api.PresenceShards {
		if m.own.holds(i) {
			// If it fails, the lease runs out.
			g.Go(func() error {
				_, err := api.PresenceResync.Call(ctx, m.services, api.ResyncRequest{Gateway: m.cfg.Gateway, Shard: i})
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		m.log.Info("presence was not told that this gateway stops; its lease runs out instead", "error", err)
	}
}
