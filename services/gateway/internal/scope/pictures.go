package scope

import (
	"strconv"
	"sync"

	"parley.example/client/wire"
	"parley.example/pkg/api"
)

// pictures keeps the last batch of presence, which usually goes to many sessions in a row: they get the same one, so that it is encoded once.
type pictures struct {
	mu   sync.Mutex
	key  string
	last *wire.Presence
}

func (c *pictures) of(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) *wire.Presence {
	key := pictureKey(online, offline, unknown, snapshot, partial)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && c.key == key {
		return c.last
	}
	p := &wire.Presence{Online: online, Offline: make([]wire.Offline, 0, len(offline)), Unknown: unknown, Snapshot: snapshot, Partial: partial}
	if p.Online == nil {
		p.Online = []string{}
	}
	for _, o := range offline {
		p.Offline = append(p.Offline, wire.Offline{Username: o.User, LastSeen: wire.Millis(o.LastSeen)})
	}
	c.key, c.last = key, p
	return p
}

// pictureKey spells the batch out: comparing texts is cheap beside encoding, and cannot be wrong.
func pictureKey(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) string {
	n := 8
	for _, u := range online {
		n += len(u) + 1
	}
	b := make([]byte, 0, n+len(offline)*32)
	b = strconv.AppendBool(b, unknown)
	b = strconv.AppendBool(b, snapshot)
	b = strconv.AppendBool(b, partial)
	for _, u := range online {
		b = append(append(b, '+'), u...)
		b = append(b, '&') // in no name
	}
	for _, o := range offline {
		b = append(append(b, '-'), o.User...)
		b = strconv.AppendInt(append(b, '&'), o.LastSeen, 10)
	}
	return string(b)
}
