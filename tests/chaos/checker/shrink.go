package checker

import (
	"fmt"
	"slices"
	"strings"
)

// shrinkChecks bounds the work of Shrink; a history that is not minimal then is still one that fails.
const shrinkChecks = 400

// Shrink leaves of a history what is needed to see the violation: of its room, only the messages without which it would not be there.
func Shrink(h *History, v Violation) *History {
	small := &History{Devices: h.Devices}
	for i := range h.Events {
		if e := &h.Events[i]; e.Room == v.Room || e.Room == "" && (v.Room == "" || member(v.Room, e.User)) {
			small.Events = append(small.Events, *e)
		}
	}
	fails := func(c *History) bool {
		return slices.ContainsFunc(Check(c), func(w Violation) bool {
			return w.What == v.What && w.User == v.User && w.Device == v.Device && w.ID == v.ID && w.Sender == v.Sender
		})
	}
	if !fails(small) {
		return small // it depends on more than its room
	}
	// What belongs together goes together: the events of one message; the connections of one device.
	group := func(e *Event) string {
		if e.ID != "" {
			return "m " + e.Sender + " " + e.ID
		}
		return "d " + e.User + " " + e.Device + " " + e.Room
	}
	groups := func(h *History) (out []string) {
		seen := map[string]bool{}
		for i := range h.Events {
			if g := group(&h.Events[i]); !seen[g] {
				seen[g] = true
				out = append(out, g)
			}
		}
		return out
	}
	tries := 0
	for size := len(groups(small)) / 2; size > 0; {
		list := groups(small)
		progress := false
		for from := 0; from < len(list) && tries < shrinkChecks; from += size {
			drop := map[string]bool{}
			for _, g := range list[from:min(from+size, len(list))] {
				drop[g] = true
			}
			next := &History{Devices: small.Devices}
			for i := range small.Events {
				if !drop[group(&small.Events[i])] {
					next.Events = append(next.Events, small.Events[i])
				}
			}
			tries++
			if fails(next) {
				small, progress = next, true
			}
		}
		if !progress || tries >= shrinkChecks {
			size /= 2
		}
	}
	return small
}

// maxShown is how many events of a history are worth reading.
const maxShown = 80

// Show writes a violation and the shrunk history of its room.
func Show(h *History, v Violation) string {
	small := Shrink(h, v)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", v)
	skip := max(0, len(small.Events)-maxShown)
	if skip > 0 {
		fmt.Fprintf(&b, "  … %d events before\n", skip)
	}
	for i := skip; i < len(small.Events); i++ {
		fmt.Fprintf(&b, "  %s\n", &small.Events[i])
	}
	return b.String()
}
