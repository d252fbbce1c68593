// Package announce answers the gateways' requests, lets time pass in the store, and publishes what changes.
package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/services/presence/internal/store"
)

// Core is one replica's work between the store and NATS.
type Core struct {
	store   *store.Store
	publish func(subject string, body []byte) error
	hear    func(context.Context) error
	times   Times
	log     *slog.Logger
	lastOK  atomic.Int64          // Unix ns of the last tick that worked in all shards
	why     atomic.Pointer[error] // the last one did not; nil: it did
	m       metrics
}

// Times of a Core.
type Times struct {
	Tick  time.Duration // between two looks at what runs out
	Lease time.Duration // as the store has it
}

// New makes a Core that publishes with publish. hear returns nil when NATS has just answered.
func New(st *store.Store, publish func(string, []byte) error, hear func(context.Context) error, times Times, log *slog.Logger, reg *prometheus.Registry) *Core {
	c := &Core{store: st, publish: publish, hear: hear, times: times, log: log, m: newMetrics(reg)}
	begun := time.Now()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_presence_reaper_idle_seconds",
		Help: "Since what had run out was last looked for in all shards; above a few seconds, people may stay online who are gone."}, func() float64 {
		if at := c.lastOK.Load(); at > 0 {
			return time.Since(time.Unix(0, at)).Seconds()
		}
		return time.Since(begun).Seconds()
	}))
	return c
}

// Handlers are the requests of the contract.
func (c *Core) Handlers() []rpc.Handler {
	return []rpc.Handler{
		api.PresenceSessions.Handle(c.sessions),
		api.PresenceHeartbeat.Handle(c.heartbeat),
		api.PresenceResync.Handle(c.resync),
		api.PresenceSnapshot.Handle(c.snapshot),
		api.PresenceLastSeen.Handle(c.lastSeen),
	}
}

// requestTime bounds a request: the gateway has stopped waiting, and a late word only confuses.
const requestTime = 2 * time.Second

func (c *Core) sessions(ctx context.Context, req api.SessionsRequest) (api.Empty, error) {
	if err := check(req.Gateway, len(req.Changes), api.PresenceSessionsMax, req.Changes); err != nil {
		return api.Empty{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	res, err := c.store.Apply(ctx, req)
	return api.Empty{}, c.done("sessions", res, err)
}

func (c *Core) heartbeat(ctx context.Context, req api.HeartbeatRequest) (api.HeartbeatResponse, error) {
	if err := check(req.Gateway, 0, 0, nil); err != nil {
		return api.HeartbeatResponse{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, res, err := c.store.Heartbeat(ctx, req)
	return resp, c.done("heartbeat", res, err)
}

func (c *Core) resync(ctx context.Context, req api.ResyncRequest) (api.Empty, error) {
	if err := check(req.Gateway, len(req.Sessions), api.PresenceResyncMax, req.Sessions); err != nil {
		return api.Empty{}, err
	}
	if req.Shard < 0 || req.Shard >= api.PresenceShards {
		return api.Empty{}, errShard
	}
	for _, s := range req.Sessions {
		if api.PresenceShard(s.User) != req.Shard {
			return api.Empty{}, wire.E(wire.InvalidArgument, "a user is not of this shard")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	res, err := c.store.Resync(ctx, req)
	return api.Empty{}, c.done("resync", res, err)
}

func (c *Core) snapshot(ctx context.Context, req api.SnapshotRequest) (api.SnapshotResponse, error) {
	if req.Shard < 0 || req.Shard >= api.PresenceShards {
		return api.SnapshotResponse{}, errShard
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, res, err := c.store.Snapshot(ctx, req.Shard, req.After, api.PresencePageBytes)
	return resp, c.done("snapshot", res, err)
}

func (c *Core) lastSeen(ctx context.Context, req api.LastSeenRequest) (api.LastSeenResponse, error) {
	if len(req.Users) > api.PresenceLastSeenMax {
		return api.LastSeenResponse{}, errTooMany
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	list, res, err := c.store.LastSeen(ctx, req.Users)
	return api.LastSeenResponse{LastSeen: list}, c.done("last_seen", res, err)
}

var (
	errShard   = wire.E(wire.InvalidArgument, "there is no such shard")
	errTooMany = wire.E(wire.InvalidArgument, "too many entries in one request")
)

// maxGateway bounds the name of a gateway, which becomes part of Redis keys.
const maxGateway = 100

func check(gateway string, n, limit int, list []api.SessionChange) error {
	if gateway == "" || len(gateway) > maxGateway {
		return wire.E(wire.InvalidArgument, "a gateway's name has 1 to 100 bytes")
	}
	if n > limit {
		return errTooMany
	}
	for _, s := range list {
		if s.ID == 0 || s.User == "" {
			return wire.E(wire.InvalidArgument, "a session has an id and a user")
		}
	}
	return nil
}

// done announces what happened, also when some shards failed, and turns the store's failure into the contract's.
func (c *Core) done(op string, results []store.Result, err error) error {
	for _, r := range results {
		c.announce(r)
	}
	if err != nil {
		c.m.failures.WithLabelValues(op).Inc()
		c.log.Warn("redis failed", "operation", op, "error", err)
		return wire.E(wire.Unavailable, "presence cannot be known now; try again later")
	}
	return nil
}

// announce publishes the changes of one script. A batch that is lost, or never sent because this process dies now, leaves
// a gap in the versions, which gateways see in the next batch or heartbeat.
func (c *Core) announce(r store.Result) {
	switch {
	case r.New:
		c.m.epochs.Inc()
		c.log.Warn("a shard begins a new epoch: it is new, or Redis lost data", "shard", r.Shard, "epoch", r.Epoch)
	case r.Settled:
		c.log.Info("a shard has settled", "shard", r.Shard, "epoch", r.Epoch)
	}
	if r.New || r.Settled {
		c.send(api.Changes{Shard: r.Shard, Epoch: r.Epoch, From: r.From, Settling: r.Settling})
	}
	for from := r.From; len(r.Changes) > 0; {
		n := min(len(r.Changes), api.PresenceListMax)
		c.send(api.Changes{Shard: r.Shard, Epoch: r.Epoch, From: from, List: r.Changes[:n]})
		from, r.Changes = from+int64(n), r.Changes[n:]
		c.m.changes.Add(float64(n))
	}
}

func (c *Core) send(ch api.Changes) {
	body, err := json.Marshal(ch)
	if err == nil {
		err = c.publish(subject.PresencePrefix+strconv.Itoa(ch.Shard), body)
	}
	if err != nil {
		c.m.unsent.Inc()
		c.log.Warn("a batch of changes was not announced; gateways will ask", "shard", ch.Shard, "error", err)
	}
}

// tidyEvery is how often a replica removes what is kept for a bounded time.
const tidyEvery = 5 * time.Minute

// Run lets time pass until ctx ends.
//
// Time passes for gateways that this replica could have heard: while NATS does not answer, heartbeats are lost on their way and
// say nothing about who is there. So nothing runs out then, nor for a lease after it is back, in which gateways come back as well. When
// that is so for all replicas, no script runs, and the store takes the time for one that nobody measured.
func (c *Core) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var tidied, heard time.Time // heard: since when NATS has answered without a break
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		switch {
		case !c.hears(ctx):
			heard = time.Time{}
		case heard.IsZero():
			heard = time.Now()
		}
		if !heard.IsZero() {
			expire := time.Since(heard) >= c.times.Lease
			tidy := expire && time.Since(tidied) > tidyEvery
			if c.pass(ctx, expire, tidy) && tidy {
				tidied = time.Now()
			}
		}
		// Jitter keeps replicas from doing the same at the same moment.
		timer.Reset(c.times.Tick*4/5 + rand.N(c.times.Tick*2/5+1))
	}
}

// hears reports whether NATS answers well before a lease of which it brought a heartbeat lately could run out.
func (c *Core) hears(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.times.Lease*2/5)
	defer cancel()
	return c.hear(ctx) == nil
}

// pass lets time pass once, and reports whether that worked in all shards.
func (c *Core) pass(ctx context.Context, expire, tidy bool) bool {
	call, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var res []store.Result
	var err error
	if expire {
		res, err = c.store.Tick(call, tidy)
	} else {
		res, err = c.store.Look(call)
	}
	if ctx.Err() != nil {
		err = nil // the end of this replica, not a failure of Redis
	} else if err == nil {
		c.lastOK.Store(time.Now().UnixNano())
		c.why.Store(nil)
	} else {
		c.why.Store(&err)
	}
	return c.done("tick", res, err) == nil // tried again
}

// Ready is nil when Redis did lately what each look asks of it, in all shards, which is to write: one that answers and takes no writes (out of
// memory, a replica) knows of nobody who comes or goes.
func (c *Core) Ready() error {
	if time.Since(time.Unix(0, c.lastOK.Load())) <= 3*time.Second+3*c.times.Tick {
		return nil
	}
	why := c.why.Load()
	if why == nil {
		return errors.New("no answer from Redis")
	}
	first, _, _ := strings.Cut((*why).Error(), "\n") // of up to one a shard
	return fmt.Errorf("cannot use Redis: %s", first)
}
