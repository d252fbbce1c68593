package bus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

// Confirmer collects what sessions have confirmed and tells history in batches. While history is away it keeps the
// newest entry of each (user, device, room); beyond its limit new ones are dropped, which costs a repeated delivery at the next join.
type Confirmer struct {
	send func(context.Context, api.ConfirmRequest) (api.Empty, error)
	log  *slog.Logger

	mu      sync.Mutex
	pending map[confirmKey]api.Confirm
	dropped prometheus.Counter
}

type confirmKey struct {
	user, device string
	room         room.Room
}

const (
	confirmEvery = 500 * time.Millisecond
	confirmBatch = 1000 // as history takes them
	confirmLimit = 200_000
)

// NewConfirmer takes the request that tells history.
func NewConfirmer(send func(context.Context, api.ConfirmRequest) (api.Empty, error), log *slog.Logger, reg prometheus.Registerer) *Confirmer {
	c := &Confirmer{send: send, log: log, pending: map[confirmKey]api.Confirm{}, dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "parley_gateway_confirm_dropped_total", Help: "Cursor moves dropped because history was away for too long."})}
	reg.MustRegister(c.dropped)
	return c
}

// Add notes what a session has confirmed.
func (c *Confirmer) Add(i api.Confirm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := confirmKey{i.User, i.Device, room.Room{A: i.A, B: i.B}}
	old, ok := c.pending[k]
	if !ok && len(c.pending) >= confirmLimit {
		c.dropped.Inc()
		return
	}
	if i.Seq < old.Seq {
		i, old = old, i
	}
	i.PeerSeq = max(i.PeerSeq, old.PeerSeq)
	c.pending[k] = i
}

// Run sends batches until ctx ends, then once more.
func (c *Confirmer) Run(ctx context.Context) error {
	t := time.NewTicker(confirmEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			c.flush(last)
			return nil
		}
	}
}

func (c *Confirmer) flush(ctx context.Context) {
	for ctx.Err() == nil {
		var req api.ConfirmRequest
		c.mu.Lock()
		for k, i := range c.pending {
			req.Items = append(req.Items, i)
			delete(c.pending, k)
			if len(req.Items) == confirmBatch {
				break
			}
		}
		c.mu.Unlock()
		if len(req.Items) == 0 {
			return
		}
		if _, err := c.send(ctx, req); err != nil {
			c.log.Debug("cursors wait for history", "error", err)
			for _, i := range req.Items {
				c.Add(i)
			}
			return // the next tick tries again
		}
	}
}
