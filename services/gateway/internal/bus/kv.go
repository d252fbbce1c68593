package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	kvRetry = 500 * time.Millisecond // between tries to read a bucket
	kvCall  = 5 * time.Second        // patience with one request about a bucket
	// kvAudit is how often a watch is compared with its bucket. A watch that says nothing may be one that nothing
	// happens to, or one whose consumer was lost: nats.go gives an ordered consumer up when it cannot be made
	// anew at the first try. Only the bucket itself can tell.
	kvAudit = 10 * time.Second
)

// errStale ends one watch, so that the next one reads the bucket from the beginning.
var errStale = errors.New("the watch has lost its bucket")

// WatchKV calls f for every key of the bucket, then for every change, until ctx ends; initial after the first complete read
// and after every further one. A bucket that is not there yet is waited for. After each reconnect, and whenever the watch turns out to
// have missed something, the bucket is read again from the beginning: keys that f does not hear of between two calls of initial
// are gone. All calls come from one goroutine, and must not block.
func (b *Bus) WatchKV(ctx context.Context, bucket string, f func(key string, value []byte, deleted bool), initial func()) {
	b.watchKV(ctx, bucket, kvAudit, f, initial)
}

func (b *Bus) watchKV(ctx context.Context, bucket string, every time.Duration, f func(string, []byte, bool), initial func()) {
	again := make(chan struct{}, 1)
	b.OnReconnect(func() {
		select {
		case again <- struct{}{}:
		default:
		}
	})
	for first := true; ; first = false {
		if !first {
			select {
			case <-time.After(kvRetry):
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-again: // this read comes after that reconnect
		default:
		}
		err := b.watchOnce(ctx, bucket, every, f, initial, again)
		if ctx.Err() != nil {
			return
		}
		b.log.Debug("watching a bucket anew", "bucket", bucket, "because", err)
	}
}

func (b *Bus) watchOnce(ctx context.Context, bucket string, every time.Duration, f func(string, []byte, bool), initial func(), again <-chan struct{}) error {
	kv, created, seen, err := b.openKV(ctx, bucket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(kvCall, cancel) // the watch outlives its context's deadline, so it has none
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch %s: %w", bucket, err)
	}
	defer func() {
		_ = w.Stop() // it fails only when the connection is closed
		for range w.Updates() {
			// Whatever was on its way holds the subscription until somebody takes it.
		}
	}()
	if !late.Stop() {
		return errStale
	}
	audit := time.NewTicker(every)
	defer audit.Stop()
	results := make(chan kvAudited, 1)
	asking, read := false, false
	var missed uint64 // what an audit before found that has not come yet
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			return errors.New("reconnected")
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errStale
			case e == nil:
				read = true
				initial()
			default:
				seen = max(seen, e.Revision())
				op := e.Operation()
				f(e.Key(), e.Value(), op == jetstream.KeyValueDelete || op == jetstream.KeyValuePurge)
			}
		case <-audit.C:
			if asking {
				continue
			}
			asking = true
			go func() { results <- b.auditKV(ctx, bucket, created) }()
		case a := <-results:
			asking = false
			if !a.known {
				continue
			}
			if a.other || a.last < seen || !read || missed > seen {
				return errStale
			}
			// What is under way just now is no loss: it has until the next audit.
			missed = a.last
		}
	}
}

// openKV also says when the bucket was made and its last revision so far, all of which a watch that begins now covers.
func (b *Bus) openKV(ctx context.Context, bucket string) (kv jetstream.KeyValue, created time.Time, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, kvCall)
	defer cancel()
	if kv, err = b.js.KeyValue(ctx, bucket); err != nil {
		return nil, created, 0, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	st, err := kv.Status(ctx)
	if err != nil {
		return nil, created, 0, fmt.Errorf("read the bucket %s: %w", bucket, err)
	}
	s, ok := st.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, created, 0, fmt.Errorf("read the bucket %s: no stream behind it", bucket)
	}
	info := s.StreamInfo()
	return kv, info.Created, info.State.LastSeq, nil
}

type kvAudited struct {
	known bool   // NATS answered
	other bool   // the bucket is gone, or it is another one of that name
	last  uint64 // revision
}

func (b *Bus) auditKV(ctx context.Context, bucket string, created time.Time) kvAudited {
	_, now, last, err := b.openKV(ctx, bucket)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound):
		return kvAudited{known: true, other: true}
	case err != nil:
		return kvAudited{}
	}
	return kvAudited{known: true, other: !now.Equal(created), last: last}
}
