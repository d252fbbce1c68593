package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/router"
)

// sends is what a session says and what became of it. Of each room one message at a time is under way, so that tries cannot change the order.
type sends struct {
	mu               sync.Mutex // held while an acceptance is sent, so that nobody takes its message for one that was not answered
	echo             bool       // own messages are delivered as well; it never changes
	catchingUp       bool
	count, bytes     int32
	heads            map[room.Room]*outgoing // under way; the others of the room wait behind it
	ackedWithoutCopy map[seqKey]struct{}     // accepted without the copy, which may still come
	accepted         map[seqKey]struct{}     // while a catch-up runs, which reads them too
}

// outgoing is one message of the session that has no outcome yet.
type outgoing struct {
	pub    *bus.Publication
	re     string
	retry  bool
	stored *wire.Message // it has been seen in the stream or in history, and was not handed to the wire: its acceptance stands for it
	next   *outgoing
}

// seqKey names a message.
type seqKey struct {
	p   int
	seq int64
}

// Accepted is the data of message_accepted.
type Accepted wire.Message

// Limits of what a session may have under way. The count is above the burst of the rate limit, so the latter is what clients meet.
const (
	maxQueued     = 1024
	maxQueueBytes = 2 << 20
	maxNoted      = 256
)

var (
	errContent = wire.E(wire.InvalidArgument, "content is non-empty text without NUL characters")
	errTooLong = wire.E(wire.TooLarge, "content is longer than limits.content_bytes")
	errID      = wire.E(wire.InvalidArgument, "id is 1 to 64 of A-Z a-z 0-9 _ . : -")
	errBacklog = &wire.Error{Code: wire.RateLimited, Message: "too many messages wait to be accepted", RetryAfterMS: 1000}
)

// Admit judges a message before it is said, and takes it from the user's allowance. Only the connection's reader may call it.
func (s *Session) Admit(m wire.Send) (room.Room, error) {
	if m.ID != "" && !wire.ValidMessageID(m.ID) {
		return room.Room{}, errID
	}
	// NUL is legal in JSON and impossible in PostgreSQL's text.
	if m.Content == "" || strings.IndexByte(m.Content, 0) >= 0 {
		return room.Room{}, errContent
	}
	if len(m.Content) > s.hub.ContentBytes {
		return room.Room{}, errTooLong
	}
	r, err := s.room(m.Room)
	if err != nil {
		return r, err
	}
	if wait := s.hub.reserve(s.user); wait > 0 {
		return r, &wire.Error{Code: wire.RateLimited, Message: "too many messages", RetryAfterMS: wait.Milliseconds() + 1}
	}
	return r, nil
}

// Say publishes a message that Admit found good, in the room that Admit gave. The answer comes later, as message_accepted or error.
func (s *Session) Say(r room.Room, m wire.Send, re string) error {
	if m.ID == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		m.ID = base64.RawURLEncoding.EncodeToString(b[:])
	}
	o := &outgoing{re: re, retry: m.Retry}
	o.pub = s.hub.Publisher.New(bus.Publication{
		Room: r, P: subject.Partition(r, s.hub.Router.Partitions()), Sender: s.user, ID: m.ID, Content: m.Content,
		Done: func(m *wire.Message, err error) { s.done(o, m, err) },
	})
	head, err := s.sends.add(o)
	if head {
		s.start(o)
	}
	return err
}

// start sends the head of a room's queue; nil does nothing. It needs no lock of the session.
func (s *Session) start(o *outgoing) {
	if o == nil {
		return
	}
	s.sends.begin(o, s.hub.Router.RoutedAt(o.pub.P))
	if o.retry {
		s.hub.Go(func() { s.findFirst(o) })
		return
	}
	s.hub.Publisher.Publish(o.pub)
}

// findFirst asks SQL whether a message that the client sends again was stored in a try whose dedupe window is over.
func (s *Session) findFirst(o *outgoing) {
	// Not the session's context: a message that was taken is seen through.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	last, err := s.hub.Bus.LastSeq(ctx, o.pub.P)
	var found api.FindResponse
	if err == nil {
		found, err = api.HistoryFind.Call(ctx, s.hub.Services, api.FindRequest{Sender: s.user, ID: o.pub.ID, P: o.pub.P, MinApplied: last})
	}
	m := found.Message
	switch {
	case err != nil:
		s.done(o, nil, bus.ErrUnknown)
	case m == nil:
		s.hub.Publisher.Publish(o.pub)
	case m.A != o.pub.Room.A || m.B != o.pub.Room.B || m.Content != o.pub.Content:
		s.done(o, nil, bus.ErrConflict)
	default:
		s.done(o, &router.FromStored(m).Message, nil)
	}
}

// done ends the head of a queue, with a stored message or an error. It is bus.Publication's Done.
func (s *Session) done(o *outgoing, m *wire.Message, err error) {
	s.sends.mu.Lock()
	if err != nil && o.stored != nil && !errors.Is(err, bus.ErrConflict) {
		m, err = o.stored, nil
	}
	if err != nil {
		next := s.sends.pop(o)
		s.sends.mu.Unlock()
		s.SendError(err, o.re)
		s.start(next)
		return
	}
	s.hub.Router.Stored(o.pub.P, m.Seq)
	if !s.sends.echo {
		s.sends.ackedWithoutCopy = note(s.sends.ackedWithoutCopy, seqKey{o.pub.P, m.Seq})
	}
	next := s.accept(o, m)
	s.sends.mu.Unlock()
	s.countAccepted(o.pub.Room, o.pub.P, m.Seq)
	s.start(next)
}

// accept needs sends.mu. It answers, and returns what is to be started next.
func (s *Session) accept(o *outgoing, m *wire.Message) (next *outgoing) {
	next = s.sends.pop(o)
	s.hub.m.accepted.Inc()
	if s.sends.catchingUp && !s.sends.echo {
		s.sends.accepted = note(s.sends.accepted, seqKey{o.pub.P, m.Seq})
	}
	s.Send(wire.EvAccepted, (*Accepted)(m), o.re)
	return next
}

// countAccepted has a message that was accepted wait for the client's confirmation, as one that was delivered does. Where the session's messages are
// echoed it counts when its copy is written.
func (s *Session) countAccepted(r room.Room, p int, seq int64) {
	// Where the room is not joined yet (the old clients' rooms may put that off), older messages have not been sent.
	if !s.sends.echo && s.in.Covers(r) {
		s.receipts.wrote(written{room: r, p: p, seq: seq}, false)
	}
}

// copied takes a message of the session's user that has come live: it may be one that the session sends or has just sent. It returns what is to be
// started next, whether the message was accepted now, and whether its acceptance, now, before or soon, stands for it.
func (s *Session) copied(d *router.Delivery) (next *outgoing, accepted, told bool) {
	key := seqKey{d.P, d.Message.Seq}
	q := &s.sends
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.heads[d.Room]
	if o == nil || !o.is(d.Message.ID, d.Message.Content, d.Message.Seq) {
		_, told = q.ackedWithoutCopy[key]
		delete(q.ackedWithoutCopy, key)
		return nil, false, told
	}
	if o.pub.Copied() {
		return s.accept(o, &d.Message), true, !q.echo
	}
	// Its outcome is being told by another goroutine, or it is looked for in SQL.
	o.stored = &d.Message
	if !q.echo {
		q.ackedWithoutCopy = note(q.ackedWithoutCopy, key)
	}
	return nil, false, !q.echo
}

// add queues a message; head says that no other of the room is under way.
func (q *sends) add(o *outgoing) (head bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count >= maxQueued || int(q.bytes)+len(o.pub.Content) > maxQueueBytes {
		return false, errBacklog
	}
	q.count++
	q.bytes += int32(len(o.pub.Content))
	if last := q.heads[o.pub.Room]; last != nil {
		for last.next != nil {
			last = last.next
		}
		last.next = o
		return false, nil
	}
	if q.heads == nil {
		q.heads = make(map[room.Room]*outgoing, 1)
	}
	q.heads[o.pub.Room] = o
	return true, nil
}

// begin notes how far the stream is known to reach before a message is published.
func (q *sends) begin(o *outgoing, after int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o.pub.After = after
}

// pop needs mu. o is the head of its queue.
func (q *sends) pop(o *outgoing) (next *outgoing) {
	q.count--
	q.bytes -= int32(len(o.pub.Content))
	if o.next != nil {
		q.heads[o.pub.Room] = o.next
		return o.next
	}
	delete(q.heads, o.pub.Room)
	if len(q.heads) == 0 {
		q.heads = nil
	}
	return nil
}

// catchUp says that a catch-up begins or has ended.
func (q *sends) catchUp(runs bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.catchingUp = runs; !runs {
		q.accepted = nil
	}
}

// answered reports that message_accepted stands for a message read from history: this session sends it or has just sent it.
func (q *sends) answered(m *api.StoredMessage) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.accepted[seqKey{m.P, m.Seq}]; ok {
		return true
	}
	o := q.heads[room.Room{A: m.A, B: m.B}]
	if o == nil || !o.is(m.ID, m.Content, m.Seq) {
		return false
	}
	o.stored = &router.FromStored(m).Message // its answer comes
	return !q.echo
}

// is reports whether a stored message is this one. From below what was known when this was sent it is of an earlier try or, when there was none, of
// an older stream, or a message of its own. It needs sends.mu.
func (o *outgoing) is(id, content string, seq int64) bool {
	return o.pub.ID == id && o.pub.Content == content && (o.retry || seq > o.pub.After)
}

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
