package store

import (
	"context"
	"math"
	"slices"

	"parley.example/pkg/api"
)

// Apply takes sessions that came or went at one gateway. With an error, some shards may have theirs: the results are
// those, and the gateway's digest will show the rest.
func (s *Store) Apply(ctx context.Context, req api.SessionsRequest) ([]Result, error) {
	var perShard [api.PresenceShards]int
	for _, c := range req.Changes {
		perShard[api.PresenceShard(c.User)]++
	}
	var at [api.PresenceShards]int
	var calls []call
	for shard, n := range perShard {
		if n > 0 {
			at[shard] = len(calls)
			args := append(s.header(shard, 2+3*n), req.Gateway, s.cfg.Forget.Milliseconds())
			calls = append(calls, call{shard, s.gatewayKeys(shard, req.Gateway), args})
		}
	}
	for _, c := range req.Changes {
		kind := "0"
		switch {
		case c.Gone && c.Deliberate:
			kind = "2"
		case c.Gone:
			kind = "1"
		}
		to := &calls[at[api.PresenceShard(c.User)]]
		to.args = append(to.args, hex(c.ID), c.User, kind)
	}
	return s.run(ctx, s.scripts.apply, calls)
}

// Heartbeat renews a gateway's leases and compares its digests. It fails when any shard does.
func (s *Store) Heartbeat(ctx context.Context, req api.HeartbeatRequest) (api.HeartbeatResponse, []Result, error) {
	calls := make([]call, 0, len(s.shards))
	compare := 1
	if req.RenewOnly {
		compare = 0
	}
	for _, i := range s.shards {
		d := req.Digests[i]
		args := append(s.header(i, 7), req.Gateway, compare, d.Count, d.Hi, d.Lo, d.Epoch, d.Version)
		calls = append(calls, call{i, s.gatewayKeys(i, req.Gateway), args})
	}
	results, err := s.run(ctx, s.scripts.beat, calls)
	s.hear(req.Gateway)
	var resp api.HeartbeatResponse
	if err != nil {
		return resp, results, err
	}
	for _, r := range results[:len(calls)] { // what follows is of another script
		resp.Shards[r.Shard] = api.ShardState{
			Epoch: r.Epoch, Version: r.Version, Settling: r.Settling, Resync: len(r.more) == 1 && r.more[0] == "1",
		}
	}
	return resp, results, nil
}

// Resync replaces the sessions of a gateway in a shard and a range of ids.
func (s *Store) Resync(ctx context.Context, req api.ResyncRequest) ([]Result, error) {
	to := req.To
	if to == 0 {
		to = math.MaxUint64
	}
	args := append(s.header(req.Shard, 3+2*len(req.Sessions)), req.Gateway, hex(req.From), hex(to))
	for _, c := range req.Sessions {
		args = append(args, hex(c.ID), c.User)
	}
	return s.run(ctx, s.scripts.resync, []call{{req.Shard, s.gatewayKeys(req.Shard, req.Gateway), args}})
}

// Tick lets time pass in all shards: graces end and gateways without a heartbeat lose their sessions. Tidy also forgets
// what is kept for a bounded time; do that now and then.
func (s *Store) Tick(ctx context.Context, tidy bool) ([]Result, error) {
	results, err := s.tick(ctx, s.cfg.GraceStep, tidy)
	var reap []call
	for _, r := range results {
		for _, gateway := range r.more {
			reap = append(reap, call{r.Shard, s.gatewayKeys(r.Shard, gateway), append(s.header(r.Shard, 1), gateway)})
		}
	}
	if err != nil || len(reap) == 0 {
		return results, err
	}
	reaped, err := s.run(ctx, s.scripts.reap, reap)
	return append(results, reaped...), err
}

// Look is a Tick in which nothing runs out: lost data and the end of settling are noticed, nobody goes offline.
func (s *Store) Look(ctx context.Context) ([]Result, error) { return s.tick(ctx, 0, false) }

func (s *Store) tick(ctx context.Context, graces int, tidy bool) ([]Result, error) {
	calls := make([]call, 0, len(s.shards))
	flag := 0
	if tidy {
		flag = 1
	}
	for _, i := range s.shards {
		args := append(s.header(i, 4), graces, flag, markKept.Milliseconds(), s.cfg.LastSeen.Milliseconds())
		calls = append(calls, call{i, s.keys[i], args})
	}
	return s.run(ctx, s.scripts.tick, calls)
}

// Snapshot is who is online in a shard: by name, after after, with at most page bytes (but one name at least).
func (s *Store) Snapshot(ctx context.Context, shard int, after string, page int) (api.SnapshotResponse, []Result, error) {
	results, err := s.run(ctx, s.scripts.snapshot, []call{{shard, s.keys[shard], s.header(shard, 0)}})
	if err != nil {
		return api.SnapshotResponse{}, results, err
	}
	r := results[0] // what may follow is of another script
	resp := api.SnapshotResponse{Epoch: r.Epoch, Version: r.Version, Settling: r.Settling, Online: r.more}
	slices.Sort(resp.Online)
	if after != "" {
		i, found := slices.BinarySearch(resp.Online, after)
		if found {
			i++
		}
		resp.Online = resp.Online[i:]
	}
	for i, name := range resp.Online {
		if page -= len(name) + 3; page < 0 && i > 0 { // with quotes and a comma
			resp.Online, resp.More = resp.Online[:i], true
			break
		}
	}
	return resp, results, nil
}

// LastSeen is when users were last online, in Unix ms: now for those who are, 0 for those nobody knows.
func (s *Store) LastSeen(ctx context.Context, users []string) ([]int64, []Result, error) {
	var at [api.PresenceShards][]int
	for i, u := range users {
		shard := api.PresenceShard(u)
		at[shard] = append(at[shard], i)
	}
	var calls []call
	for shard, list := range at {
		if len(list) == 0 {
			continue
		}
		args := s.header(shard, len(list))
		for _, i := range list {
			args = append(args, users[i])
		}
		calls = append(calls, call{shard, s.keys[shard], args})
	}
	results, err := s.run(ctx, s.scripts.seen, calls)
	if err != nil {
		return nil, results, err
	}
	out := make([]int64, len(users))
	for _, r := range results[:len(calls)] {
		for j, v := range r.more {
			out[at[r.Shard][j]], _ = integer(v)
		}
	}
	return out, results, nil
}
