package answer

import (
	"context"
	"testing"
	"time"

	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// Requests that wait leave places for those that need not.
func TestAppliedTooManyDoNotWait(t *testing.T) {
	a := NewApplied(1, func(context.Context) ([]int64, error) { return []int64{5}, nil })
	a.patience = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	want := []int64{10}
	waiting := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.waiting
	}
	got := make(chan bool, maxWaiting)
	for range maxWaiting {
		go func() {
			there, _ := a.Wait(ctx, want)
			got <- there
		}()
	}
	testx.Eventually(t, "all places are taken", 10*time.Second, func() bool { return waiting() == maxWaiting })
	if there, err := a.Wait(ctx, want); there || err != nil {
		t.Errorf("one more: %v, %v", there, err)
	}
	if there, err := a.Wait(ctx, []int64{5}); !there || err != nil {
		t.Errorf("one that need not wait: %v, %v", there, err)
	}
	a.Moved(0, 10)
	for range maxWaiting {
		if !<-got {
			t.Error("what was waited for came, and was not seen")
		}
	}
	if waiting() != 0 {
		t.Error("places are still taken")
	}
}
