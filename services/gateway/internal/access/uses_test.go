package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
)

// The first use of a token that came with a refresh is told, once, also when auth is away at first.
func TestUsesAreToldOnce(t *testing.T) {
	var mu sync.Mutex
	told := map[api.Use]int{}
	away := true
	tell := func(_ context.Context, r api.UsedRequest) (resp api.Empty, err error) {
		mu.Lock()
		defer mu.Unlock()
		if len(r.Uses) > api.MaxUses {
			t.Errorf("%d uses at a time", len(r.Uses))
		}
		if away {
			away = false
			return resp, errors.New("away")
		}
		for _, u := range r.Uses {
			told[u]++
		}
		return resp, nil
	}
	kv := &fakeKV{watchers: map[string]watch{}, started: make(chan string, 2)}
	v := New(kv, tell, testx.Quiet(), prometheus.NewRegistry())
	run(t, v)
	<-kv.started
	<-kv.started
	s := signer(t)
	kid, key := public(s)
	kv.watchers[api.KeysBucket].f(kid, key, false)
	kv.watchers[api.KeysBucket].initial()
	kv.watchers[api.RevokedBucket].initial()
	use := func(sid string, turn int64) {
		t.Helper()
		now := time.Now()
		tok, err := s.Sign(token.Claims{Username: "Avi", SID: sid, Scope: token.ScopeNative, Issued: now, Expires: now.Add(time.Minute), Turn: turn})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(tok, now); err != nil {
			t.Fatal(err)
		}
	}
	const logins = api.MaxUses + 50
	for range 3 {
		use("with a password", 0)
		for i := range logins {
			use(fmt.Sprint("s", i), 1)
		}
	}
	testx.Eventually(t, "all are told", 20*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == logins
	})
	use("s0", 2)
	use("s0", 1)
	testx.Eventually(t, "the next turn is told", 20*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told[api.Use{SID: "s0", Turn: 2}] == 1
	})
	mu.Lock()
	defer mu.Unlock()
	for u, n := range told {
		if n != 1 || u.Turn == 0 {
			t.Errorf("%+v is told %d times", u, n)
		}
	}
}

// However many logins there are, little is remembered.
func TestUsesAreBounded(t *testing.T) {
	u := newUses(untold, testx.Quiet())
	for i := range 3 * maxNoted {
		u.note(token.Claims{SID: fmt.Sprint(i), Turn: 1})
	}
	if len(u.noted) > maxNoted || len(u.pending) > maxNoted {
		t.Fatalf("%d and %d are remembered", len(u.noted), len(u.pending))
	}
}
