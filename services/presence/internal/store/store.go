// Package store keeps who is online in Redis: one hash slot a shard, changed by scripts only, so that every replica of
// the service may do everything at any time. A script that changes who is online returns the changes, numbered; it is up
// to the caller to announce them.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"parley.example/pkg/api"
)

// Config has the times of the lease model. See the settings of package presence.
type Config struct {
	Lease     time.Duration // a gateway that sends no heartbeat for so long is gone
	Grace     time.Duration // a user whose last session was lost is announced offline so much later
	Settle    time.Duration // how long gateways may register after data was lost
	Forget    time.Duration // how long ids of sessions that went are remembered
	LastSeen  time.Duration // how long the time when a user was last online is kept
	GraceStep int           // graces that end in one tick of a shard; 0 is 1,000
}

// Store is one replica's way to Redis. It is safe for concurrent use.
type Store struct {
	rdb     redis.UniversalClient
	cfg     Config
	replica string
	scripts scripts
	now     func() time.Time
	keys    [api.PresenceShards][]string
	shards  []int // all of them, fewer in tests

	mu    sync.Mutex
	marks [api.PresenceShards]mark
	heard map[string]time.Time // gateways that sent a heartbeat within about a lease
}

// mark is the last that this replica knows to be stored in a shard.
type mark struct {
	epoch string
	value int64
	at    time.Time
}

// marks older than markKept are forgotten by Redis, and younger than markUsed are relied on; the space between is for
// clocks that run at different speeds.
const (
	markKept = 10 * time.Minute
	markUsed = 5 * time.Minute
)

// Result is what a script did to a shard.
type Result struct {
	Shard    int
	Epoch    string
	From     int64 // version before the changes
	Version  int64 // version after them
	Settling bool
	// New: this call began the epoch. Settled: this call ended its settling.
	New, Settled bool
	Changes      []api.PresenceChange
	more         []string
}

// New makes a store of rdb. It does not connect.
func New(rdb redis.UniversalClient, cfg Config) *Store {
	if cfg.GraceStep == 0 {
		cfg.GraceStep = 1000
	}
	s := &Store{rdb: rdb, cfg: cfg, replica: rand.Text(), scripts: newScripts(), now: time.Now, heard: map[string]time.Time{}}
	for i := range s.keys {
		s.shards = append(s.shards, i)
		for _, name := range []string{"meta", "lease", "users", "grace", "seen", "marks"} {
			s.keys[i] = append(s.keys[i], key(i, name))
		}
	}
	return s
}

func key(shard int, name string) string { return "{p" + strconv.Itoa(shard) + "}:" + name }

func (s *Store) gatewayKeys(shard int, gateway string) []string {
	return append(s.keys[shard][:6:6],
		key(shard, "sess:"+gateway), key(shard, "gone:"+gateway), key(shard, "sum:"+gateway))
}

// call is one script on one shard.
type call struct {
	shard int
	keys  []string
	args  []any
}

// header is what every script gets first.
func (s *Store) header(shard, more int) []any {
	s.mu.Lock()
	m := s.marks[shard]
	s.mu.Unlock()
	if s.now().Sub(m.at) > markUsed {
		m = mark{}
	}
	args := make([]any, 0, 8+more)
	// Longer than a tick of any replica, shorter than what a lease has left after a heartbeat that just failed.
	gap := s.cfg.Lease * 2 / 5
	return append(args, s.replica, m.epoch, m.value, rand.Text(),
		s.cfg.Lease.Milliseconds(), s.cfg.Grace.Milliseconds(), s.cfg.Settle.Milliseconds(), gap.Milliseconds())
}

// hear remembers a gateway for a lease.
func (s *Store) hear(gateway string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if _, ok := s.heard[gateway]; !ok {
		for g, at := range s.heard {
			if now.Sub(at) > s.cfg.Lease {
				delete(s.heard, g)
			}
		}
	}
	s.heard[gateway] = now
}

// lately are the gateways that were heard within the last lease.
func (s *Store) lately() (list []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g, at := range s.heard {
		if s.now().Sub(at) <= s.cfg.Lease {
			list = append(list, g)
		}
	}
	return list
}

// run is send, and has shards that begin an epoch wait for the gateways that this replica knows of.
func (s *Store) run(ctx context.Context, sc *script, calls []call) ([]Result, error) {
	results, err := s.send(ctx, sc, calls)
	gateways := s.lately()
	if len(gateways) == 0 {
		return results, err
	}
	var expect []call
	for _, r := range results {
		if r.New && r.Settling {
			expect = append(expect, call{r.Shard, s.keys[r.Shard], append(s.header(r.Shard, len(gateways)), gateways...)})
		}
	}
	if len(expect) == 0 {
		return results, err
	}
	more, merr := s.send(ctx, s.scripts.expect, expect)
	return append(results, more...), errors.Join(err, merr)
}

// send sends all calls at once. It returns the results of those that worked, in order, and the errors of the others.
func (s *Store) send(ctx context.Context, sc *script, calls []call) ([]Result, error) {
	cmds := make([]*redis.Cmd, len(calls))
	pipe := s.rdb.Pipeline()
	for i, c := range calls {
		cmds[i] = pipe.EvalSha(ctx, sc.hash, c.keys, c.args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	results := make([]Result, 0, len(calls))
	var errs []error
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			cmd = s.rdb.Eval(ctx, sc.src, calls[i].keys, calls[i].args...)
		}
		res, err := parse(calls[i].shard, cmd)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s in shard %d: %w", sc.name, calls[i].shard, err))
			continue
		}
		s.remember(res)
		results = append(results, res.Result)
	}
	return results, errors.Join(errs...)
}

func (s *Store) remember(r marked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.marks[r.Shard]
	if m.epoch != r.Epoch {
		*m = mark{epoch: r.Epoch}
	}
	// Answers of concurrent calls come in any order.
	m.value, m.at = max(m.value, r.mark), s.now()
}

type marked struct {
	Result
	mark int64
}

var errAnswer = errors.New("the script's answer could not be read")

func parse(shard int, cmd *redis.Cmd) (marked, error) {
	r := marked{Result: Result{Shard: shard}}
	list, err := cmd.Slice()
	if err != nil {
		return r, err
	}
	if len(list) != 8 {
		return r, errAnswer
	}
	epoch, ok1 := list[0].(string)
	mk, ok2 := integer(list[1])
	from, ok3 := integer(list[2])
	version, ok4 := integer(list[3])
	settling, ok5 := integer(list[4])
	notice, ok6 := integer(list[5])
	changes, ok7 := list[6].([]any)
	more, ok8 := list[7].([]any)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7 && ok8) || len(changes)%3 != 0 {
		return r, errAnswer
	}
	r.Epoch, r.mark, r.From, r.Version, r.Settling = epoch, mk, from, version, settling == 1
	r.New, r.Settled = notice&1 != 0, notice&2 != 0
	if len(changes) > 0 {
		r.Changes = make([]api.PresenceChange, 0, len(changes)/3)
	}
	for i := 0; i < len(changes); i += 3 {
		user, ok1 := changes[i].(string)
		on, ok2 := integer(changes[i+1])
		last, ok3 := integer(changes[i+2])
		if !ok1 || !ok2 || !ok3 {
			return r, errAnswer
		}
		r.Changes = append(r.Changes, api.PresenceChange{User: user, Online: on == 1, LastSeen: last})
	}
	if len(more) > 0 {
		r.more = make([]string, len(more))
	}
	for i, v := range more {
		switch v := v.(type) {
		case string:
			r.more[i] = v
		case int64:
			r.more[i] = strconv.FormatInt(v, 10)
		default:
			return r, errAnswer
		}
	}
	return r, nil
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

func hex(id uint64) string {
	h := strconv.FormatUint(id, 16)
	return strings.Repeat("0", 16-len(h)) + h
}
