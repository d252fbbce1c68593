// Package presence is the gateway's side of presence: it tells the presence service of the sessions here, keeps a mirror of
// who is online, and tells watchers what changes.
//
// Locks: watching.mu (one watcher's order of updates) → Mirror.mu (the mirror and the watchers) ; own.mu is a leaf. No
// call to NATS is made under any of them, and PresenceUpdate is called under watching.mu only.
package presence

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
)

// Subscriber brings events. f must not block.
type Subscriber interface {
	Subscribe(subject string, f func(body []byte)) (unsubscribe func(), err error)
}

// Config has the mirror's times. A zero field means the default; only tests need others.
type Config struct {
	Gateway      string        // unique per process start; default random
	Heartbeat    time.Duration // 1.5 s; the service's lease must be three times as long
	UnknownAfter time.Duration // without an answer to a heartbeat presence is unknown; 6 s
	Collect      time.Duration // how long sessions that come and go are collected; 20 ms
	Batch        time.Duration // how long changes for watchers are collected; 50 ms
	Patience     time.Duration // how long a change may be overtaken by a later one before it counts as lost; 200 ms
	Timeout      time.Duration // of one request; 2 s
	BeatTimeout  time.Duration // of a heartbeat: two that fall to a replica which stands still must not cost the lease; 1.2 s
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Gateway == "" {
		c.Gateway = rand.Text()
	}
	set(&c.Heartbeat, 1500*time.Millisecond)
	set(&c.UnknownAfter, 6*time.Second)
	set(&c.Collect, 20*time.Millisecond)
	set(&c.Batch, 50*time.Millisecond)
	set(&c.Patience, 200*time.Millisecond)
	set(&c.Timeout, 2*time.Second)
	set(&c.BeatTimeout, 1200*time.Millisecond)
}

// Mirror is a gateway's presence. All its methods are safe for concurrent use.
type Mirror struct {
	services rpc.Caller
	sub      Subscriber
	cfg      Config
	log      *slog.Logger
	m        metrics

	own   own
	turn  chan struct{} // holds one token: who has it may tell presence of sessions or compare digests
	send  chan struct{} // there are sessions to tell of, or shards to resync
	beats chan struct{} // do not wait for the next heartbeat

	events  chan api.Changes
	fetches chan int      // shards to fetch a snapshot of; each at most once, so this never blocks
	flushes chan struct{} // there is something for watchers

	mu       sync.RWMutex
	shards   [api.PresenceShards]shard
	unknown  uint16 // bit per shard
	lastBeat time.Time
	watchers
}

// New makes a mirror. Nothing happens before Run.
func New(services rpc.Caller, sub Subscriber, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Mirror {
	cfg.defaults()
	m := &Mirror{
		services: services, sub: sub, cfg: cfg, log: log,
		turn: make(chan struct{}, 1), send: make(chan struct{}, 1), beats: make(chan struct{}, 1),
		// Some seconds of events of a large system; one that does not fit shows as a gap.
		events: make(chan api.Changes, 1024), fetches: make(chan int, api.PresenceShards), flushes: make(chan struct{}, 1),
		unknown: 1<<api.PresenceShards - 1, watchers: newWatchers(),
	}
	m.turn <- struct{}{}
	m.own.init()
	for i := range m.shards {
		m.shards[i].online = map[string]struct{}{}
	}
	m.m = newMetrics(m, reg)
	return m
}

// Run keeps the mirror until ctx ends, then tells presence that all sessions here are lost. It fails only if it cannot
// subscribe, which means that the connection was closed.
func (m *Mirror) Run(ctx context.Context) error {
	unsubscribe, err := m.sub.Subscribe(subject.PresencePrefix+"*", m.receive)
	if err != nil {
		return fmt.Errorf("follow presence: %w", err)
	}
	defer unsubscribe()
	g, gctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context){m.runBeats, m.runSender, m.runEvents, m.runFlushes, m.runFetches, m.runFetches} {
		g.Go(func() error { part(gctx); return nil })
	}
	_ = g.Wait() // none of them fails
	m.goodbye(context.WithoutCancel(ctx))
	return nil
}

// receive is called by NATS.
func (m *Mirror) receive(body []byte) {
	var ch api.Changes
	if err := json.Unmarshal(body, &ch); err != nil || ch.Shard < 0 || ch.Shard >= api.PresenceShards {
		m.log.Warn("an event of presence could not be read", "error", err)
		return
	}
	select {
	case m.events <- ch:
	default: // shows as a gap
	}
}

// IsOnline reports whether a user is online, as far as known.
func (m *Mirror) IsOnline(user string) (online, known bool) {
	s := api.PresenceShard(user)
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, online = m.shards[s].online[user]
	return online, m.unknown&(1<<s) == 0
}

// OnlineUsers are users who are online, most of them when there are more, in no order; known is false while some of it cannot be known.
func (m *Mirror) OnlineUsers(most int) (users []string, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range m.shards {
		for u := range m.shards[i].online {
			if len(users) == most {
				return users, m.unknown == 0
			}
			users = append(users, u)
		}
	}
	return users, m.unknown == 0
}

// wake leaves one token in a channel of capacity one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
