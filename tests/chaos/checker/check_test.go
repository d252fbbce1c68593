package checker

import (
	"slices"
	"strings"
	"testing"

	"parley.example/tests/picture"
)

func TestCheckerPassesGoodHistories(t *testing.T) {
	var sum Figures
	for seed := range uint64(400) {
		h := goodHistory(seed)
		if bad := Check(h); len(bad) > 0 {
			t.Fatalf("seed %d: %d found in a good history, the first:\n%s", seed, len(bad), Show(h, bad[0]))
		}
		f := Count(h)
		sum.Accepted += f.Accepted
		sum.Again += f.Again
		sum.Refused += f.Refused
		sum.Resent += f.Resent
		sum.Disconnected += f.Disconnected
	}
	if sum.Accepted < 400*20 || sum.Again < 400 || sum.Refused < 400 || sum.Resent < 400 || sum.Disconnected < 400 {
		t.Errorf("the histories have too little in them: %+v", sum)
	}
}

// bug plants one violation; false when this history has no place for it.
type bug struct {
	what  string
	plant func(h *History, n int) bool
}

func received(dev string) func(*Event) bool {
	return func(e *Event) bool { return e.Kind == Received && e.Device == dev && e.Sender != e.User }
}

// drop takes every receipt of one message at one device away.
func drop(h *History, user, dev string, m Event) {
	h.Events = slices.DeleteFunc(h.Events, func(e Event) bool {
		return e.Kind == Received && e.User == user && e.Device == dev && e.ID == m.ID && e.Sender == m.Sender
	})
}

// edge finds the first, last or a middle message that a device has of a room.
func edge(h *History, which int) (Event, bool) {
	var of []Event
	for _, e := range h.Events {
		// Neither its own messages nor what it sent from another device: all of ann's first device.
		if e.User == "ann" && e.Device == "sdk" && (e.Kind == Received || e.Kind == Accepted) && e.Room == "ann&bob" {
			of = append(of, e)
		}
	}
	slices.SortFunc(of, func(a, b Event) int { return int(a.Seq - b.Seq) })
	if len(of) < 5 {
		return Event{}, false
	}
	m := of[[]int{0, len(of) / 2, len(of) - 1}[which]]
	return m, m.Kind == Received
}

func lose(which int) func(h *History, _ int) bool {
	return func(h *History, _ int) bool {
		m, ok := edge(h, which)
		if ok {
			drop(h, "ann", "sdk", m)
		}
		return ok
	}
}

// neighbours makes two that come one after the other change places.
func neighbours(dev string) func(h *History, n int) bool {
	return func(h *History, n int) bool {
		for i := where(h, n, received(dev)); i >= 0 && i+1 < len(h.Events); i++ {
			a, b := h.Events[i], h.Events[i+1]
			if a.Kind == Received && b.Kind == Received && a.User == b.User && a.Device == b.Device && a.Room == b.Room && b.Seq > a.Seq && a.Device == dev && (dev == "old" || a.Sender != a.User && b.Sender != b.User) {
				h.Events[i], h.Events[i+1] = b, a
				return true
			}
		}
		return false
	}
}

var bugs = []bug{
	{LostPrefix, lose(0)}, {LostMiddle, lose(1)}, {LostTail, lose(2)},
	{LostTail, func(h *History, _ int) bool { // of a user none of whose devices keeps its place
		for i := range h.Devices {
			h.Devices[i].Keeps = false
		}
		var m Event
		for _, e := range h.Events {
			if e.Kind == Accepted && e.Room == "bob&cid" && e.Seq >= m.Seq {
				m = e
			}
		}
		if m.Sender != "bob" {
			return false
		}
		for _, d := range h.Devices {
			drop(h, "cid", d.Name, m)
		}
		return true
	}},
	{Twice, func(h *History, n int) bool { // a client that drops what it has seen, in a later session
		i := where(h, n, received("sdk"))
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.Session += 100
		insert(h, i+1, e)
		return true
	}},
	{Twice, func(h *History, n int) bool { // any client, in one session
		i := where(h, n, received("named"))
		if i < 0 {
			return false
		}
		insert(h, i+1, h.Events[i])
		return true
	}},
	{Twin, func(h *History, n int) bool {
		i := where(h, n, received("named"))
		if i < 0 {
			return false
		}
		// Nobody else has this seq: they are below 2,000.
		e := h.Events[i]
		e.Seq, e.Session = e.Seq+100_000, e.Session+100
		h.Events = append(h.Events, e)
		return true
	}},
	{Disorder, neighbours("sdk")}, {Disorder, neighbours("named")}, {Disorder, neighbours("old")},
	{Disorder, func(h *History, n int) bool { // accepted below what had been accepted before it was sent
		i := where(h, n+5, func(e *Event) bool { return e.Kind == Accepted && e.Room == "ann&bob" })
		if i < 0 {
			return false
		}
		m := h.Events[i]
		for j := range h.Events {
			if e := &h.Events[j]; e.Room == m.Room && e.Sender == m.Sender && e.ID == m.ID && e.Seq != 0 {
				e.Seq, e.Late = 0, true
			}
		}
		// Conversation and markers say what the rooms have; only this message's place is wrong.
		for j := range h.Events {
			if e := &h.Events[j]; e.Seq == m.Seq && (e.Kind == MarkedRead || e.Kind == Conversation && e.Seq == m.Seq) {
				return false
			}
		}
		return unreadStands(h, m)
	}},
	{Disagree, func(h *History, n int) bool { // two messages change their seqs on one device
		i := where(h, n, received("named"))
		if i < 0 {
			return false
		}
		e := h.Events[i]
		j := where(h, 0, func(o *Event) bool { return o.Kind == Accepted && o.Room == e.Room && o.Seq > e.Seq })
		if j < 0 {
			return false
		}
		other := h.Events[j].Seq
		insert(h, len(h.Events), Event{Kind: Received, User: e.User, Device: e.Device, Session: e.Session + 100, Room: e.Room, Sender: e.Sender, ID: e.ID, Content: e.Content, Seq: other})
		return true
	}},
	{Leaked, func(h *History, n int) bool {
		i := where(h, n, func(e *Event) bool { return e.Kind == Received && e.Room == "ann&bob" })
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.User, e.Device = "cid", "sdk"
		insert(h, i+1, e)
		return true
	}},
	{Acknowledge, func(h *History, n int) bool {
		i := where(h, n, func(e *Event) bool { return e.Kind == Refused })
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.Kind, e.Seq = Accepted, 1_000_000
		insert(h, i+1, e)
		return true
	}},
	{Acknowledge, func(h *History, n int) bool {
		i := where(h, n, func(e *Event) bool { return e.Kind == Refused })
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.Kind, e.Seq, e.User, e.Device, e.Session = Received, 1_000_000, peer(e.Room, e.User), "named", 900
		insert(h, i+1, e)
		return true
	}},
	{Invented, func(h *History, n int) bool {
		i := where(h, n, received("named"))
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.ID = "nobody's"
		insert(h, i+1, e)
		return true
	}},
	{Changed, func(h *History, n int) bool {
		i := where(h, n, received("named"))
		if i < 0 {
			return false
		}
		e := h.Events[i]
		e.Content, e.Session = "something else", 900
		insert(h, i+1, e)
		return true
	}},
	{Unlisted, func(h *History, n int) bool {
		i := where(h, n, func(e *Event) bool { return e.Kind == Listed })
		if i >= 0 {
			remove(h, i)
		}
		return i >= 0
	}},
	{Twice, func(h *History, n int) bool { // in one list
		i := where(h, n, func(e *Event) bool { return e.Kind == Listed })
		if i >= 0 {
			insert(h, i, h.Events[i])
		}
		return i >= 0
	}},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.Seq-- }) }},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.DeliveredSeq = -1 }) }},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.PeerDeliveredSeq = -1 }) }},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.Unread++ }) }},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.ReadSeq++ }) }},
	{Markers, func(h *History, n int) bool { return conversation(h, n, func(e *Event) { e.PeerReadSeq++ }) }},
	{Markers, func(h *History, n int) bool {
		return conversation(h, n, func(e *Event) { e.DeliveredSeq += 1_000_000 })
	}},
	{Presence, func(h *History, n int) bool { return believes(h, n, []string{"ann", "bob"}) }},
	{Presence, func(h *History, n int) bool { return believes(h, n, []string{"ann", "bob", "cid", "dan"}) }},
	{Presence, func(h *History, n int) bool {
		i := where(h, n%4, func(e *Event) bool { return e.Kind == Believes })
		if i >= 0 {
			h.Events[i].InTheDark = true
		}
		return i >= 0
	}},
	{Live, func(h *History, n int) bool { // a read mark that was not told
		return knows(h, n, func(e *Event, m picture.Mark) bool { return m.Read && e.Picture.Marks[m] > 0 && forget(h, e, m) })
	}},
	{Live, func(h *History, n int) bool { // a delivered one
		return knows(h, n, func(e *Event, m picture.Mark) bool {
			return !m.Read && e.Picture.Marks[picture.Mark{Room: m.Room, User: m.User, Read: true}] == 0 && forget(h, e, m)
		})
	}},
	{Live, func(h *History, n int) bool { // one that nobody set
		return knows(h, n, func(e *Event, m picture.Mark) bool {
			was := e.Picture.Marks[m]
			e.Picture.Marks[m] = 1_000_000
			return m.Read && others(h, m, was) < others(h, m, 1_000_000)
		})
	}},
	{Live, func(h *History, n int) bool {
		return knows(h, n, func(e *Event, m picture.Mark) bool { e.Picture.Contact(peer(m.Room, e.User), false); return true })
	}},
	{Live, func(h *History, n int) bool {
		return knows(h, n, func(e *Event, _ picture.Mark) bool { e.Picture.Contact("dan", true); return true })
	}},
	{Back, func(h *History, _ int) bool {
		insert(h, 30, Event{Kind: WentBack, User: "ann", Device: "sdk", Session: 1, Room: "ann&bob", Sender: "bob", Seq: 3})
		return true
	}},
	{Unresolved, func(h *History, _ int) bool {
		insert(h, 30, Event{Kind: Sent, User: "ann", Device: "sdk", Session: 1, Room: "ann&bob", Sender: "ann", ID: "open", Content: "x"})
		return true
	}},
}

// knows changes what one device knows of one mark, once change takes one.
func knows(h *History, n int, change func(*Event, picture.Mark) bool) bool {
	i := where(h, n%4, func(e *Event) bool { return e.Kind == Knows })
	if i < 0 {
		return false
	}
	e := &h.Events[i]
	for m := range e.Picture.Clone().Marks {
		if change(e, m) {
			return true
		}
	}
	return false
}

// forget takes a mark away; false when there are no messages that it is about.
func forget(h *History, e *Event, m picture.Mark) bool {
	was := e.Picture.Marks[m]
	e.Picture.Marks[m] = 0
	return others(h, m, was) > 0
}

// others is how many messages a mark up to seq is about.
func others(h *History, m picture.Mark, seq int64) (n int) {
	for i := range h.Events {
		if e := &h.Events[i]; e.Kind == Accepted && e.Room == m.Room && e.Sender != m.User && e.Seq <= seq {
			n++
		}
	}
	return n
}

func conversation(h *History, n int, change func(*Event)) bool {
	i := where(h, n%2, func(e *Event) bool { return e.Kind == Conversation })
	if i >= 0 {
		change(&h.Events[i])
	}
	return i >= 0
}

func believes(h *History, n int, online []string) bool {
	i := where(h, n%4, func(e *Event) bool { return e.Kind == Believes })
	if i >= 0 {
		h.Events[i].Online = online
	}
	return i >= 0
}

// unreadStands reports that moving m to the front of its room changed no unread count.
func unreadStands(h *History, m Event) bool {
	for i := range h.Events {
		if e := &h.Events[i]; e.Kind == MarkedRead && e.Room == m.Room && e.Seq < m.Seq {
			return false
		}
	}
	return where(h, 0, func(e *Event) bool {
		return e.Kind == Conversation && e.Room == m.Room && e.ReadSeq == 0 && e.User != m.Sender
	}) < 0
}

// TestCheckerFindsEveryBug plants each kind of violation into good histories: it is found, and nothing else is.
func TestCheckerFindsEveryBug(t *testing.T) {
	for i, b := range bugs {
		planted := 0
		for seed := range uint64(60) {
			h := goodHistory(seed)
			if !b.plant(h, int(seed%7)) {
				continue
			}
			planted++
			bad := Check(h)
			for _, v := range bad {
				// Who gets a wrong seq disagrees about it as well: the same thing, seen from two sides.
				if v.What == b.what || b.what == Disagree && (v.What == Twin || v.What == Disorder) || b.what == Disorder && v.What == Disagree {
					continue
				}
				t.Errorf("bug %d (%s), seed %d: found %s", i, b.what, seed, v)
			}
			if !slices.ContainsFunc(bad, func(v Violation) bool { return v.What == b.what }) {
				t.Errorf("bug %d (%s), seed %d: not found", i, b.what, seed)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		if planted < 3 {
			t.Errorf("bug %d (%s) was planted %d times only", i, b.what, planted)
		}
	}
}

func TestCheckerShrinksToWhatMatters(t *testing.T) {
	h := goodHistory(7)
	m, ok := edge(h, 1)
	for seed := uint64(8); !ok; seed++ {
		h = goodHistory(seed)
		m, ok = edge(h, 1)
	}
	drop(h, "ann", "sdk", m)
	bad := Check(h)
	if len(bad) != 1 {
		t.Fatalf("%d violations", len(bad))
	}
	small := Shrink(h, bad[0])
	if len(small.Events) > 60 || len(small.Events) >= len(h.Events)/4 {
		t.Errorf("%d events of %d are left", len(small.Events), len(h.Events))
	}
	if s := Show(h, bad[0]); !strings.Contains(s, m.ID) || !strings.Contains(s, LostMiddle) {
		t.Errorf("shown:\n%s", s)
	}
}
