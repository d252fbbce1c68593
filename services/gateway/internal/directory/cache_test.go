package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

// remembering is a cache whose answers are good for as long as the test says.
func remembering(good *atomic.Int64, able *atomic.Bool) *cache[string] {
	limit := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 20*time.Second)
	}
	return newCache(10, able.Load, limit, func(string) time.Duration { return time.Duration(good.Load()) })
}

func TestCacheAsksOnceForAllWhoAskAtATime(t *testing.T) {
	var good atomic.Int64
	var able atomic.Bool
	able.Store(true)
	good.Store(int64(time.Hour))
	c := remembering(&good, &able)
	var loads, asked atomic.Int64
	c.able = func() bool { asked.Add(1); return true }
	hold := make(chan struct{})
	load := func(context.Context) (string, error) {
		loads.Add(1)
		<-hold
		return "Lisa", nil
	}
	var wg sync.WaitGroup
	one := func() {
		if v, err := c.ask(t.Context(), "lisa", "q", false, 0, load); v != "Lisa" || err != nil {
			t.Errorf("got %q, %v", v, err)
		}
	}
	const askers = 50
	for range askers {
		wg.Go(one)
	}
	// Whoever leaves does not end the question for the others.
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := c.ask(gone, "lisa", "q", false, 0, load); !errors.Is(err, rpc.ErrUnavailable) {
		t.Errorf("one who left got %v", err)
	}
	testx.Eventually(t, "all ask, and one question is under way", 10*time.Second, func() bool { return asked.Load() == askers+1 && loads.Load() > 0 })
	if n := loads.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	close(hold) // who is only about to wait asks again
	wg.Wait()
	if v, isGood := c.fresh("lisa"); v != "Lisa" || !isGood {
		t.Errorf("remembered %q, %v", v, isGood)
	}
}

func TestCacheGivesWhatIsOldWhenNothingNewComes(t *testing.T) {
	var good atomic.Int64
	var able atomic.Bool
	able.Store(true)
	c := remembering(&good, &able) // nothing is good
	c.put("lisa", "Lisa")
	fail := func(context.Context) (string, error) { return "", errors.New("no") }
	ask := func(says bool, load func(context.Context) (string, error)) string {
		v, err := c.ask(t.Context(), "lisa", fmt.Sprint(t.Name(), says), says, time.Hour, load)
		return fmt.Sprint(v, " ", err)
	}
	if _, isGood := c.fresh("lisa"); isGood {
		t.Error("it is good for ever")
	}
	if got := ask(true, fail); got != "Lisa <nil>" {
		t.Errorf("on an error: %s", got)
	}
	if got := ask(false, fail); got != " no" {
		t.Errorf("what says nothing is given: %s", got)
	}
	able.Store(false)
	never := func(context.Context) (string, error) { t.Error("asked who cannot answer"); return "", nil }
	if got := ask(true, never); got != "Lisa <nil>" {
		t.Errorf("nobody to ask: %s", got)
	}
	able.Store(true)
	hang, done := make(chan struct{}), make(chan struct{})
	slow := func(context.Context) (string, error) { <-hang; close(done); return "LISA", nil }
	if v, err := c.ask(t.Context(), "lisa", "slow", true, time.Millisecond, slow); v != "Lisa" || err != nil {
		t.Errorf("impatient: %q, %v", v, err)
	}
	close(hang)
	<-done
	if got := ask(true, func(context.Context) (string, error) { return "new", nil }); got != "new <nil>" {
		t.Errorf("got %s", got)
	}
}
