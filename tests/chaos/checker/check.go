package checker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Check finds every broken promise. The history must have come to rest: everything healed, every client back and caught up.
func Check(h *History) []Violation {
	rooms := map[string]*room{}
	c := &check{h: h, devices: map[device]*Device{}, rooms: rooms, seen: map[sighting]last{}, open: map[device]int{}, since: map[device]int{}, alive: map[device]int{}, judged: map[device]map[*stored]bool{}, first: map[device]int{},
		told: map[device]map[string]notice{}, says: map[string]*Event{}}
	for i := range h.Devices {
		d := &h.Devices[i]
		c.devices[device{d.User, d.Name}] = d
	}
	for i := range h.Events {
		c.event(i, &h.Events[i])
	}
	if n := len(h.Events); n > 0 {
		c.everySession(n, h.Events[n-1].At)
	}
	for _, name := range slices.Sorted(maps.Keys(rooms)) {
		c.lost(name, rooms[name])
		c.markers(name, rooms[name])
	}
	c.pictures()
	return c.found
}

type device struct{ user, name string }

// stored is one message that certainly was stored, by whatever evidence.
type stored struct {
	message
	seq      int64
	sent     int // index of the first Sent
	known    int // index of the first event that shows that it is stored
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
	ends     []int     // indices of Conversation
	order    []*stored // by known
	asked    bool      // every page was asked for
	apart    standing
}

type sending struct {
	index    int
	content  string
	after    int64 // highest seq accepted in the room before it first went out
	outcome  bool
	again    bool // sent more than once
	by       device
	session  int    // the only one that sent it; -1 for several
	accepted int    // session in which it was accepted; 0 for none
	rejected string // content that was refused; "" for none
	due      due    // what must become of it
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
	open    map[device]int  // the session that is connected, absent for none
	since   map[device]int  // index of the CaughtUp of the open session
	alive   map[device]int  // index of the last Accepted in the open session
	first   map[device]int  // index of the first CaughtUp
	talks   map[string]bool // users whose conversations were asked for
	top     map[device]map[string]int64
	judged  map[device]map[*stored]bool  // what was missing in a session, and is said already
	told    map[device]map[string]notice // by room: what the open session was told last of the other one as a contact
	says    map[string]*Event            // by user: what HTTP says
	knows   []*Event
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
		delete(c.alive, d)
		delete(c.told, d)
		if what := c.devices[d]; e.Fresh || what == nil || !what.Dedupes {
			delete(c.top, d) // what comes again after a broken connection comes in order again
		}
	case Disconnected:
		c.session(d, i, e.At-lateBound)
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
			r.sent[m] = &sending{index: i, content: e.Content, after: r.accepted, by: d, session: e.Session, due: c.due(r, d, e)}
		} else {
			s.again = true
			if s.by != d || s.session != e.Session {
				s.session = -1
			}
		}
	case Refused:
		r := c.room(e.Room)
		if s := r.sent[m]; s != nil {
			s.outcome = true
			c.refused(r, s, e)
			if !c.doubtful(r, d) {
				s.rejected = e.Content
			}
		}
	case Unknown:
		if s := c.room(e.Room).sent[m]; s != nil && e.GaveUp {
			s.outcome = true
		}
	case Accepted:
		r := c.room(e.Room)
		s := c.evidence(r, m, i, e)
		if s == nil {
			return
		}
		o := r.sent[m]
		o.outcome = true
		o.accepted = e.Session
		c.instead(d, m, o, e)
		if c.open[d] == e.Session {
			c.alive[d] = i
		}
		s.accepted = true
		s.devices[d] = true
		r.accepted = max(r.accepted, e.Seq)
		if e.Seq <= o.after {
			c.violate(Disorder, e, "accepted as seq %d, though seq %d had been accepted before it was sent", e.Seq, o.after)
		}
	case Received:
		c.received(d, m, i, e)
	case Listed:
		r := c.room(e.Room)
		if s := c.evidence(r, m, i, e); s != nil {
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
	case AskedRoom:
		c.room(e.Room).asked = true
	case AskedConversations:
		if c.talks == nil {
			c.talks = map[string]bool{}
		}
		c.talks[e.User] = true
	case Rested:
		c.everySession(i, e.At)
	default:
		c.live(i, d, e)
	}
}

// instead: who is told that his message is accepted does not get it as well, in that session. Who sent it in another one may, and who
// sent it again: its outcome was unknown, and what comes by repair tells it.
func (c *check) instead(d device, m message, o *sending, e *Event) {
	what := c.devices[d]
	if (what == nil || !what.Echoes) && o.by == d && !o.again && o.session == e.Session && o.accepted == e.Session && c.seen[sighting{d, m}].session == e.Session {
		c.violate(Twice, e, "accepted and received in one session")
	}
}

// evidence notes that a message is stored, and checks what can be told from this event alone.
func (c *check) evidence(r *room, m message, i int, e *Event) *stored {
	out := r.sent[m]
	switch {
	case !member(m.room, m.sender):
		c.violate(Leaked, e, "sent by a third person, and not refused")
		return nil
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
		s = &stored{message: m, seq: e.Seq, sent: out.index, known: i, devices: map[device]bool{}, users: map[string]bool{}}
		r.stored[m] = s
		r.order = append(r.order, s)
		c.taken(r, out, e)
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

func (c *check) received(d device, m message, i int, e *Event) {
	if !member(e.Room, e.User) {
		c.violate(Leaked, e, "it is not a room of %s", e.User)
		return
	}
	r := c.room(e.Room)
	s := c.evidence(r, m, i, e)
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
		case have.session == e.Session:
			c.violate(Twice, e, "twice in one session")
		case what.Dedupes:
			c.violate(Twice, e, "in sessions %d and %d of a client that drops what it has seen", have.session, e.Session)
		}
	}
	c.seen[key] = last{e.Session, e.Seq}
	c.instead(d, m, r.sent[m], e)
	if c.top == nil {
		c.top = map[device]map[string]int64{}
	}
	top := c.top[d]
	if top == nil {
		top = map[string]int64{}
		c.top[d] = top
	}
	// Late without a younger one before is no violation: what a catch-up could not bring while history was away comes so afterwards.
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
		}
	}
	for _, s := range all {
		if r.asked && !s.listed {
			c.found = append(c.found, Violation{What: Unlisted, Room: name, Sender: s.sender, ID: s.id, Text: fmt.Sprintf("seq %d", s.seq)})
		}
	}
	for m, o := range r.sent {
		if !o.outcome && r.stored[m] == nil {
			c.found = append(c.found, Violation{What: Unresolved, Room: name, Sender: m.sender, ID: m.id, Text: "neither accepted nor refused, and asked for to the end" + at(c.h.Events[o.index].At)})
		}
	}
}

// lateBound is how late a message may be to a session that is there all the time: SQL may be away for a minute, and go through its
// log for two more on a busy machine; without it what was lost on its way is not found. And a connection may be dead for 50 s until an old client notices.
const lateBound = 4 * time.Minute

// everySession is for a moment at which all that is connected must have everything.
func (c *check) everySession(i int, until time.Duration) {
	for _, what := range c.h.Devices {
		if !what.Keeps { // of those that keep their place all is looked at in the end
			c.session(device{what.User, what.Name}, i, until)
		}
	}
}

// session finds what was stored until then, and sent after the session had caught up, and did not come by event i.
func (c *check) session(d device, i int, until time.Duration) {
	what, since, ok := c.devices[d], c.since[d], true
	if _, ok = c.since[d]; !ok || what == nil || until < c.h.Events[since].At {
		return
	}
	end := i
	if what.Echoes {
		end = c.alive[d]
	}
	for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
		r := c.rooms[name]
		if !member(name, d.user) {
			continue
		}
		from, _ := slices.BinarySearchFunc(r.order, since, func(s *stored, i int) int { return cmp.Compare(s.known, i) })
		var all []*stored
		for _, s := range r.order[from:] {
			if s.known >= end || c.h.Events[s.known].At > until {
				break
			}
			if s.sent > since && !c.judged[d][s] {
				all = append(all, s)
			}
		}
		slices.SortFunc(all, func(x, y *stored) int { return cmp.Compare(x.seq, y.seq) })
		for _, s := range all {
			if !s.devices[d] {
				if c.judged[d] == nil {
					c.judged[d] = map[*stored]bool{}
				}
				c.judged[d][s] = true
			}
		}
		c.missing(name, all, d.user, d.name, func(*stored) bool { return false }, func(s *stored) bool { return s.devices[d] }, "a session that was there all the time")
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

func (c *check) markers(name string, r *room) {
	if a, b := Members(name); len(r.stored) > 0 {
		for _, u := range []string{a, b} {
			if c.talks[u] && !slices.ContainsFunc(r.ends, func(i int) bool { return c.h.Events[i].User == u }) {
				c.found = append(c.found, Violation{What: Markers, Room: name, User: u, Text: "a room with messages is not among the conversations"})
			}
		}
	}
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
		peerRead := r.read[other]
		if r.apart.now { // of one to whom one may not write one learns nothing
			peerRead = 0
		}
		switch {
		case r.apart.now && e.PeerDeliveredSeq != 0:
			c.violate(Markers, e, "delivered to the peer up to %d, though they have parted", e.PeerDeliveredSeq)
		case e.Unread != unread:
			c.violate(Markers, e, "%d unread, in truth %d", e.Unread, unread)
		case e.ReadSeq != r.read[e.User]:
			c.violate(Markers, e, "read up to %d, in truth %d", e.ReadSeq, r.read[e.User])
		case e.PeerReadSeq != peerRead:
			c.violate(Markers, e, "the peer has read up to %d, in truth %d", e.PeerReadSeq, peerRead)
		case e.DeliveredSeq > top || e.DeliveredSeq < e.ReadSeq: // what is read is delivered
			c.violate(Markers, e, "delivered up to %d, read up to %d, the room ends at %d", e.DeliveredSeq, e.ReadSeq, top)
		case e.PeerDeliveredSeq > top || e.PeerDeliveredSeq < e.PeerReadSeq:
			c.violate(Markers, e, "delivered to the peer up to %d, who has read up to %d, the room ends at %d", e.PeerDeliveredSeq, e.PeerReadSeq, top)
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
	if e.InTheDark {
		c.violate(Presence, e, "it is said to be unknown")
	}
	for _, u := range e.Watched {
		if online[u] != there[u] {
			c.violate(Presence, e, "%s online: %v, in truth %v", u, online[u], there[u])
		}
	}
}
