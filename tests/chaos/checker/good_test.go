package checker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"parley.example/tests/picture"
)

// good makes a history of a server that keeps every promise, with everything that is allowed in it: broken connections, messages seen
// twice by clients without dedupe, late ones, refusals, outcomes that stay unknown, sessions that miss what another device has had.
type good struct {
	r     *rand.Rand
	h     *History
	now   time.Duration
	seq   map[string]int64
	rooms map[string][]Event // stored messages, as Received events without a receiver
	dev   []*goodDevice
}

type goodDevice struct {
	Device
	session int
	on      bool
	at      map[string]int // how many of a room it has
	next    int
}

func (g *good) add(e Event) {
	g.now += time.Duration(1+g.r.IntN(5)) * time.Millisecond
	e.At = g.now
	g.h.Events = append(g.h.Events, e)
}

func (g *good) connect(d *goodDevice) {
	d.session++
	d.on = true
	g.add(Event{Kind: Connected, User: d.User, Device: d.Name, Session: d.session})
	for room := range g.seq {
		if member(room, d.User) {
			if !d.Dedupes && d.at[room] > 0 {
				d.at[room] -= g.r.IntN(2) // it comes again
			}
			g.deliver(d, room, len(g.rooms[room]))
		}
	}
	g.add(Event{Kind: CaughtUp, User: d.User, Device: d.Name, Session: d.session})
}

func (g *good) deliver(d *goodDevice, room string, upto int) {
	for d.at[room] < upto {
		m := g.rooms[room][d.at[room]]
		d.at[room]++
		if m.Device == d.Name && m.User == d.User && !d.Echoes {
			continue // it was accepted here
		}
		m.Kind, m.User, m.Device, m.Session = Received, d.User, d.Name, d.session
		g.add(m)
	}
}

func (g *good) send(d *goodDevice, room string) {
	d.next++
	m := Event{Kind: Sent, User: d.User, Device: d.Name, Session: d.session, Room: room, Sender: d.User, ID: fmt.Sprintf("%s-%s-%d", d.User, d.Name, d.next), Content: fmt.Sprint("text ", d.next)}
	g.add(m)
	switch g.r.IntN(10) {
	case 0:
		m.Kind = Refused
		g.add(m)
		return
	case 1:
		u := m
		u.Kind = Unknown
		g.add(u)
		g.add(m)
	}
	g.seq[room] += int64(1 + g.r.IntN(3))
	m.Seq = g.seq[room]
	g.rooms[room] = append(g.rooms[room], m)
	acc := m
	acc.Kind, acc.Content = Accepted, ""
	g.add(acc)
}

func goodHistory(seed uint64) *History {
	g := &good{r: rand.New(rand.NewPCG(seed, 1)), h: &History{}, seq: map[string]int64{"ann&bob": 0, "bob&cid": 0}, rooms: map[string][]Event{}}
	for _, u := range []string{"ann", "bob", "cid"} {
		for i, d := range []Device{{Name: "sdk", Dedupes: true, Keeps: true}, {Name: "named", Keeps: true}, {Name: "old", Echoes: true}} {
			d.User = u
			if i == 2 && u != "cid" {
				continue
			}
			gd := &goodDevice{Device: d, at: map[string]int{}}
			g.dev = append(g.dev, gd)
			g.h.Devices = append(g.h.Devices, d)
			g.connect(gd)
		}
	}
	for range 300 {
		d := g.dev[g.r.IntN(len(g.dev))]
		room := []string{"ann&bob", "bob&cid"}[g.r.IntN(2)]
		switch n := g.r.IntN(20); {
		case n == 0 && d.on:
			d.on = false
			g.add(Event{Kind: Disconnected, User: d.User, Device: d.Name, Session: d.session})
		case !d.on:
			if n < 8 {
				g.connect(d)
			}
		case member(room, d.User) && n < 8:
			g.send(d, room)
		case member(room, d.User):
			g.deliver(d, room, d.at[room]+g.r.IntN(len(g.rooms[room])-d.at[room]+1))
		}
	}
	g.end()
	return g.h
}

func (g *good) end() {
	defer func() {
		for _, u := range []string{"ann", "bob", "cid"} {
			g.add(Event{Kind: AskedConversations, User: u, Device: "http"})
		}
	}()
	for _, d := range g.dev {
		if !d.on {
			g.connect(d)
		}
		for room := range g.seq {
			if member(room, d.User) {
				g.deliver(d, room, len(g.rooms[room]))
			}
		}
	}
	g.add(Event{Kind: Rested})
	read := map[string]map[string]int64{}
	for room, list := range g.rooms {
		read[room] = map[string]int64{}
		a, _ := Members(room)
		g.add(Event{Kind: AskedRoom, User: a, Device: "http", Room: room})
		for _, m := range list {
			g.add(Event{Kind: Listed, User: a, Room: room, Sender: m.Sender, ID: m.ID, Seq: m.Seq, Content: m.Content})
		}
		if len(list) > 0 {
			read[room][a] = list[g.r.IntN(len(list))].Seq
			g.add(Event{Kind: MarkedRead, User: a, Room: room, Seq: read[room][a]})
		}
	}
	for room, list := range g.rooms {
		a, b := Members(room)
		for _, u := range []string{a, b} {
			e := Event{Kind: Conversation, User: u, Room: room, Seq: g.seq[room], ReadSeq: read[room][u], PeerReadSeq: read[room][peer(room, u)], DeliveredSeq: g.seq[room], PeerDeliveredSeq: g.seq[room]}
			for _, m := range list {
				if m.Sender != u && m.Seq > e.ReadSeq {
					e.Unread++
				}
			}
			g.add(e)
		}
	}
	g.pictures(read)
	for _, d := range g.dev {
		g.add(Event{Kind: Believes, User: d.User, Device: d.Name, Session: d.session, Watched: []string{"ann", "bob", "cid", "dan"}, Online: []string{"ann", "bob", "cid"}})
	}
}

// pictures are what HTTP says, and what the devices know: a mark on one's own messages is as good as one below them.
func (g *good) pictures(read map[string]map[string]int64) {
	for _, u := range []string{"ann", "bob", "cid"} {
		says := picture.New()
		for room := range g.rooms {
			if q := peer(room, u); member(room, u) {
				says.Contact(q, true)
				says.Move(picture.Mark{Room: room, User: q, Read: true}, read[room][q])
				says.Move(picture.Mark{Room: room, User: q}, g.seq[room])
				says.Move(picture.Mark{Room: room, User: u, Read: true}, read[room][u])
			}
		}
		g.add(Event{Kind: Says, User: u, Device: "http", Picture: says})
		for _, d := range g.dev {
			if d.User == u && !d.Echoes {
				g.add(Event{Kind: Knows, User: u, Device: d.Name, Session: d.session, Picture: says.Clone()})
			}
		}
	}
}

// where gives the index of the n-th event that ok accepts, counted from the front, or -1.
func where(h *History, n int, ok func(*Event) bool) int {
	for i := range h.Events {
		if ok(&h.Events[i]) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	return -1
}

func insert(h *History, i int, e Event) { h.Events = slices.Insert(h.Events, i, e) }
func remove(h *History, i int)          { h.Events = slices.Delete(h.Events, i, i+1) }
