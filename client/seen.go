package client

// maxSeen messages at least are remembered, twice as many at most.
const maxSeen = 16_384

// seen remembers which messages have been handed over, in two generations: when the young one is full, it becomes the old one, whose messages are
// forgotten. The goroutine that reads the socket owns it.
//
// Twins lie above the newest resume token, which only a server can read. So nothing of a token makes a message forgettable, only younger ones do.
type seen struct {
	young, old map[string]*seenRoom
	n          int // messages in young
}

type seenRoom struct {
	seqs map[int64]struct{}
	top  int64 // the highest of seqs
}

// look reports whether message seq of room was added before, and whether a younger one of the room was.
func (s *seen) look(room string, seq int64) (twin, late bool) {
	for _, generation := range [...]map[string]*seenRoom{s.young, s.old} {
		if r := generation[room]; r != nil {
			_, ok := r.seqs[seq]
			twin = twin || ok
			late = late || seq < r.top
		}
	}
	return twin, late
}

func (s *seen) add(room string, seq int64) {
	if s.young == nil {
		s.young = map[string]*seenRoom{}
	}
	r := s.young[room]
	if r == nil {
		r = &seenRoom{seqs: map[int64]struct{}{}}
		s.young[room] = r
	}
	r.seqs[seq] = struct{}{}
	r.top = max(r.top, seq)
	if s.n++; s.n >= maxSeen {
		s.old, s.young, s.n = s.young, nil, 0
	}
}
