package session

import (
	"time"

	"parley.example/client/wire"
)

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
