package directory

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"parley.example/pkg/rpc"
)

// cache remembers answers, by one rule: an answer is good for a while; whoever finds none that is waits for a new one, of which one at a time is under
// way; and as long as there is no new one, an old one that says something is better than none. It is safe for concurrent use.
type cache[V any] struct {
	rows  *lru.Cache[string, row[V]]
	able  func() bool                                  // whether asking has a chance
	limit func() (context.Context, context.CancelFunc) // of one question
	good  func(V) time.Duration                        // for how long
	calls singleflight.Group
	slots chan struct{}
}

type row[V any] struct {
	value V
	at    time.Time
}

// maxAsked is how many answers are under way at a time.
const maxAsked = 64

// newCache makes a cache of size answers, 1 at least.
func newCache[V any](size int, able func() bool, limit func() (context.Context, context.CancelFunc), good func(V) time.Duration) *cache[V] {
	rows, _ := lru.New[string, row[V]](size) // it fails for sizes below 1 only
	return &cache[V]{rows: rows, able: able, limit: limit, good: good, slots: make(chan struct{}, maxAsked)}
}

func (c *cache[V]) put(key string, v V) { c.rows.Add(key, row[V]{v, time.Now()}) }

// fresh gives what is known of a key, and whether that is good.
func (c *cache[V]) fresh(key string) (v V, good bool) {
	r, ok := c.rows.Get(key)
	return r.value, ok && time.Since(r.at) < c.good(r.value)
}

// ask asks for a key's answer, once for all who ask the same question at a time. Where what is known, though old, says something, it waits for patience
// only and gives that when there is no answer. load gets a context of its own: whoever asked first may leave while others wait.
func (c *cache[V]) ask(ctx context.Context, key, question string, says bool, patience time.Duration, load func(context.Context) (V, error)) (V, error) {
	v, err := c.wait(ctx, question, says, patience, load)
	switch old, _ := c.fresh(key); {
	case err == nil:
		c.put(key, v)
	case says:
		return old, nil
	}
	return v, err
}

func (c *cache[V]) wait(ctx context.Context, question string, says bool, patience time.Duration, load func(context.Context) (V, error)) (v V, err error) {
	if !c.able() {
		return v, rpc.ErrUnavailable
	}
	ch := c.calls.DoChan(question, func() (any, error) {
		ctx, cancel := c.limit()
		defer cancel()
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return v, rpc.ErrUnavailable
		}
		return load(ctx)
	})
	var enough <-chan time.Time
	if says {
		t := time.NewTimer(patience)
		defer t.Stop()
		enough = t.C
	}
	select {
	case r := <-ch:
		if r.Err == nil {
			v = r.Val.(V) //nolint:forcetypeassert // it is load's
		}
		return v, r.Err
	case <-enough:
	case <-ctx.Done():
	}
	return v, rpc.ErrUnavailable
}
