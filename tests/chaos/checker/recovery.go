package checker

import (
	"slices"
	"time"
)

// Recovered is how long after a fault everything went on.
type Recovered struct {
	Senders           int           // that were asked about
	Never             int           // of these: not accepted again within the time; they count as that long
	HalfAgain         time.Duration // until half of them were accepted again
	AllAgain          time.Duration // until all were
	ReceiversCaughtUp time.Duration // until the last first receipt of what was sent until then, the backlog included
}

// Recovery measures from the moment at on. A sender is accepted again when a message that it sent after at is; who sent something
// and was not within the time, or only later, counts as within. Receipts count whenever they came.
func Recovery(h *History, at, within time.Duration) Recovered {
	type sender struct{ user, device string }
	type receiver struct {
		user, device string
		message
	}
	first := map[sender]time.Duration{} // 0: not yet
	sent := map[message]time.Duration{} // first
	got := map[receiver]bool{}
	for i := range h.Events {
		e := &h.Events[i]
		switch m, k := (message{e.Room, e.Sender, e.ID}), (sender{e.User, e.Device}); e.Kind {
		case Sent:
			if _, ok := sent[m]; !ok {
				sent[m] = e.At
			}
			// Who began shortly before the end says nothing of the fault.
			if _, ok := first[k]; !ok && e.At >= at && e.At <= at+within/2 {
				first[k] = 0
			}
		case Accepted:
			if d, asked := first[k]; asked && d == 0 && e.At <= at+within && sent[m] >= at {
				first[k] = max(e.At-at, 1)
			}
		}
	}
	r := Recovered{Senders: len(first)}
	if len(first) == 0 {
		return r
	}
	var all []time.Duration
	for _, d := range first {
		if d == 0 {
			r.Never++
			d = within
		}
		all = append(all, d)
	}
	slices.Sort(all)
	r.HalfAgain, r.AllAgain = all[len(all)/2], all[len(all)-1]
	for i := range h.Events {
		e := &h.Events[i]
		if e.Kind != Received {
			continue
		}
		m := message{e.Room, e.Sender, e.ID}
		k := receiver{e.User, e.Device, m}
		if s, ok := sent[m]; ok && !got[k] && e.At > at && s <= at+r.AllAgain {
			r.ReceiversCaughtUp = max(r.ReceiversCaughtUp, e.At-at)
		}
		got[k] = true
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
