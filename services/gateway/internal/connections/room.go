package connections

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"parley.example/client/wire"
)

// network is what one client has: an IPv4 address or an IPv6 /64.
func network(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		if net, err := a.Prefix(64); err == nil {
			return net.Addr()
		}
	}
	return a
}

// limit is one that was reached: of a user, of an address, or, when it is neither's, of the gateway.
type limit struct {
	user    string
	address netip.Addr
}

// doubt is whether those still live who fill a limit. They are asked, and who does not answer makes room: limits must not prefer the dead to the
// living, and of a connection that has died without a word nothing is known for two heartbeats.
type doubt struct {
	over  chan struct{} // closed when everybody has answered or gone
	began int64         // Unix seconds of the question, 0 before it
	asked []Conn        // who has not answered yet
}

const (
	// answerTime is how long who is asked has for an answer. It is short: a client that cannot answer in this time comes back by itself.
	answerTime = 3 * time.Second
	// doubtMost is how many are asked at a time, those first that have been silent for longest.
	doubtMost = 1000
	// PlaceTime is how long a newcomer waits for a place: until the next look, the answers, and the look after them; the rest is slack.
	PlaceTime = answerTime + 4*TickEvery
)

// doubt has those asked who fill a limit, at the next look; the result is closed when they have answered or gone. It needs mu.
func (t *Table) doubt(l limit) <-chan struct{} {
	d := t.doubts[l]
	if d == nil {
		d = &doubt{over: make(chan struct{})}
		t.doubts[l] = d
	}
	return d.over
}

// makeRoom goes on with the doubts. all are the connections.
func (t *Table) makeRoom(all []Conn, now time.Time) {
	t.mu.Lock()
	doubts := maps.Clone(t.doubts)
	t.mu.Unlock()
	for l, d := range doubts {
		switch {
		case d.began == 0:
			d.began, d.asked = now.Unix(), t.silent(all, l)
			for _, c := range d.asked {
				c.Ask()
			}
			continue
		case d.began < t.awake.Load():
			d.began = t.awake.Load() // answers may lie unread
		}
		d.asked = slices.DeleteFunc(d.asked, func(c Conn) bool {
			switch {
			case c.LastReceived() >= d.began:
				return true
			case now.Sub(time.Unix(d.began, 0)) >= answerTime:
				// Its places are free at once: to end in an orderly way takes it a while.
				t.Remove(c, wire.CloseNoPong)
				c.Close(wire.CloseNoPong)
				return true
			}
			return false
		})
		if len(d.asked) == 0 {
			t.mu.Lock()
			delete(t.doubts, l)
			t.mu.Unlock()
			close(d.over)
		}
	}
}

// silent are those who fill a limit, by when they were heard last.
func (t *Table) silent(all []Conn, l limit) []Conn {
	type heard struct {
		c  Conn
		at int64
	}
	var list []heard
	t.mu.Lock()
	for _, c := range all {
		// Who waits for a place does not read.
		if e, ok := t.conns[c]; ok && !e.waiting && (!l.address.IsValid() || e.address == l.address) && (l.user == "" || e.user == l.user) {
			list = append(list, heard{c: c})
		}
	}
	t.mu.Unlock()
	for i := range list {
		list[i].at = list[i].c.LastReceived()
	}
	slices.SortFunc(list, func(a, b heard) int { return cmp.Compare(a.at, b.at) })
	out := make([]Conn, 0, min(len(list), doubtMost))
	for _, e := range list[:cap(out)] {
		out = append(out, e.c)
	}
	return out
}
