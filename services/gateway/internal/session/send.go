package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/router"
)

// outgoing is one message of the session that has no outcome yet.
type outgoing struct {
	pub    *bus.Publication
	re     string
	retry  bool
	stored *wire.Message // it has been seen in the stream or in history, and was not handed to the wire: its acceptance stands for it
	next   *outgoing
}

// Limits of what a session may have under way. The count is above the burst of the rate limit, so the latter is what clients meet.
const (
	maxQueued     = 1024
	maxQueueBytes = 2 << 20
	maxNoted      = 256
)

var (
	errContent  = wire.E(wire.InvalidArgument, "content is non-empty text without NUL characters")
	errTooLong  = wire.E(wire.TooLarge, "content is longer than limits.content_bytes")
	errID       = wire.E(wire.InvalidArgument, "id is 1 to 64 of A-Z a-z 0-9 _ . : -")
	errBacklog  = &wire.Error{Code: wire.RateLimited, Message: "too many messages wait to be accepted", RetryAfterMS: 1000}
	errInternal = wire.E(wire.Internal, "something went wrong here; try again")
)

// SendMessage takes one message. The answer comes later, as message_accepted or error.
func (s *Session) SendMessage(m wire.Send, re string) error {
	if m.ID != "" && !wire.ValidMessageID(m.ID) {
		return errID
	}
	// NUL is legal in JSON and impossible in PostgreSQL's text.
	if m.Content == "" || strings.IndexByte(m.Content, 0) >= 0 {
		return errContent
	}
	if len(m.Content) > s.hub.cfg.ContentBytes {
		return errTooLong
	}
	r, err := s.room(m.Room)
	if err != nil {
		return err
	}
	if wait := s.acct.reserve(s.hub.cfg.MessagesPerMinute, s.hub.cfg.MessageBurst); wait > 0 {
		return &wire.Error{Code: wire.RateLimited, Message: "too many messages", RetryAfterMS: wait.Milliseconds() + 1}
	}
	if m.ID == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		m.ID = base64.RawURLEncoding.EncodeToString(b[:])
	}
	if err := s.wire.JoinSent(s, r); err != nil {
		return err
	}
	o := &outgoing{re: re, retry: m.Retry}
	o.pub = s.hub.Publisher.New(bus.Publication{
		Room: r, P: subject.Partition(r, s.hub.Router.Partitions()), Sender: s.user, ID: m.ID, Content: m.Content,
		Done: func(m *wire.Message, err error) { s.done(o, m, err) },
	})
	s.mu.Lock()
	if s.queued >= maxQueued || s.queueBytes+len(m.Content) > maxQueueBytes {
		s.mu.Unlock()
		return errBacklog
	}
	s.queued++
	s.queueBytes += len(m.Content)
	head := s.queues[r]
	if head != nil {
		for head.next != nil {
			head = head.next
		}
		head.next = o
		s.mu.Unlock()
		return nil
	}
	if s.queues == nil {
		s.queues = make(map[room.Room]*outgoing, 1)
	}
	s.queues[r] = o
	s.mu.Unlock()
	s.start(o)
	return nil
}

// has reports whether a room is joined or about to be.
func (s *Session) has(r room.Room) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined(r) || s.joinPending(r)
}

// joinSent joins a room that a message was sent to, if need be.
func (s *Session) joinSent(r room.Room) error {
	if s.has(r) {
		return nil
	}
	return s.join(joinJob{rooms: []room.Room{r}})
}

// start sends the head of a room's queue; nil does nothing. Not under mu.
func (s *Session) start(o *outgoing) {
	if o == nil {
		return
	}
	after := s.hub.Router.PositionAt(o.pub.P)
	s.mu.Lock()
	o.pub.After = after
	s.mu.Unlock()
	if !o.retry {
		s.hub.Publisher.Publish(o.pub)
		return
	}
	s.hub.wg.Add(1)
	go func() {
		defer s.hub.wg.Done()
		s.findFirst(o)
	}()
}

// findFirst asks SQL whether a message that the client sends again was stored in a try whose dedupe window is over.
func (s *Session) findFirst(o *outgoing) {
	// Not the session's context: a message that was taken is seen through.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	last, err := s.hub.Bus.LastSeq(ctx, o.pub.P)
	if err != nil {
		s.done(o, nil, bus.ErrUnknown)
		return
	}
	found, err := s.hub.History.HistoryFind(ctx, api.FindRequest{Sender: s.user, ID: o.pub.ID, P: o.pub.P, MinApplied: last})
	if err != nil {
		s.done(o, nil, bus.ErrUnknown)
		return
	}
	if m := found.Message; m != nil {
		if m.A != o.pub.Room.A || m.B != o.pub.Room.B || m.Content != o.pub.Content {
			s.done(o, nil, bus.ErrConflict)
			return
		}
		s.done(o, &wire.Message{Sender: s.user, Content: m.Content, Room: o.pub.Room.String(), ID: m.ID, Seq: m.Seq, Prev: m.Prev, SentAt: wire.Millis(m.SentAt)}, nil)
		return
	}
	s.hub.Publisher.Publish(o.pub)
}

// done ends the head of a queue, with a stored message or an error. It is bus.Publication's Done.
func (s *Session) done(o *outgoing, m *wire.Message, err error) {
	s.mu.Lock()
	if err != nil && o.stored != nil && !errors.Is(err, bus.ErrConflict) {
		m, err = o.stored, nil
	}
	if err != nil {
		next := s.pop(o)
		s.mu.Unlock()
		s.sendError(err, o.re)
		s.start(next)
		return
	}
	s.hub.Router.Stored(o.pub.P, m.Seq)
	if !s.wire.Echoes() {
		// Its copy may still come, and must not be sent as received_message then.
		s.noteByHand(seqKey{o.pub.P, m.Seq})
	}
	next := s.accepted(o, m, o.pub.P)
	s.mu.Unlock()
	s.start(next)
}

// accepted needs mu. It answers, and returns what is to be started next.
func (s *Session) accepted(o *outgoing, m *wire.Message, p int) *outgoing {
	next := s.pop(o)
	s.hub.m.accepted.Inc()
	echoes := s.wire.Echoes()
	if s.joining && !echoes {
		// What a running catch-up reads includes it; message_accepted stands for it.
		s.own = note(s.own, seqKey{p, m.Seq})
	}
	if !s.closed {
		s.wire.Send(wire.EvAccepted, (*Accepted)(m), o.re)
		if echoes {
			return next // it counts as written when its copy is
		}
		// Where the room is not joined yet (a wire may put that off), older messages have not been sent.
		if s.joined(o.pub.Room) || s.joining {
			s.wrote(o.pub.Room, p, m.Seq, false, false)
		}
	}
	return next
}

// Accepted is the data of message_accepted.
type Accepted wire.Message

// pop needs mu. o is the head of its queue.
func (s *Session) pop(o *outgoing) (next *outgoing) {
	s.queued--
	s.queueBytes -= len(o.pub.Content)
	next = o.next
	if next == nil {
		delete(s.queues, o.pub.Room)
		if len(s.queues) == 0 {
			s.queues = nil
		}
		return nil
	}
	s.queues[o.pub.Room] = next
	return next
}

// ownCopy needs mu. A message of the session's user has come live: it may be one that the session sends or has just sent. It returns what is to be
// started next, and whether message_accepted stands for the message.
func (s *Session) ownCopy(d *router.Delivery) (next *outgoing, told bool) {
	key := seqKey{d.P, d.Message.Seq}
	o := s.queues[d.Room]
	if o == nil || !o.is(d.Message.ID, d.Message.Content, d.Message.Seq) {
		_, told = s.byHand[key]
		delete(s.byHand, key)
		return nil, told
	}
	told = !s.wire.Echoes()
	if o.pub.Copied() {
		return s.accepted(o, &d.Message, d.P), told
	}
	// Its outcome is being told by another goroutine, or it is looked for in SQL.
	o.stored = &d.Message
	if told {
		s.noteByHand(key)
	}
	return nil, told
}

// isOwn reports that message_accepted stands for a message read from history: this session sends it or has just sent it. It needs mu.
func (s *Session) isOwn(m *api.StoredMessage) bool {
	if m.Sender != s.user {
		return false
	}
	if _, ok := s.own[seqKey{m.P, m.Seq}]; ok {
		return true
	}
	o := s.queues[room.Room{A: m.A, B: m.B}]
	if o == nil || !o.is(m.ID, m.Content, m.Seq) {
		return false
	}
	o.stored = &router.FromStored(m).Message // its answer comes
	return !s.wire.Echoes()
}

// is reports whether a stored message is this one. From below what was known when this was sent it is of an earlier try or, when there was none, of
// an older stream, or a message of its own. It needs Session.mu.
func (o *outgoing) is(id, content string, seq int64) bool {
	return o.pub.ID == id && o.pub.Content == content && (o.retry || seq > o.pub.After)
}

// noteByHand needs mu.
func (s *Session) noteByHand(k seqKey) { s.byHand = note(s.byHand, k) }

// note adds k to a set that stays small.
func note(set map[seqKey]struct{}, k seqKey) map[seqKey]struct{} {
	if set == nil {
		set = map[seqKey]struct{}{}
	}
	if len(set) >= maxNoted {
		clear(set) // their copies are long overdue; one that comes after all is dropped by the client's dedupe
	}
	set[k] = struct{}{}
	return set
}
