package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

// watcher knows how far history is: a system that stores later is not cheaper, so the cost of what it still has to do
// is measured as well.
type watcher struct {
	nc *nats.Conn
	js jetstream.JetStream

	mu sync.Mutex
	at map[int]int64 // partition → last seq in SQL
}

func watchHistory(url string) (*watcher, error) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	w := &watcher{nc: nc, at: map[int]int64{}}
	if w.js, err = jetstream.New(nc); err == nil {
		_, err = nc.Subscribe(subject.AppliedPrefix+"*", func(m *nats.Msg) {
			var a api.Applied
			if json.Unmarshal(m.Data, &a) != nil {
				return
			}
			w.mu.Lock()
			w.at[a.P] = max(w.at[a.P], a.To)
			w.mu.Unlock()
		})
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("follow history: %w", err)
	}
	return w, nil
}

func (w *watcher) close() { w.nc.Close() }

// wait returns when SQL has everything that the streams have.
func (w *watcher) wait(ctx context.Context) error {
	for p := 0; ; p++ {
		s, err := w.js.Stream(ctx, subject.Stream(p))
		if errors.Is(err, jetstream.ErrStreamNotFound) && p > 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		last := int64(s.CachedInfo().State.LastSeq)
		for {
			w.mu.Lock()
			at := w.at[p]
			w.mu.Unlock()
			if at >= last {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("history has %d of %d in partition %d: %w", at, last, p, ctx.Err())
			}
		}
	}
}
