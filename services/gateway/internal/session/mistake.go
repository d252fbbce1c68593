package session

import "time"

// badFramesAMinute is how many frames that make no sense a connection may send in a minute.
const badFramesAMinute = 30

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
	return m.n > badFramesAMinute
}
