package connections

import "time"

// badAMinute is how many mistakes of a kind a client may make in a minute.
const badAMinute = 30

// Mistake counts the mistakes of a client, a minute at a time.
type Mistake struct {
	n     int
	since time.Time
}

// TooMany counts one more, and reports whether the connection has to end.
func (m *Mistake) TooMany(now time.Time) bool {
	if now.Sub(m.since) > time.Minute {
		m.since, m.n = now, 0
	}
	m.n++
	return m.n > badAMinute
}
