package load

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"parley.example/client"
	"parley.example/tests/chaos/checker"
)

// quarrel is two people with a room of their own who part and reunite, again and again. What they may write is refused now and then, so nobody else's
// messages are in it.
type quarrel struct {
	w    *World
	a, b *person
	room string
	r    *rand.Rand

	// Of those who parted last: who asked for it, and whether by a block.
	one, other *person
	blocks     bool

	mu     sync.Mutex // of parted, which live alone writes, and unsure
	parted bool
	unsure time.Time // when a request ended without an answer: others may not have been told of what it did
}

// learned is how long a gateway may not know of a change that nobody told it.
const learned = time.Minute

// quarrels pairs people off who have native devices only, see crew.
func (w *World) quarrels() {
	for i, p := range w.people {
		if i%6 > 1 || i+3 >= len(w.people) {
			continue
		}
		q := &quarrel{w: w, a: p, b: w.people[i+3], r: rand.New(rand.NewPCG(w.o.Seed, 1<<34+uint64(i)))}
		if q.room = client.Room(q.a.name, q.b.name); slices.Contains(p.rooms, q.room) {
			continue
		}
		q.a.quarrel, q.b.quarrel = q, q
		w.pairs = append(w.pairs, q)
	}
}

func (q *quarrel) peer(p *person) *person {
	if p == q.a {
		return q.b
	}
	return q.a
}

// parting reports whether the two of a room have parted.
func (w *World) parting(room string) bool {
	for _, q := range w.pairs {
		if q.room == room {
			q.mu.Lock()
			defer q.mu.Unlock()
			return q.parted
		}
	}
	return false
}

// live parts and reunites them until it is quiet; they may have parted then. Longer than a question to auth takes lies between two changes, so that
// what is told of the one is not taken for the other.
func (q *quarrel) live() {
	for first := 0; q.w.pause(time.Duration(first+q.r.IntN(20)) * time.Second); first = 10 {
		if !q.parted {
			if q.one, q.other = q.a, q.b; q.r.IntN(2) == 0 {
				q.one, q.other = q.b, q.a
			}
			q.blocks = !q.w.o.Roster || q.r.IntN(2) == 0
		}
		asks, does, change := checker.Parts, checker.Parted, q.part
		if q.parted {
			asks, does, change = checker.Reunites, checker.Reunited, q.reunite
		}
		e := checker.Event{Kind: asks, User: q.one.name, Device: "http", Room: q.room}
		q.w.record(e)
		if !change() {
			return
		}
		e.Kind = does
		q.w.record(e)
		q.mu.Lock()
		q.parted = !q.parted
		q.mu.Unlock()
	}
}

func (q *quarrel) part() bool {
	if q.blocks {
		return q.ask(http.MethodPut, "blocks", q.one, q.other)
	}
	return q.ask(http.MethodDelete, "contacts", q.one, q.other)
}

func (q *quarrel) reunite() bool {
	if q.blocks && !q.ask(http.MethodDelete, "blocks", q.one, q.other) {
		return false
	}
	return !q.w.o.Roster || q.ask(http.MethodPut, "contacts", q.one, q.other) && q.ask(http.MethodPut, "contacts", q.other, q.one)
}

// ask until it is acknowledged; false when the world ends before.
func (q *quarrel) ask(method, kind string, of, to *person) bool {
	for q.w.ctx.Err() == nil {
		if q.w.relate(method, kind, of.name, to.name) == nil {
			return true
		}
		q.mu.Lock()
		q.unsure = time.Now()
		q.mu.Unlock()
		time.Sleep(100 * time.Millisecond) // a client's pause between two tries
	}
	return false
}

// relate changes a contact or a block.
func (w *World) relate(method, kind, of, to string) error {
	_, err := w.ask(method, of, "/v1/"+kind+"/"+url.PathEscape(to))
	return err
}

// friends are those whom a person writes to.
func (p *person) friends() []string {
	if p.quarrel == nil {
		return p.peers
	}
	return append(slices.Clone(p.peers), p.quarrel.peer(p).name)
}

// venture writes to one from whom the person may have parted.
func (d *device) venture(q *quarrel) {
	d.ventures++
	id := fmt.Sprintf("%s-q%d", d.name, d.ventures)
	became, code := d.sendOnce(checker.Event{Room: q.room, Sender: d.p.name, ID: id, Content: fmt.Sprintf("%s ventures %d", d.name, d.ventures)})
	if became == checker.Refused && code != "forbidden" {
		d.w.t.Errorf("%s/%s: a message to one from whom %s may have parted was refused: %s", d.p.name, d.name, d.p.name, code)
	}
}

// probe lets everybody in a quarrel write once more, when it is certain what must become of that.
func (w *World) probe() {
	for _, q := range w.pairs {
		q.mu.Lock()
		wait := time.Until(q.unsure.Add(learned))
		q.mu.Unlock()
		time.Sleep(wait) // nothing tells that a gateway has looked
	}
	for _, q := range w.pairs {
		for _, d := range slices.Concat(q.a.devices, q.b.devices) {
			if d.there() {
				d.venture(q)
			}
		}
	}
	if len(w.pairs) > 0 {
		w.rest()
	}
}
