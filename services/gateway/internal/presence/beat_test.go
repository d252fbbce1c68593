package presence

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

// half is a presence service one of whose two replicas stands still: of the heartbeats that reach it, those that lost names get no answer.
type half struct {
	mu   sync.Mutex
	n    int
	lost map[int]bool
	last time.Time
	gap  time.Duration
}

func (h *half) services() rpc.Caller {
	return rpc.Caller{Timeout: time.Hour, Conn: rpc.Local(
		api.PresenceHeartbeat.Handle(h.beat),
		api.PresenceSessions.Handle(func(context.Context, api.SessionsRequest) (r api.Empty, err error) { return r, nil }),
		api.PresenceResync.Handle(func(context.Context, api.ResyncRequest) (r api.Empty, err error) { return r, nil }),
		api.PresenceSnapshot.Handle(func(context.Context, api.SnapshotRequest) (r api.SnapshotResponse, err error) { return r, nil }),
	)}
}

func (h *half) beat(ctx context.Context, _ api.HeartbeatRequest) (r api.HeartbeatResponse, err error) {
	h.mu.Lock()
	h.n++
	lost := h.lost[h.n]
	h.mu.Unlock()
	if lost {
		<-ctx.Done()
		return r, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.last.IsZero() {
		h.gap = max(h.gap, time.Since(h.last))
	}
	h.last = time.Now()
	return r, nil
}

func (h *half) Subscribe(string, func([]byte)) (func(), error) { return func() {}, nil }

// Two heartbeats in a row that fall to a replica which stands still (one chance in four, every time) must not cost the lease (5 s): all
// users of the gateway would be announced offline at once, for the grace counts from the last heartbeat.
func TestLeaseOutlivesTwoHeartbeatsWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &half{lost: map[int]bool{3: true, 4: true, 6: true, 7: true}}
		m := New(h.services(), h, Config{}, testx.Quiet(), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		time.Sleep(15 * time.Second) // the bubble's clock
		cancel()
		<-done
		if h.n < 5 {
			t.Fatalf("%d heartbeats", h.n)
		}
		if lease := 5 * time.Second; h.gap >= lease {
			t.Errorf("%s between two heartbeats that came through, the lease is %s", h.gap, lease)
		}
	})
}
