package client

import (
	"container/list"
	"maps"
	"slices"

	"parley.example/client/wire"
)

// ledger knows, per room, what has been seen. It is not safe for concurrent use; Conn.mu guards it.
type ledger struct {
	byName map[string]*list.Element // of *roomState
	recent *list.List               // front: used last
}

type roomState struct {
	name  string
	floor int64   // everything up to here counts as seen
	seqs  []int64 // seen above floor, rising, at most maxSeen
	ids   map[string]struct{}
	order []string // ids, oldest first, at most maxSeen

	repair *repair // not nil while a gap is being filled
}

func newLedger() *ledger {
	return &ledger{byName: map[string]*list.Element{}, recent: list.New()}
}

// room finds or makes a state. Above maxRooms the one used least recently goes.
func (l *ledger) room(name string) *roomState {
	if e, ok := l.byName[name]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*roomState)
	}
	r := &roomState{name: name, ids: map[string]struct{}{}}
	l.byName[name] = l.recent.PushFront(r)
	if l.recent.Len() > maxRooms {
		e := l.recent.Back()
		l.recent.Remove(e)
		delete(l.byName, e.Value.(*roomState).name)
	}
	return r
}

// since is the youngest seq of each room used lately, as many as a join may name; nil for none.
func (l *ledger) since() map[string]int64 {
	var out map[string]int64
	for e := l.recent.Front(); e != nil && len(out) < wire.MaxSinceRooms; e = e.Next() {
		if r := e.Value.(*roomState); r.youngest() > 0 {
			if out == nil {
				out = map[string]int64{}
			}
			out[r.name] = r.youngest()
		}
	}
	return out
}

// before completes since, which was taken when a resume token came, by the rooms that were first seen after that: with all that was
// seen of them, and what lies between.
func (l *ledger) before(since map[string]int64) map[string]int64 {
	out := maps.Clone(since)
	for e := l.recent.Front(); e != nil && len(out) < wire.MaxSinceRooms; e = e.Next() {
		r := e.Value.(*roomState)
		if _, ok := out[r.name]; ok || len(r.seqs) == 0 {
			continue
		}
		if out == nil {
			out = map[string]int64{}
		}
		out[r.name] = max(r.floor, r.seqs[0]-1)
	}
	return out
}

// lower forgets the floors, for a time in which older messages may come that are not marked as late.
func (l *ledger) lower() {
	for e := l.recent.Front(); e != nil; e = e.Next() {
		e.Value.(*roomState).floor = 0
	}
}

// ranges are the rooms in which more than one message was seen, with the oldest and the youngest of them.
func (l *ledger) ranges() []seenRange {
	var out []seenRange
	for e := l.recent.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*roomState); len(r.seqs) > 1 {
			out = append(out, seenRange{r.name, r.seqs[0], r.youngest()})
		}
	}
	return out
}

type seenRange struct {
	room            string
	after, youngest int64
}

// seen reports whether m came before, under its seq or, as a twin, under another seq with the same sender and id.
func (r *roomState) seen(m *wire.Message) bool {
	if _, ok := slices.BinarySearch(r.seqs, m.Seq); ok {
		return true
	}
	if _, ok := r.ids[m.Sender+"&"+m.ID]; ok {
		return true
	}
	// Below the floor nothing is known exactly. What the server calls late is new to it: twice is better than never.
	return m.Seq <= r.floor && !m.Late
}

// mark notes m as seen.
func (r *roomState) mark(m *wire.Message) {
	if at, ok := slices.BinarySearch(r.seqs, m.Seq); !ok && m.Seq > r.floor {
		r.seqs = slices.Insert(r.seqs, at, m.Seq)
		if len(r.seqs) > maxSeen {
			r.floor = r.seqs[0]
			r.seqs = slices.Delete(r.seqs, 0, 1)
		}
	}
	key := m.Sender + "&" + m.ID
	if _, ok := r.ids[key]; ok {
		return
	}
	r.ids[key] = struct{}{}
	if r.order = append(r.order, key); len(r.order) > maxSeen {
		delete(r.ids, r.order[0])
		r.order = slices.Delete(r.order, 0, 1)
	}
}

// unmark takes mark back for a message that could not be handed over and will come again.
func (r *roomState) unmark(m *wire.Message) {
	if at, ok := slices.BinarySearch(r.seqs, m.Seq); ok {
		r.seqs = slices.Delete(r.seqs, at, at+1)
	}
	key := m.Sender + "&" + m.ID
	if at := slices.Index(r.order, key); at >= 0 {
		r.order = slices.Delete(r.order, at, at+1)
		delete(r.ids, key)
	}
}

// gap reports that something is missing right before m, and the seq after which to ask for it. What is older than
// all that is known here was dealt with in an earlier life, and late messages are the filling of a gap.
func (r *roomState) gap(m *wire.Message) (after int64, missing bool) {
	at, _ := slices.BinarySearch(r.seqs, m.Seq)
	switch {
	case m.Late, at == 0 && r.floor == 0, at == 0 && m.Seq <= r.floor:
		return 0, false
	case at == 0:
		after = r.floor
	default:
		after = r.seqs[at-1]
	}
	return after, m.Prev == nil || *m.Prev > after
}

// youngest is the highest seq seen, 0 for none.
func (r *roomState) youngest() int64 {
	if n := len(r.seqs); n > 0 {
		return r.seqs[n-1]
	}
	return r.floor
}
