package session

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

// written is the youngest message of a room that was handed to the wire and not confirmed yet.
type written struct {
	room    room.Room
	p       int
	seq     int64
	peerSeq int64 // the youngest by the peer, 0 for none: what delivered markers are about
}

// maxDirty bounds the rooms that wait for a confirmation; the messages of others are sent again at the next join.
const maxDirty = 1024

// wrote needs mu. A message that was written live while a catch-up runs does not count before that has ended: older ones of its room may
// still be unread, and a cursor that had passed them would lose them should the session end now.
func (s *Session) wrote(r room.Room, p int, seq int64, byPeer, read bool) {
	w := written{room: r, p: p, seq: seq}
	if byPeer {
		w.peerSeq = seq
	}
	if s.joining && !read {
		s.ahead = mark(s.ahead, w)
		return
	}
	s.dirty = mark(s.dirty, w)
}

// caughtUp needs mu.
func (s *Session) caughtUp() {
	for _, w := range s.ahead {
		s.dirty = mark(s.dirty, w)
	}
	s.ahead = nil
}

func mark(m map[room.Room]written, w written) map[room.Room]written {
	old, ok := m[w.room]
	if !ok {
		if len(m) >= maxDirty {
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

// tick is called once a second.
func (s *Session) tick(now time.Time) {
	h := s.hub
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	beat := int64(h.cfg.Heartbeat / time.Second)
	own := !s.wire.Beats() // whether the heartbeat is ours to send
	if own && h.silence(now, time.Unix(s.wire.LastReceived(), 0)) > 2*h.cfg.Heartbeat {
		s.mu.Unlock()
		s.wire.Close(wire.CloseNoPong)
		return
	}
	switch {
	case len(s.dirty) > 0 && s.probing == nil:
		for r, w := range s.dirty {
			// Above what the router has checked, an older message may still be missing: the cursor must not pass it.
			if w.seq <= h.Router.CheckedAt(w.p) {
				s.probing = append(s.probing, w)
				delete(s.dirty, r)
			}
		}
		if len(s.dirty) == 0 {
			s.dirty = nil
		}
		if s.probing != nil {
			s.sendProbe(now)
		} else if own && now.Unix()-s.lastProbe >= beat {
			s.sendProbe(now)
		}
	case own && now.Unix()-s.lastProbe >= beat:
		s.sendProbe(now)
	}
	expired := now.After(s.claims.Expires) && !s.checking
	if expired {
		s.checking = true
	}
	s.mu.Unlock()
	if expired {
		s.expire()
	}
}

func (s *Session) sendProbe(now time.Time) {
	s.probe++
	s.lastProbe = now.Unix()
	s.wire.Probe(s.probe)
}

// Answered takes the peer's answer to a probe: everything written before it has arrived.
func (s *Session) Answered(n uint32) {
	s.mu.Lock()
	if n != s.probe || s.probing == nil {
		s.mu.Unlock()
		return
	}
	list, device := s.probing, s.device
	s.probing = nil
	s.mu.Unlock()
	for _, w := range list {
		s.hub.Confirmer.Add(api.Confirm{User: s.user, Device: device, A: w.room.A, B: w.room.B, Seq: w.seq, PeerSeq: w.peerSeq, Session: s.name()})
	}
}

// endLogin ends the login of a session, at every gateway: the old clients' good-byes do so.
func (h *Hub) endLogin(user, sid string) (done <-chan struct{}) {
	over := make(chan struct{})
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		defer close(over)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for wait := 100 * time.Millisecond; ; wait *= 2 {
			err := h.Auth.AuthLogout(ctx, api.LogoutRequest{Username: user, SID: sid})
			if err == nil {
				return
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				h.Log.Warn("a login could not be ended; its token runs out by itself", "user", user, "error", err)
				return
			}
		}
	}()
	return over
}

// expire closes a session whose token has run out, unless auth is away and nobody could have got a new one.
func (s *Session) expire() {
	h := s.hub
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
		defer cancel()
		_, err := h.Auth.AuthRelations(ctx, api.RelationsRequest{Username: s.user})
		s.mu.Lock()
		expires := s.claims.Expires
		s.mu.Unlock()
		now := time.Now()
		if now.Before(expires) {
			s.recheck(0)
			return
		}
		if err != nil && now.Sub(expires) < h.cfg.TokenGrace {
			s.recheck(10 * time.Second)
			return
		}
		s.wire.Close(wire.CloseTokenExpired)
	}()
}

// recheck lets tick look at the token again after d.
func (s *Session) recheck(d time.Duration) {
	again := func() {
		s.mu.Lock()
		s.checking = false
		s.mu.Unlock()
	}
	if d == 0 {
		again()
		return
	}
	time.AfterFunc(d, again)
}

// Resume tokens: a version, then the position in each partition. They are no secret and give no right: a forged one
// changes only what of his own rooms its user is sent.
const resumeVersion = 1

var errResume = wire.E(wire.InvalidArgument, "resume is not a token of this server; join without it")

func encodeResume(v []int64) string {
	b := make([]byte, 0, 2+len(v)*5)
	b = append(b, resumeVersion)
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, n := range v {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeResume(s string, partitions int) ([]int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 2 || len(s) > 1024 || b[0] != resumeVersion {
		return nil, errResume
	}
	b = b[1:]
	n, k := binary.Uvarint(b)
	if k <= 0 || n != uint64(partitions) {
		return nil, errResume
	}
	b = b[k:]
	v := make([]int64, n)
	for i := range v {
		x, k := binary.Uvarint(b)
		if k <= 0 || x >= 1<<53 {
			return nil, errResume
		}
		v[i] = int64(x)
		b = b[k:]
	}
	if len(b) != 0 {
		return nil, errResume
	}
	return v, nil
}

func maxVector(a, b []int64) []int64 {
	out := make([]int64, len(a))
	for i := range a {
		out[i] = a[i]
		if i < len(b) {
			out[i] = max(a[i], b[i])
		}
	}
	return out
}

func minVector(a, b []int64) []int64 {
	out := make([]int64, len(a))
	for i := range a {
		if i < len(b) {
			out[i] = min(a[i], b[i])
		}
	}
	return out
}
