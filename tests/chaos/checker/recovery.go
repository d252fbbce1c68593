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

// Interval is what clients saw of one stretch of time.
type Interval struct {
	Accepted       int
	Broken         int           // connections that ended
	Reconnect      time.Duration // the longest that a device whose connection ended in it had none
	Accept         time.Duration // the longest from when a message of it was first sent until it was accepted
	SlowestDevice  string        // whose Reconnect it was
	SlowestMessage string        // whose Accept it was
}

// During measures from from until to. What began in it and ended later counts in full.
func During(h *History, from, to time.Duration) Interval {
	var r Interval
	sent := map[message]time.Duration{}
	gone := map[device]time.Duration{}
	last := time.Duration(0)
	for i := range h.Events {
		e := &h.Events[i]
		last = e.At
		within := e.At >= from && e.At < to
		d, m := device{e.User, e.Device}, message{e.Room, e.Sender, e.ID}
		switch e.Kind {
		case Sent:
			if _, again := sent[m]; !again && within {
				sent[m] = e.At
			}
		case Accepted:
			if within {
				r.Accepted++
			}
			if at, ok := sent[m]; ok && e.At-at > r.Accept {
				r.Accept, r.SlowestMessage = e.At-at, e.Sender+" "+e.ID
			}
			delete(sent, m)
		case Disconnected:
			if within {
				gone[d] = e.At
				r.Broken++
			}
		case Connected:
			if at, ok := gone[d]; ok && e.At-at > r.Reconnect {
				r.Reconnect, r.SlowestDevice = e.At-at, d.user+"/"+d.name
			}
			delete(gone, d)
		}
	}
	for d, at := range gone {
		if last-at > r.Reconnect {
			r.Reconnect, r.SlowestDevice = last-at, d.user+"/"+d.name+" (never)"
		}
	}
	return r
}
