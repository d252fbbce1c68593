package answer

import (
	"context"
	"sync"
	"time"
)

// Patience is how long a request waits for SQL to have what it needs.
const Patience = time.Second

// maxWaiting bounds the requests that wait, so that those which need not wait find a place among the requests that run at a time (128). The others
// are told at once that SQL is behind.
const maxWaiting = 96

// pollEvery is how often SQL is asked for positions while somebody waits: another replica may own the partition.
const pollEvery = 50 * time.Millisecond

// Applied knows how far SQL is: from this process's own commits, and from SQL when somebody waits for more.
type Applied struct {
	read     func(context.Context) ([]int64, error)
	patience time.Duration

	mu      sync.Mutex
	seqs    []int64
	changed chan struct{} // closed at the next change
	polled  time.Time
	polling bool
	waiting int
}

// NewApplied takes what reads all positions from SQL.
func NewApplied(partitions int, read func(context.Context) ([]int64, error)) *Applied {
	return &Applied{read: read, patience: Patience, seqs: make([]int64, partitions), changed: make(chan struct{})}
}

// Moved notes a position.
func (a *Applied) Moved(p int, seq int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if seq > a.seqs[p] {
		a.seqs[p] = seq
		a.wake()
	}
}

// wake needs mu.
func (a *Applied) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// Wait returns true when SQL has want[p] of every partition, false when it does not within Patience, or too many wait already.
func (a *Applied) Wait(ctx context.Context, want []int64) (bool, error) {
	a.mu.Lock()
	there, full := a.has(want), a.waiting >= maxWaiting
	if there || full {
		a.mu.Unlock()
		return there, nil
	}
	a.waiting++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.waiting--
		a.mu.Unlock()
	}()
	end := time.NewTimer(a.patience)
	defer end.Stop()
	var poll *time.Ticker
	for {
		a.mu.Lock()
		there, changed := a.has(want), a.changed
		a.mu.Unlock()
		if there {
			return true, nil
		}
		if poll == nil {
			poll = time.NewTicker(pollEvery)
			defer poll.Stop()
			// The first look at once: a replica that owns nothing knows nothing.
			if err := a.poll(ctx); err != nil {
				return false, err
			}
			continue
		}
		select {
		case <-changed:
		case <-poll.C:
			if err := a.poll(ctx); err != nil {
				return false, err
			}
		case <-end.C:
			return false, nil
		case <-ctx.Done():
			return false, nil
		}
	}
}

// has needs mu. Partitions that do not exist are never there.
func (a *Applied) has(want []int64) bool {
	for p, seq := range want {
		if seq > 0 && (p >= len(a.seqs) || a.seqs[p] < seq) {
			return false
		}
	}
	return true
}

// poll asks SQL, for all who wait, at most once in pollEvery.
func (a *Applied) poll(ctx context.Context) error {
	a.mu.Lock()
	if a.polling || time.Since(a.polled) < pollEvery/2 {
		a.mu.Unlock()
		return nil
	}
	a.polling = true
	a.mu.Unlock()
	seqs, err := a.read(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.polling, a.polled = false, time.Now()
	moved := false
	for p := range min(len(seqs), len(a.seqs)) {
		if seqs[p] > a.seqs[p] {
			a.seqs[p] = seqs[p]
			moved = true
		}
	}
	if moved {
		a.wake()
	}
	return err
}
