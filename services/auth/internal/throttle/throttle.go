// Package throttle slows the guessing of passwords down: per account and per address of the client, in SQL, so
// that all replicas share it.
package throttle

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/services/auth/internal/store"
)

// Counter is where failures are counted.
type Counter interface {
	Blocked(ctx context.Context, key string, now time.Time) (time.Duration, error)
	Charge(ctx context.Context, key string, p store.Policy, now time.Time) (time.Duration, error)
	Refund(ctx context.Context, key string) error
	Forget(ctx context.Context, key string) error
}

var _ Counter = (*store.Store)(nil)

// Window without an attempt after which failures are forgotten.
const Window = time.Hour

// Throttle decides whether a password may be tried.
type Throttle struct {
	counter          Counter
	account, address store.Policy
}

// New allows that many failures before the first block. One account is never blocked for longer than a minute: longer
// would let anybody lock anybody else out. An address is blocked for a quarter of an hour at most.
func New(c Counter, perAccount, perAddress int) *Throttle {
	return &Throttle{
		counter: c,
		account: store.Policy{Free: perAccount, Base: time.Second, Max: time.Minute, Window: Window},
		address: store.Policy{Free: perAddress, Base: time.Second, Max: 15 * time.Minute, Window: Window},
	}
}

// Attempt is one try of a password that was let through.
type Attempt struct {
	t                *Throttle
	account, address string
}

// Begin lets a try through or answers rate_limited. The account is charged at once, so that no more than the allowed
// number can be under way in parallel. The address is charged for failures only: behind one address a whole company may log in
// within a minute, and what passes beside it is bounded by the queue for hashes.
func (t *Throttle) Begin(ctx context.Context, name, address string, now time.Time) (*Attempt, error) {
	a := &Attempt{t: t, account: key("u:", room.Fold(name)), address: addressKey(address)}
	if a.address != "" {
		d, err := t.counter.Blocked(ctx, a.address, now)
		if err != nil {
			return nil, err
		}
		if d > 0 {
			return nil, limited(d)
		}
	}
	d, err := t.counter.Charge(ctx, a.account, t.account, now)
	if err != nil {
		return nil, err
	}
	if d > 0 {
		return nil, limited(d)
	}
	return a, nil
}

// Failed counts a wrong password.
func (a *Attempt) Failed(ctx context.Context, now time.Time) error {
	if a.address == "" {
		return nil
	}
	_, err := a.t.counter.Charge(ctx, a.address, a.t.address, now)
	return err
}

// Succeeded forgets the failures of the account. Those of the address stay: its owner may have one good account.
func (a *Attempt) Succeeded(ctx context.Context) error { return a.t.counter.Forget(ctx, a.account) }

// Abandoned takes the charge back, when no password was compared.
func (a *Attempt) Abandoned(ctx context.Context) error { return a.t.counter.Refund(ctx, a.account) }

func limited(d time.Duration) *wire.Error {
	e := wire.E(wire.RateLimited, "too many failed attempts; try again later")
	e.RetryAfterMS = max(1, d.Milliseconds())
	return e
}

// key has a fixed size, whatever the text.
func key(kind, text string) string {
	h := sha256.Sum256([]byte(text))
	return kind + base64.RawURLEncoding.EncodeToString(h[:16])
}

// addressKey counts an IPv6 network of one customer (/64) as one address; "" for no address.
func addressKey(s string) string {
	if s == "" {
		return ""
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		ip = ip.Unmap().WithZone("")
		if ip.Is6() {
			if p, err := ip.Prefix(64); err == nil {
				s = p.String()
			}
		} else {
			s = ip.String()
		}
	}
	return key("a:", s)
}
