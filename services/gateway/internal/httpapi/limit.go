package httpapi

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// maxAddresses bounds what the limiter remembers (about 200 bytes each). When there are more, the one that was
// quiet for longest is forgotten, that is, gets its burst back early.
const maxAddresses = 65536

// limiter is a token bucket for each client address.
type limiter struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	buckets *simplelru.LRU[netip.Addr, *rate.Limiter]
}

func newLimiter(perSecond float64, burst, addresses int) (*limiter, error) {
	l, err := simplelru.NewLRU[netip.Addr, *rate.Limiter](addresses, nil)
	if err != nil {
		return nil, err
	}
	return &limiter{rate: rate.Limit(perSecond), burst: burst, buckets: l}, nil
}

// wait is how long a's next request must wait; 0 means that it may go on, and takes a token.
func (l *limiter) wait(a netip.Addr, now time.Time) time.Duration {
	if a.Is6() {
		// One customer of an IPv6 provider has a /64 at least.
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets.Get(a)
	if !ok {
		b = rate.NewLimiter(l.rate, l.burst)
		l.buckets.Add(a, b)
	}
	r := b.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now) // a refused request costs nothing
	}
	return d
}
