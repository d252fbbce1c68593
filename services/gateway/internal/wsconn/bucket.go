package wsconn

import "time"

// Bucket is a token bucket of 16 bytes, for connections, of which there are many. The zero value is full. It is not safe for
// concurrent use.
type Bucket struct {
	spent float64 // tokens missing from a full bucket
	at    int64   // Unix ns of the last look
}

// Allow takes one token, of perSecond new ones a second and burst at most.
func (b *Bucket) Allow(perSecond, burst int, now time.Time) bool {
	ns := now.UnixNano()
	// A clock that is set back takes nothing away.
	b.spent = max(0, b.spent-float64(max(0, ns-b.at))/1e9*float64(perSecond))
	b.at = ns
	if b.spent+1 > float64(burst) {
		return false
	}
	b.spent++
	return true
}
