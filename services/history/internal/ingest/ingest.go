// Package ingest reads the streams of messages into SQL and announces what SQL has. Several replicas may run it: each partition has
// one owner by a lease in SQL, and a position that moves in the same transaction as the rows shuts out anybody else.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/services/history/internal/store"
)

// Config of ingest.
type Config struct {
	Partitions int
	Owner      string        // unique per process start
	Lease      time.Duration // how long a dead owner keeps a partition
	Batch      int           // messages a transaction
	Idle       time.Duration // a batch ends when nothing came for this
	Gather     time.Duration // or when its first message has waited for this
	Keep       int64         // youngest messages that stay in a stream after SQL has them
	Version    int           // highest version of payloads that is stored
}

// Deps of ingest.
type Deps struct {
	Log       *slog.Logger
	JetStream jetstream.JetStream
	Store     *store.Store
	Metrics   *Metrics
	// Publish sends an announcement, without guarantee.
	Publish func(subject string, body []byte) error
	// Ensure makes the streams that are missing.
	Ensure func(ctx context.Context) error
	// Moved hears of every position that this process knows.
	Moved func(p int, seq int64)
}

// Ingest is all partitions of one process.
type Ingest struct {
	cfg  Config
	deps Deps

	mu      sync.Mutex
	trouble map[int]error
}

// ErrRefused: the stream is not the one that SQL was filled from, or lacks messages that SQL needs. Nothing of the partition is read until
// somebody has repaired that.
var ErrRefused = errors.New("the stream does not go on where SQL ends")

// ErrVersion: a newer version wrote the next message of the stream. Stored by this one it would lose what is new in it, for good. Everything before it
// is stored, and the partition is left to a replica of the newer version.
var ErrVersion = errors.New("the stream has messages of a newer version of Parley")

// New prepares; Run begins.
func New(cfg Config, deps Deps) *Ingest {
	return &Ingest{cfg: cfg, deps: deps, trouble: map[int]error{}}
}

// Ready says which partition cannot be read, and why.
func (in *Ingest) Ready() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	var errs []error
	for p, err := range in.trouble {
		errs = append(errs, fmt.Errorf("partition %d: %w", p, err))
	}
	return errors.Join(errs...)
}

func (in *Ingest) setTrouble(p int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil {
		delete(in.trouble, p)
	} else {
		in.trouble[p] = err
	}
}

// Run reads until ctx ends, then gives the partitions back.
func (in *Ingest) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for p := range in.cfg.Partitions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			in.partition(ctx, p)
		}()
	}
	wg.Wait()
	return nil
}

// Times of a partition's loop.
const (
	standby    = time.Second // between two tries to get a partition that another replica has
	sqlTime    = 3 * time.Second
	commitTime = 30 * time.Second
	refusedFor = 2 * time.Second // between two looks at a stream that was refused
	leftFor    = 3 * time.Second // before a partition that was left to a newer version is tried again: longer than that one stands by
	maxBackoff = 5 * time.Second
)

// partition tries to own p, and reads it while it does.
func (in *Ingest) partition(ctx context.Context, p int) {
	log := in.deps.Log.With("partition", p)
	m := in.deps.Metrics
	owned, refused, newer := m.owned.WithLabelValues(label(p)), m.refused.WithLabelValues(label(p)), m.newer.WithLabelValues(label(p))
	backoff := 100 * time.Millisecond
	left := false // the last time ended before a message of a newer version
	defer func() {
		owned.Set(0)
		in.release(ctx, p, log) // the next owner should not have to wait
	}()
	for ctx.Err() == nil {
		st, err := in.acquire(ctx, p)
		wait := standby
		if err == nil {
			owned.Set(1)
			s := &session{in: in, p: p, log: log, state: st, left: left}
			err = s.run(ctx)
			owned.Set(0)
			if s.worked {
				backoff = 100 * time.Millisecond
			}
		}
		if ctx.Err() != nil {
			return
		}
		refused.Set(0)
		if left = errors.Is(err, ErrVersion); !left {
			newer.Set(0)
		}
		switch {
		case errors.Is(err, store.ErrLost):
			in.setTrouble(p, nil) // another replica's now
		case errors.Is(err, ErrRefused):
			refused.Set(1)
			in.setTrouble(p, err)
			log.Error("refusing to read a stream, which takes no messages until it is repaired", "error", err)
			if err := in.shut(ctx, p); err != nil {
				log.Error("a refused stream still takes messages", "error", err)
			}
			wait = refusedFor
		case left:
			newer.Set(1)
			in.setTrouble(p, err)
			log.Error("not storing what a newer version wrote; start that version's history", "error", err)
			in.release(ctx, p, log)
			wait = leftFor
		default:
			in.setTrouble(p, err)
			m.restarts.Inc()
			log.Warn("reading a stream begins again", "error", err)
			wait = backoff
			backoff = min(2*backoff, maxBackoff)
		}
		pause(ctx, wait/2+rand.N(wait))
	}
}

// release gives a partition back, also when ctx has ended.
func (in *Ingest) release(ctx context.Context, p int, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqlTime)
	defer cancel()
	if err := in.deps.Store.Release(ctx, p, in.cfg.Owner); err != nil {
		log.Warn("the partition was not given back", "error", err)
	}
}

func (in *Ingest) acquire(ctx context.Context, p int) (store.Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, sqlTime)
	defer cancel()
	return in.deps.Store.Acquire(ctx, p, in.cfg.Owner, in.cfg.Lease)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
