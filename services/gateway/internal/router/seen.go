package router

// seen remembers which seqs of one partition were routed: a bitmap in chunks, kept from a little below SQL's position
// upwards. Not safe for concurrent use; the router's goroutine owns it.
type seen struct {
	chunks map[int64]*[chunkWords]uint64
	lowest int64 // seqs below are taken as not seen; only repair asks for those
}

const (
	chunkBits  = 16 // 65,536 seqs take 8 KiB
	chunkWords = 1 << chunkBits / 64
	// maxChunks bounds the bitmap when SQL does not move for hours: 4 MiB, 33 million seqs. Beyond, the oldest chunk is forgotten, and
	// the repair of those rows may deliver a message twice, which clients drop by id.
	maxChunks = 512
	// behindChunks is kept below SQL's position, for copies that come late.
	behindChunks = 2
)

func newSeen() *seen { return &seen{chunks: map[int64]*[chunkWords]uint64{}} }

// add marks seq and reports whether it was new.
func (s *seen) add(seq int64) bool {
	key := seq >> chunkBits
	c := s.chunks[key]
	if c == nil {
		if len(s.chunks) >= maxChunks {
			s.drop()
		}
		c = new([chunkWords]uint64)
		s.chunks[key] = c
	}
	word, bit := (seq&(1<<chunkBits-1))/64, uint64(1)<<(seq&63)
	if c[word]&bit != 0 {
		return false
	}
	c[word] |= bit
	return true
}

// has reports whether seq is marked.
func (s *seen) has(seq int64) bool {
	c := s.chunks[seq>>chunkBits]
	return c != nil && c[(seq&(1<<chunkBits-1))/64]&(1<<(seq&63)) != 0
}

// forget drops what lies well below position.
func (s *seen) forget(position int64) {
	low := position>>chunkBits - behindChunks
	if low <= s.lowest {
		return
	}
	s.lowest = low
	for k := range s.chunks {
		if k < low {
			delete(s.chunks, k)
		}
	}
}

func (s *seen) drop() {
	oldest := int64(1<<63 - 1)
	for k := range s.chunks {
		oldest = min(oldest, k)
	}
	delete(s.chunks, oldest)
}
