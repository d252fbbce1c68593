package bus

import (
	"context"
	"sync"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
)

// CatchUps puts the questions of sessions that join at about the same time into common requests to history.
type CatchUps struct {
	send func(context.Context, api.CatchUpRequest) (api.CatchUpResponse, error)

	mu    sync.Mutex
	batch *catchUpBatch
	slots chan struct{}
}

type catchUpBatch struct {
	req  api.CatchUpRequest
	full chan struct{}
	done chan struct{}
	resp api.CatchUpResponse
	err  error
}

const (
	catchUpWait  = 3 * time.Millisecond // how long the first question waits for company
	catchUpItems = 100
	// catchUpsAtOnce bounds requests under way, so that a mass reconnect queues here and not in history.
	catchUpsAtOnce = 4
)

// NewCatchUps takes the request that asks history.
func NewCatchUps(send func(context.Context, api.CatchUpRequest) (api.CatchUpResponse, error)) *CatchUps {
	return &CatchUps{send: send, slots: make(chan struct{}, catchUpsAtOnce)}
}

// Ask returns the answer to one question. It is right as far as applied goes, which history tries to bring to minApplied first.
func (c *CatchUps) Ask(ctx context.Context, item api.CatchUpItem, minApplied []int64) (res api.CatchUpResult, applied []int64, err error) {
	c.mu.Lock()
	b := c.batch
	if b == nil {
		b = &catchUpBatch{full: make(chan struct{}), done: make(chan struct{})}
		c.batch = b
		go c.run(b)
	}
	at := len(b.req.Items)
	b.req.Items = append(b.req.Items, item)
	for p, v := range minApplied {
		if p == len(b.req.MinApplied) {
			b.req.MinApplied = append(b.req.MinApplied, 0)
		}
		b.req.MinApplied[p] = max(b.req.MinApplied[p], v)
	}
	if len(b.req.Items) == catchUpItems {
		c.batch = nil
		close(b.full)
	}
	c.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		return res, nil, rpc.ErrUnavailable
	}
	if b.err != nil {
		return res, nil, b.err
	}
	if at >= len(b.resp.Results) {
		return res, nil, rpc.ErrUnavailable
	}
	return b.resp.Results[at], b.resp.Applied, nil
}

func (c *CatchUps) run(b *catchUpBatch) {
	defer close(b.done)
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	t := time.NewTimer(catchUpWait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.full:
	}
	c.mu.Lock()
	if c.batch == b {
		c.batch = nil
	}
	c.mu.Unlock()
	// Not any one asker's context: the others still want the answer.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b.resp, b.err = c.send(ctx, b.req)
}
