package checker

import (
	"slices"
	"time"
)

// Recovered is how long after a fault everything went on.
type Recovered struct {
	Senders           int           // that were asked about
	HalfAgain         time.Duration // until half of them were accepted again
	AllAgain          time.Duration // until all were
	ReceiversCaughtUp time.Duration // until the last receipt of what was sent until then
}

// Recovery measures from the moment at on, within the time that follows. A sender is accepted again when a message that it sent after at is.
func Recovery(h *History, at, within time.Duration) Recovered {
	type sender struct{ user, device string }
	first := map[sender]time.Duration{}
	sent := map[message]time.Duration{}
	asked := map[sender]bool{}
	for i := range h.Events {
		e := &h.Events[i]
		if e.At < at || e.At > at+within {
			continue
		}
		switch m := (message{e.Room, e.Sender, e.ID}); e.Kind {
		case Sent:
			sent[m] = e.At
			asked[sender{e.User, e.Device}] = true
		case Accepted:
			if _, ok := sent[m]; !ok {
				continue
			}
			if k := (sender{e.User, e.Device}); first[k] == 0 {
				first[k] = e.At - at
			}
		}
	}
	var all []time.Duration
	for _, d := range first {
		all = append(all, d)
	}
	slices.Sort(all)
	r := Recovered{Senders: len(asked)}
	if len(all) == 0 {
		return r
	}
	r.HalfAgain, r.AllAgain = all[len(all)/2], all[len(all)-1]
	for i := range h.Events {
		if e := &h.Events[i]; e.Kind == Received && e.At > at && e.At < at+within {
			if s, ok := sent[message{e.Room, e.Sender, e.ID}]; ok && s <= at+r.AllAgain {
				r.ReceiversCaughtUp = max(r.ReceiversCaughtUp, e.At-at)
			}
		}
	}
	return r
}
