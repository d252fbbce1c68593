package session

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"parley.example/client/wire"
)

// Places are how many connections a gateway takes.
type Places struct {
	Total      int
	PerAddress int                            // of one client address; an IPv6 address counts as its /64
	Address    func(*http.Request) netip.Addr // of the client
}

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
	asked []ticker      // who has not answered yet
}

const (
	// answerTime is how long who is asked has for an answer. It is short: a client that cannot answer in this time comes back by itself.
	answerTime = 3 * time.Second
	// doubtMost is how many are asked at a time, those first that have been silent for longest.
	doubtMost = 1000
	// roomTime is how long a newcomer waits for room: until the next look, the answers, and the look after them; the rest is slack.
	roomTime = answerTime + 4*tickEvery
)

// doubtLocked has those asked who fill a limit, at the next look; the result is closed when they have answered or gone. It needs mu.
func (h *Hub) doubtLocked(l limit) <-chan struct{} {
	d := h.doubts[l]
	if d == nil {
		d = &doubt{over: make(chan struct{})}
		h.doubts[l] = d
	}
	return d.over
}

// makeRoom goes on with the doubts. all are the connections.
func (h *Hub) makeRoom(all []ticker, now time.Time) {
	h.mu.Lock()
	doubts := make(map[limit]*doubt, len(h.doubts))
	for l, d := range h.doubts {
		doubts[l] = d
	}
	h.mu.Unlock()
	for l, d := range doubts {
		switch {
		case d.began == 0:
			d.began, d.asked = now.Unix(), h.silent(all, l)
			for _, c := range d.asked {
				c.ask()
			}
			continue
		case d.began < h.awake.Load():
			d.began = h.awake.Load() // answers may lie unread
		}
		d.asked = slices.DeleteFunc(d.asked, func(c ticker) bool {
			switch {
			case c.LastReceived() >= d.began:
				return true
			case now.Sub(time.Unix(d.began, 0)) >= answerTime:
				h.evict(c)
				return true
			}
			return false
		})
		if len(d.asked) == 0 {
			h.mu.Lock()
			delete(h.doubts, l)
			h.mu.Unlock()
			close(d.over)
		}
	}
}

// silent are those who fill a limit, by when they were heard last.
func (h *Hub) silent(all []ticker, l limit) []ticker {
	type heard struct {
		c  ticker
		at int64
	}
	var list []heard
	h.mu.Lock()
	for _, c := range all {
		if w, ok := c.(Wire); ok && h.waiting[w] {
			continue // its reader waits for room itself
		}
		if place, ok := h.tickers[c]; ok && (!l.address.IsValid() || place == l.address) {
			list = append(list, heard{c: c})
		}
	}
	h.mu.Unlock()
	if l.user != "" {
		list = slices.DeleteFunc(list, func(e heard) bool { s := e.c.session(); return s == nil || s.user != l.user })
	}
	for i := range list {
		list[i].at = list[i].c.LastReceived()
	}
	slices.SortFunc(list, func(a, b heard) int { return cmp.Compare(a.at, b.at) })
	out := make([]ticker, 0, min(len(list), doubtMost))
	for _, e := range list[:cap(out)] {
		out = append(out, e.c)
	}
	return out
}

// evict ends a connection that does not answer. Its places are free at once: to end in an orderly way takes it a while.
func (h *Hub) evict(c ticker) {
	h.remove(c, wire.CloseNoPong)
	if s := c.session(); s != nil {
		h.release(s)
	}
	c.close(wire.CloseNoPong)
}
