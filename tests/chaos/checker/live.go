package checker

import (
	"maps"
	"slices"

	"parley.example/client"
	"parley.example/tests/picture"
)

// standing is whether the two of a room may write to each other, as far as it was asked for and acknowledged.
type standing struct {
	now     bool // they have parted
	moving  bool // something was asked for and is not acknowledged
	changes int  // how often something was asked for
	index   int  // of the last acknowledgement
}

// notice is what a session was told: that the other one of a room is no contact any more, or that it is one.
type notice struct {
	parted bool
	index  int
}

// due is what must become of a message, unless something is asked for meanwhile. What a session was told after it was acknowledged its gateway knows.
type due struct {
	accept, refuse bool
	changes        int
}

// live takes in what moves beside messages: contacts, blocks and marks.
func (c *check) live(i int, d device, e *Event) {
	switch e.Kind {
	case Parts, Reunites:
		a := &c.room(e.Room).apart
		a.moving = true
		a.changes++
	case Parted, Reunited:
		a := &c.room(e.Room).apart
		a.now, a.moving, a.index = e.Kind == Parted, false, i
	case ToldParted, ToldReunited:
		c.notice(d, e.Room, notice{e.Kind == ToldParted, i})
	case WentBack:
		c.violate(Back, e, "told of seq %d of %s, and of more before", e.Seq, e.Sender)
	case Says:
		c.says[e.User] = e
	case Knows:
		c.knows = append(c.knows, e)
		for name, r := range c.rooms {
			if r.apart.changes > 0 && member(name, e.User) {
				c.notice(d, name, notice{!e.Picture.Contacts[peer(name, e.User)], i})
			}
		}
	}
}

func (c *check) notice(d device, room string, n notice) {
	if c.told[d] == nil {
		c.told[d] = map[string]notice{}
	}
	c.told[d][room] = n
}

// due of a message that goes out now. A client that hides its reconnects may send it to a gateway that has told it nothing yet: until all is
// healed nothing is certain there.
func (c *check) due(r *room, d device, e *Event) due {
	what, n := c.devices[d], c.told[d][e.Room]
	if e.Sender != e.User || n.index <= r.apart.index || r.apart.moving || r.apart.changes == 0 || n.parted != r.apart.now || what == nil || what.Dedupes && len(c.knows) == 0 {
		return due{}
	}
	return due{accept: !n.parted, refuse: n.parted, changes: r.apart.changes}
}

// taken is for the first evidence that a message is stored, refused for a refusal.
func (c *check) taken(r *room, s *sending, e *Event) {
	if s.due.refuse && s.due.changes == r.apart.changes {
		c.violate(Permission, e, "sent after the sender's session had been told that they had parted, and taken before they reunited")
	}
}

func (c *check) refused(r *room, s *sending, e *Event) {
	if s.due.accept && s.due.changes == r.apart.changes && s.content == e.Content {
		c.violate(Permission, e, "sent after the sender's session had been told that they had reunited, and refused before they parted")
	}
}

// doubtful is a refusal to one who may have parted by a client that hides its reconnects: it may be of a second sending, and of the first it says nothing.
func (c *check) doubtful(r *room, d device) bool {
	what := c.devices[d]
	return r.apart.changes > 0 && what != nil && what.Dedupes && len(c.knows) == 0
}

// pictures compares what each session knows with what HTTP says, and that with what was done.
func (c *check) pictures() {
	seqs := func(m picture.Mark) []int64 {
		var list []int64
		if r := c.rooms[m.Room]; r != nil {
			for _, s := range r.stored {
				if s.sender != m.User {
					list = append(list, s.seq)
				}
			}
		}
		return list
	}
	hidden := func(name string) bool { return c.rooms[name] != nil && c.rooms[name].apart.now }
	for _, e := range c.knows {
		says := c.says[e.User]
		if says == nil {
			continue
		}
		for _, w := range e.Picture.Wrong(says.Picture, seqs, hidden, func(string) bool { return true }) {
			at := *e
			if at.Room = w.Room; at.Room == "" {
				at.Room = client.Room(e.User, w.Name)
			}
			c.violate(Live, &at, "%s", w.Text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
		r := c.rooms[name]
		a, b := Members(name)
		for _, pair := range [][2]string{{a, b}, {b, a}} {
			says := c.says[pair[0]]
			if says != nil && r.apart.changes > 0 && !r.apart.moving && says.Picture.Contacts[pair[1]] == r.apart.now {
				c.violate(Live, &Event{Room: name, User: pair[0], At: says.At}, "HTTP says that %s is a contact: %t, and they have parted: %t", pair[1], !r.apart.now, r.apart.now)
			}
		}
	}
}
