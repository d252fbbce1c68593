package session

import (
	"sync"
	"time"

	"parley.example/pkg/room"
)

// receipts is what a session's client has not confirmed yet. "Received" is not "written": the client confirms by answering a question that was asked
// after the message was written.
type receipts struct {
	mu          sync.Mutex
	ended       bool
	catchingUp  bool
	number      uint32                // of the last question
	askedAt     int64                 // Unix seconds
	device      string                // as named by the last join
	unconfirmed map[room.Room]written // written, and not asked about
	ahead       map[room.Room]written // written live while a catch-up has older ones still to read
	asked       []written             // the client has been asked about these
}

// written is the youngest message of a room that was handed to the wire and not confirmed yet.
type written struct {
	room    room.Room
	p       int
	seq     int64
	peerSeq int64 // the youngest by the peer, 0 for none: what delivered markers are about
}

// maxUnconfirmed bounds the rooms that wait for a confirmation; the messages of others are sent again at the next join.
const maxUnconfirmed = 1024

// wrote notes a message. One that was written live while a catch-up runs does not count before that has ended: older ones of its room may still be
// unread, and a cursor that had passed them would lose them should the session end now. read: the running catch-up has read it, and all before it.
func (r *receipts) wrote(w written, read bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
	case r.catchingUp && !read:
		r.ahead = youngest(r.ahead, w)
	default:
		r.unconfirmed = youngest(r.unconfirmed, w)
	}
}

// catchUp says that a catch-up begins or has ended.
func (r *receipts) catchUp(runs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.catchingUp = runs; runs || r.ended {
		return
	}
	for _, w := range r.ahead {
		r.unconfirmed = youngest(r.unconfirmed, w)
	}
	r.ahead = nil
}

// name names the device; other says that it is another one than before.
func (r *receipts) name(device string) (other bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	other = r.device != device
	r.device = device
	return other
}

func (r *receipts) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.unconfirmed, r.ahead, r.asked = nil, nil, nil
}

func youngest(m map[room.Room]written, w written) map[room.Room]written {
	old, ok := m[w.room]
	if !ok {
		if len(m) >= maxUnconfirmed {
			return m
		}
		if m == nil {
			m = make(map[room.Room]written, 1)
		}
	}
	w.seq, w.peerSeq = max(w.seq, old.seq), max(w.peerSeq, old.peerSeq)
	m[w.room] = w
	return m
}

// question is the number with which the client is to be asked now, 0 for not at all. One that has had no answer for a while is asked again: of several
// pings a client need answer the last one only. verified is, of a partition, the seq up to which nothing is missing.
func (r *receipts) question(now time.Time, again time.Duration, verified func(p int) int64) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		for rm, w := range r.unconfirmed {
			// Above what the router has verified, an older message may still be missing: the cursor must not pass it.
			if w.seq <= verified(w.p) {
				r.asked = append(r.asked, w)
				delete(r.unconfirmed, rm)
			}
		}
		if len(r.unconfirmed) == 0 {
			r.unconfirmed = nil
		}
	} else if now.Unix()-r.askedAt < int64(again/time.Second) {
		return 0
	}
	if r.asked == nil {
		return 0
	}
	r.number++
	r.askedAt = now.Unix()
	return r.number
}

// answered takes the client's answer, and gives what it confirms and for which device.
func (r *receipts) answered(question uint32) (list []written, device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if question != r.number {
		return nil, ""
	}
	list, r.asked = r.asked, nil
	return list, r.device
}
