package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrBusy says that the queue for hashes is full.
var ErrBusy = errors.New("too many passwords are being checked")

// Pool runs a fixed number of hashes at a time and lets a fixed number wait, so that a login storm takes
// neither all memory nor all cores.
type Pool struct {
	slots   chan struct{}
	queued  atomic.Int64
	limit   int64
	dummy   string
	hashes  prometheus.Counter
	waiting prometheus.GaugeFunc
}

// NewPool makes a pool of concurrency hashes and a queue of that length, and registers its metrics.
func NewPool(concurrency, queue int, reg prometheus.Registerer) (*Pool, error) {
	p := &Pool{slots: make(chan struct{}, concurrency), limit: int64(queue)}
	p.hashes = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_auth_hashes_total", Help: "Argon2id runs."})
	p.waiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_auth_hash_queue", Help: "Passwords that wait to be hashed."},
		func() float64 { return float64(p.queued.Load()) })
	for _, c := range []prometheus.Collector{p.hashes, p.waiting} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	var err error
	// Nobody knows this password; a login of an unknown user is compared with it, to cost the same.
	p.dummy, err = hash(rand.Text())
	return p, err
}

// Hash makes the PHC string of a password; ErrBusy when the queue is full.
func (p *Pool) Hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	return hash(password)
}

// Verify compares a password with a PHC string, "" for the user that does not exist: it takes as long
// and the answer is no. ErrBusy when the queue is full.
func (p *Pool) Verify(ctx context.Context, phc, password string) (bool, error) {
	if err := p.enter(ctx); err != nil {
		return false, err
	}
	defer p.leave()
	if phc == "" {
		_, err := verify(p.dummy, password)
		return false, err
	}
	return verify(phc, password)
}

func (p *Pool) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		p.hashes.Inc()
		return nil
	default:
	}
	if p.queued.Add(1) > p.limit {
		p.queued.Add(-1)
		return ErrBusy
	}
	defer p.queued.Add(-1)
	select {
	case p.slots <- struct{}{}:
		p.hashes.Inc()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Pool) leave() { <-p.slots }
