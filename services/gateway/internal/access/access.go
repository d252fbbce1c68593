// Package access judges access tokens without asking anybody: it mirrors the public keys and the revocations that
// auth keeps in NATS.
package access

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/token"
)

// A token that was good once: its login was ended, or its user was locked out.
var (
	ErrRevoked  = errors.New("the token was revoked")
	ErrDisabled = errors.New("the user is disabled")
)

// KV follows a bucket; *bus.Bus does.
type KV interface {
	// WatchKV calls f for every key, then initial, then f for every change, until ctx ends. It may read everything again,
	// followed by initial; what f does not hear of meanwhile is gone.
	WatchKV(ctx context.Context, bucket string, f func(key string, value []byte, deleted bool), initial func())
}

const (
	// settle is when what a revocation hits is looked for a second time: a token that was found good just before
	// may have opened its connection just after the first time.
	settle = time.Second
	// pause between two searches; revocations that come faster are searched for together.
	pause = 50 * time.Millisecond
)

// Verifier is safe for concurrent use.
type Verifier struct {
	kv       KV
	log      *slog.Logger
	outcomes *prometheus.CounterVec

	mu      sync.RWMutex
	keys    table[ed25519.PublicKey] // by key id
	sids    table[struct{}]          // logins that ended
	users   table[int64]             // by subject token: Unix seconds up to which all tokens are void
	began   table[int64]             // by subject token: Unix milliseconds up to which logins that began are void
	locked  table[struct{}]          // by subject token: users who are disabled
	watcher func(match func(token.Claims) bool)
	changed chan struct{} // one token when something was revoked

	uses *uses
}

// New makes a Verifier that knows nothing yet; Run fills it. tell tells auth which access tokens were used.
func New(kv KV, tell func(context.Context, api.UsedRequest) (api.Empty, error), log *slog.Logger, reg prometheus.Registerer) *Verifier {
	v := &Verifier{
		kv: kv, log: log, changed: make(chan struct{}, 1),
		keys: newTable[ed25519.PublicKey](), sids: newTable[struct{}](), users: newTable[int64](), began: newTable[int64](), locked: newTable[struct{}](),
		uses:     newUses(tell, log),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_tokens_total", Help: "Access tokens by what came of them."}, []string{"outcome"}),
	}
	for _, o := range outcomes {
		v.outcomes.WithLabelValues(o)
	}
	reg.MustRegister(v.outcomes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_gateway_revocations", Help: "Revoked logins and users that are remembered."},
		func() float64 {
			v.mu.RLock()
			defer v.mu.RUnlock()
			return float64(len(v.sids.rows) + len(v.users.rows) + len(v.began.rows))
		}))
	return v
}

// Watch calls fn, from one goroutine, when tokens were revoked: whatever matches must be closed. Set it before Run.
func (v *Verifier) Watch(fn func(match func(token.Claims) bool)) {
	v.watcher = fn
}

// Run mirrors both buckets until ctx ends.
func (v *Verifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { v.kv.WatchKV(ctx, api.KeysBucket, v.key, func() { v.read(&v.keys) }) })
	wg.Go(func() {
		v.kv.WatchKV(ctx, api.RevokedBucket, v.revocation, func() { v.read(&v.sids, &v.users, &v.began, &v.locked) })
	})
	wg.Go(func() { v.search(ctx) })
	wg.Go(func() { v.uses.run(ctx) })
	wg.Wait()
	return nil
}

// Ready says what has not been read yet.
func (v *Verifier) Ready() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case !v.keys.complete:
		return errors.New("the public keys have not been read yet (auth makes them)")
	case !v.sids.complete:
		return errors.New("the revocations have not been read yet (auth makes their bucket)")
	}
	return nil
}

// Revoked reports whether a token with these claims is void.
func (v *Verifier) Revoked(c token.Claims) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if _, ok := v.sids.rows[c.SID]; ok {
		return true
	}
	if len(v.users.rows) == 0 && len(v.began.rows) == 0 {
		return false
	}
	user := subject.Token(c.Username)
	// Both times are whole seconds: a token of the very second may be older than the revocation.
	if row, ok := v.users.rows[user]; ok && c.Issued.Unix() <= row.value {
		return true
	}
	row, ok := v.began.rows[user]
	return ok && c.Began.UnixMilli() <= row.value
}

// Disabled reports whether a user whose tokens are void is locked out.
func (v *Verifier) Disabled(user string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, ok := v.locked.rows[subject.Token(user)]
	return ok
}

func (v *Verifier) key(kid string, value []byte, deleted bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if deleted {
		v.keys.drop(kid)
		return
	}
	key, err := base64.RawURLEncoding.DecodeString(string(value))
	// A key that is not what its name says was not written by auth.
	if err != nil || len(key) != ed25519.PublicKeySize || token.KeyID(key) != kid {
		v.log.Error("a public key in NATS is not one; ignored", "kid", kid)
		return
	}
	v.keys.put(kid, key)
}

func (v *Verifier) revocation(key string, value []byte, deleted bool) {
	kind, name, _ := strings.Cut(key, ".")
	v.mu.Lock()
	defer v.mu.Unlock()
	isNew := false
	switch {
	case kind == "sid" && deleted:
		v.sids.drop(name)
	case kind == "sid":
		_, had := v.sids.put(name, struct{}{})
		isNew = !had
	case kind == "user" && deleted:
		v.users.drop(name)
	case kind == "user":
		isNew = v.putTime(&v.users, key, name, value, time.Now().Unix())
	case kind == "disabled" && deleted:
		v.locked.drop(name)
	case kind == "disabled":
		v.locked.put(name, struct{}{})
	case kind == "began" && deleted:
		v.began.drop(name)
	case kind == "began":
		isNew = v.putTime(&v.began, key, name, value, time.Now().UnixMilli())
	default:
		v.log.Warn("a revocation in NATS is of no known kind; ignored", "key", key)
	}
	if isNew {
		select {
		case v.changed <- struct{}{}:
		default:
		}
	}
}

// putTime says whether that is new.
func (v *Verifier) putTime(t *table[int64], key, name string, value []byte, now int64) bool {
	until, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		// Too much is revoked rather than too little.
		v.log.Error("a revocation in NATS has no time; taken as now", "key", key)
		until = now
	}
	old, had := t.put(name, until)
	return !had || old != until
}

func (v *Verifier) read(tables ...interface{ sweep() }) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range tables {
		t.sweep()
	}
}

// search looks for connections that have to be closed.
func (v *Verifier) search(ctx context.Context) {
	var second <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
			second = time.After(settle)
		case <-second:
			second = nil
		}
		if v.watcher != nil {
			v.watcher(v.Revoked)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Outcomes of Verify, as metrics name them.
var outcomes = []string{"ok", "expired", "invalid", "revoked", "disabled", "unknown_key", "not_ready"}

// refusal is a *wire.Error for the client, and a cause for errors.Is.
type refusal struct {
	outcome string
	cause   error
	wire    *wire.Error
}

func (r *refusal) Error() string   { return r.cause.Error() }
func (r *refusal) Unwrap() []error { return []error{r.cause, r.wire} }

var (
	errNotReady = &refusal{"not_ready", errors.New("keys and revocations have not been read yet"), rpc.ErrUnavailable}
	errExpired  = &refusal{"expired", token.ErrExpired, wire.E(wire.Unauthenticated, "the token has expired; get a new one")}
	errRevoked  = &refusal{"revoked", ErrRevoked, wire.E(wire.Unauthenticated, "the token was revoked; log in again")}
	errDisabled = &refusal{"disabled", ErrDisabled, wire.E(wire.Unauthenticated, "this account is disabled")}
	errInvalid  = &refusal{"invalid", token.ErrInvalid, wire.E(wire.Unauthenticated, "the token is not valid")}
	errKey      = &refusal{"unknown_key", token.ErrKey, wire.E(wire.Unauthenticated, "the token is not valid")}
)

// Verify checks a token, revocation included. Every error is a *wire.Error for errors.As, and one of token's errors ErrRevoked
// or ErrDisabled for errors.Is.
func (v *Verifier) Verify(tok string, now time.Time) (token.Claims, error) {
	c, no := v.verify(tok, now)
	if no != nil {
		v.outcomes.WithLabelValues(no.outcome).Inc()
		return token.Claims{}, no
	}
	v.outcomes.WithLabelValues("ok").Inc()
	return c, nil
}

func (v *Verifier) verify(tok string, now time.Time) (token.Claims, *refusal) {
	if v.Ready() != nil {
		return token.Claims{}, errNotReady
	}
	c, err := token.Verify(tok, func(kid string) (ed25519.PublicKey, bool) {
		v.mu.RLock()
		defer v.mu.RUnlock()
		row, ok := v.keys.rows[kid]
		return row.value, ok
	}, now)
	switch {
	case errors.Is(err, token.ErrExpired):
		return c, errExpired
	case errors.Is(err, token.ErrKey):
		return c, errKey
	case err != nil:
		return c, errInvalid
	case v.Revoked(c) && v.Disabled(c.Username):
		return c, errDisabled
	case v.Revoked(c):
		return c, errRevoked
	}
	v.uses.note(c)
	return c, nil
}
