package session

import (
	"time"

	"parley/pkg/wire"
)

// bucket is a token bucket of 16 bytes, for connections, of which there are many. The zero value is full. It is not safe for
// concurrent use.
type bucket struct {
	spent float64 // tokens missing from a full bucket
	at    int64   // Unix ns of the last look
}

// mistake counts the bad frames of a connection, a minute at a time.
type mistake struct {
	n     int
	since time.Time
}

// tooMany counts one more, and reports whether the connection has to end.
func (m *mistake) tooMany(now time.Time) bool {
	if now.Sub(m.since) > time.Minute {
		m.since, m.n = now, 0
	}
	m.n++
	return m.n > wire.DefaultBadFramesAMinute
}

// allow takes one token, of perSecond new ones a second and burst at most.
func (b *bucket) allow(perSecond, burst int, now time.Time) bool {
	ns := now.UnixNano()
	b.spent = max(0, b.spent-float64(ns-b.at)/1e9*float64(perSecond))
	b.at = ns
	if b.spent+1 > float64(burst) {
		return false
	}
	b.spent++
	return true
}
