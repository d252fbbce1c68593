package checker

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Check finds every broken promise. The history must have come to rest: everything healed, every client back and caught up.
func Check(h *History) []Violation {
	rooms := map[string]*room{}
	c := &check{h: h, devices: map[device]*Device{}, rooms: rooms, seen: map[sighting]last{}, open: map[device]int{}, since: map[device]int{}, first: map[device]int{}}
	for i := range h.Devices {
		d := &h.Devices[i]
		c.devices[device{d.User, d.Name}] = d
	}
	for i := range h.Events {
		c.event(i, &h.Events[i])
	}
	names := make([]string, 0, len(rooms))
	for name := range rooms {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c.lost(name, rooms[name])
		c.markers(name, rooms[name])
	}
	return c.found
}

type device struct{ user, name string }

// stored is one message that certainly was stored, by whatever evidence.
type stored struct {
	message
	seq      int64
	sent     int // index of the first Sent
	accepted bool
	listed   bool
	devices  map[device]bool // that know it: received or accepted there
	users    map[string]bool // that received it
}

type room struct {
	sent     map[message]*sending
	stored   map[message]*stored
	bySeq    map[int64]message
	accepted int64 // highest seq so far
	read     map[string]int64
	ends     []int // indices of Conversation
	listed   bool
}

type sending struct {
	index    int
	content  string
	after    int64 // highest seq accepted in the room before it first went out
	outcome  bool
	again    bool   // sent more than once
	rejected string // content that was refused; "" for none
}

// sighting is a message at a device; last says in which session it was, and at which seq.
type sighting struct {
	device
	message
}

type last struct {
	session int
	seq     int64
}

type check struct {
	h       *History
	devices map[device]*Device
	rooms   map[string]*room
	seen    map[sighting]last
	open    map[device]int // the session that is connected, absent for none
	since   map[device]int // index of the CaughtUp of the open session
	first   map[device]int // index of the first CaughtUp
	top     map[device]map[string]int64
	found   []Violation
}

func (c *check) room(name string) *room {
	r := c.rooms[name]
	if r == nil {
		r = &room{sent: map[message]*sending{}, stored: map[message]*stored{}, bySeq: map[int64]message{}, read: map[string]int64{}}
		c.rooms[name] = r
	}
	return r
}

func (c *check) violate(what string, e *Event, format string, args ...any) {
	c.found = append(c.found, Violation{What: what, Room: e.Room, User: e.User, Device: e.Device, Sender: e.Sender, ID: e.ID, Text: fmt.Sprintf(format, args...) + at(e.At)})
}

func at(d time.Duration) string { return fmt.Sprintf(" (at %.3f s)", d.Seconds()) }

func (c *check) event(i int, e *Event) {
	d := device{e.User, e.Device}
	m := message{e.Room, e.Sender, e.ID}
	switch e.Kind {
	case Connected:
		c.open[d] = e.Session
		delete(c.since, d)
		if what := c.devices[d]; e.Fresh || what == nil || !what.Dedupes {
			delete(c.top, d) // what comes again after a broken connection comes in order again
		}
	case Disconnected:
		delete(c.open, d)
		delete(c.since, d)
	case CaughtUp:
		if _, ok := c.first[d]; !ok {
			c.first[d] = i
		}
		if _, ok := c.since[d]; !ok {
			c.since[d] = i
		}
	case Sent:
		r := c.room(e.Room)
		if s := r.sent[m]; s == nil {
			r.sent[m] = &sending{index: i, content: e.Content, after: r.accepted}
		} else {
			s.again = true
		}
	case Refused:
		r := c.room(e.Room)
		if s := r.sent[m]; s != nil {
			s.outcome = true
			s.rejected = e.Content
		}
	case Unknown:
		if s := c.room(e.Room).sent[m]; s != nil && e.GaveUp {
			s.outcome = true
		}
	case Accepted:
		r := c.room(e.Room)
		s := c.evidence(r, m, e)
		if s == nil {
			return
		}
		r.sent[m].outcome = true
		s.accepted = true
		s.devices[d] = true
		r.accepted = max(r.accepted, e.Seq)
		if o := r.sent[m]; e.Seq <= o.after {
			c.violate(Disorder, e, "accepted as seq %d, though seq %d had been accepted before it was sent", e.Seq, o.after)
		}
	case Received:
		c.received(d, m, e)
	case Listed:
		r := c.room(e.Room)
		r.listed = true
		if s := c.evidence(r, m, e); s != nil {
			if s.listed {
				c.violate(Twice, e, "listed twice")
			}
			s.listed = true
		}
	case MarkedRead:
		r := c.room(e.Room)
		r.read[e.User] = max(r.read[e.User], e.Seq)
	case Believes:
		c.believes(e)
	case Conversation:
		r := c.room(e.Room)
		r.ends = append(r.ends, i)
	}
}

// evidence notes that a message is stored, and checks what can be told from this event alone.
func (c *check) evidence(r *room, m message, e *Event) *stored {
	out := r.sent[m]
	switch {
	case out == nil:
		c.violate(Invented, e, "nobody had sent it")
		return nil
	case out.rejected != "" && (e.Content == out.rejected || e.Content == "" && out.content == out.rejected):
		c.violate(Acknowledge, e, "it had been refused")
		return nil
	case e.Content != "" && e.Content != out.content:
		c.violate(Changed, e, "sent as %.40q, came as %.40q", out.content, e.Content)
		return nil
	}
	s := r.stored[m]
	if s == nil {
		s = &stored{message: m, seq: e.Seq, sent: out.index, devices: map[device]bool{}, users: map[string]bool{}}
		r.stored[m] = s
	}
	if s.seq != e.Seq {
		c.violate(Twin, e, "seq %d here, seq %d before", e.Seq, s.seq)
	}
	if have, ok := r.bySeq[e.Seq]; ok && have != m {
		c.violate(Disagree, e, "seq %d is %s of %s elsewhere", e.Seq, have.id, have.sender)
	}
	r.bySeq[e.Seq] = m
	return s
}

func (c *check) received(d device, m message, e *Event) {
	if !member(e.Room, e.User) {
		c.violate(Leaked, e, "it is not a room of %s", e.User)
		return
	}
	r := c.room(e.Room)
	s := c.evidence(r, m, e)
	if s == nil {
		return
	}
	s.devices[d] = true
	if e.User != e.Sender {
		s.users[e.User] = true
	}
	what := c.devices[d]
	if what == nil {
		what = &Device{}
	}
	key := sighting{d, m}
	if have, ok := c.seen[key]; ok {
		switch {
		case what.Echoes && e.Sender == e.User && r.sent[m].again:
			// Who sends again is shown again what he said.
		case have.session == e.Session:
			c.violate(Twice, e, "twice in one session")
		case what.Dedupes:
			c.violate(Twice, e, "in sessions %d and %d of a client that drops what it has seen", have.session, e.Session)
		}
	}
	c.seen[key] = last{e.Session, e.Seq}
	if what.Echoes && e.Sender == e.User {
		return // shown as soon as it is stored; it may overtake a catch-up
	}
	if c.top == nil {
		c.top = map[device]map[string]int64{}
	}
	top := c.top[d]
	if top == nil {
		top = map[string]int64{}
		c.top[d] = top
	}
	if e.Seq < top[e.Room] && !e.Late {
		c.violate(Disorder, e, "seq %d after seq %d, and not marked as late", e.Seq, top[e.Room])
	}
	top[e.Room] = max(top[e.Room], e.Seq)
}

// lost finds what was stored and did not reach whom it had to.
func (c *check) lost(name string, r *room) {
	all := make([]*stored, 0, len(r.stored))
	for _, s := range r.stored {
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y *stored) int { return cmp.Compare(x.seq, y.seq) })
	a, b := Members(name)
	for _, u := range []string{a, b} {
		c.missing(name, all, u, "", func(s *stored) bool { return s.sender == u }, func(s *stored) bool { return s.users[u] }, "no device of the user")
	}
	for i := range c.h.Devices {
		d := &c.h.Devices[i]
		k := device{d.User, d.Name}
		if !member(name, d.User) {
			continue
		}
		from, joined := c.first[k]
		has := func(s *stored) bool { return s.devices[k] }
		if d.Keeps && joined {
			c.missing(name, all, d.User, d.Name, func(s *stored) bool { return s.sent < from }, has, "a device that keeps its place")
		} else if since, ok := c.since[k]; ok {
			c.missing(name, all, d.User, d.Name, func(s *stored) bool { return s.sent < since }, has, "a session that was there all the time")
		}
	}
	for _, s := range all {
		if r.listed && s.accepted && !s.listed {
			c.found = append(c.found, Violation{What: Unlisted, Room: name, Sender: s.sender, ID: s.id, Text: fmt.Sprintf("seq %d", s.seq)})
		}
	}
	for m, o := range r.sent {
		if !o.outcome && r.stored[m] == nil {
			c.found = append(c.found, Violation{What: Unresolved, Room: name, Sender: m.sender, ID: m.id, Text: "neither accepted nor refused, and asked for to the end" + at(c.h.Events[o.index].At)})
		}
	}
}

func (c *check) missing(name string, all []*stored, user, dev string, exempt, has func(*stored) bool, who string) {
	lowest, highest := int64(0), int64(-1)
	for _, s := range all {
		if has(s) {
			if highest < 0 {
				lowest = s.seq
			}
			highest = s.seq
		}
	}
	for _, s := range all {
		if exempt(s) || has(s) {
			continue
		}
		what := LostMiddle
		switch {
		case s.seq > highest:
			what = LostTail
		case s.seq < lowest:
			what = LostPrefix
		}
		how := "stored, by what others received,"
		if s.accepted {
			how = "accepted"
		}
		c.found = append(c.found, Violation{What: what, Room: name, User: user, Device: dev, Sender: s.sender, ID: s.id,
			Text: fmt.Sprintf("seq %d, %s, did not reach %s", s.seq, how, who) + at(c.h.Events[s.sent].At)})
	}
}

func (c *check) markers(_ string, r *room) {
	for _, i := range r.ends {
		e := &c.h.Events[i]
		unread, top := int64(0), int64(0)
		for _, s := range r.stored {
			top = max(top, s.seq)
			if s.sender != e.User && s.seq > r.read[e.User] {
				unread++
			}
		}
		other := peer(e.Room, e.User)
		switch {
		case e.Unread != unread:
			c.violate(Markers, e, "%d unread, in truth %d", e.Unread, unread)
		case e.ReadSeq != r.read[e.User]:
			c.violate(Markers, e, "read up to %d, in truth %d", e.ReadSeq, r.read[e.User])
		case e.PeerReadSeq != r.read[other]:
			c.violate(Markers, e, "the peer has read up to %d, in truth %d", e.PeerReadSeq, r.read[other])
		case e.DeliveredSeq > top:
			c.violate(Markers, e, "delivered up to %d, the room ends at %d", e.DeliveredSeq, top)
		case e.Seq != top:
			c.violate(Markers, e, "the last message is %d, in truth %d", e.Seq, top)
		}
	}
}

// believes compares what a session believes with who is connected at that moment.
func (c *check) believes(e *Event) {
	there := map[string]bool{}
	for d := range c.open {
		there[d.user] = true
	}
	online := map[string]bool{}
	for _, u := range e.Online {
		online[u] = true
	}
	for _, u := range e.Watched {
		if online[u] != there[u] {
			c.violate(Presence, e, "%s online: %v, in truth %v", u, online[u], there[u])
		}
	}
}
