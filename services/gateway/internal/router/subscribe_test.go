package router

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/testx"
)

// subscriptions is a Source that knows who is subscribed, as bus.Deliveries does, and lets something happen right before one ends.
type subscriptions struct {
	history
	mu     sync.Mutex
	subs   map[string]bool
	before func()
}

func (s *subscriptions) SubscribeUser(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs[user] = true
	return nil
}

func (s *subscriptions) UnsubscribeUser(user string) {
	if f := s.before; f != nil {
		s.before = nil
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, user)
}

// A user's last session ends while a new one of the same user joins: it has to be subscribed.
func TestSubscribeAgainWhileTheLastSessionEnds(t *testing.T) {
	s := &subscriptions{subs: map[string]bool{}}
	r := New(s, s.services(), testx.Quiet(), prometheus.NewRegistry())
	old, again := newMember(), newMember()
	if err := r.Add("avi", old); err != nil {
		t.Fatal(err)
	}
	added := make(chan struct{})
	s.before = func() {
		go func() {
			defer close(added)
			if err := r.Add("avi", again); err != nil {
				t.Error(err)
			}
		}()
		// Either Add waits for Remove (then this times out), or it is through before the subscription ends.
		select {
		case <-added:
		case <-time.After(200 * time.Millisecond):
		}
	}
	r.Remove("avi", old)
	<-added
	if len(r.Members("avi")) != 1 || !s.subs["avi"] {
		t.Fatalf("%d sessions, subscribed: %v", len(r.Members("avi")), s.subs["avi"])
	}
}
