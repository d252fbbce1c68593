package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/inbox"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/scope"
)

// Session is one signed-in client. Idle, it holds no goroutine, no timer and no buffer of its own. Its parts have a lock each; the order in which
// they are taken is in ARCHITECTURE.md.
type Session struct {
	hub    *Hub
	id     uint64
	user   string
	ctx    context.Context // ends with the session
	cancel context.CancelFunc
	active atomic.Bool // it has joined something: the user is online

	out      outlet      // to the client
	login    login       // by which it is here
	in       inbox.Inbox // what it is to get
	sends    sends       // what it says
	receipts receipts    // what its client has confirmed
	scope    scope.Scope // whose presence it gets
	notices  notices     // what waits for the directory to say whether it may be told

	calls atomic.Int32 // requests of this session under way

	// Of the connection's reader only.
	lastName string              // of a room, as the client wrote it last,
	lastRoom room.Room           // and what that is
	typed    map[room.Room]int64 // when typing was told last, Unix ms, of the last second
}

var (
	errNotOwnRoom = wire.E(wire.Forbidden, "this is not a room of yours")
	errNobody     = wire.E(wire.UnknownUser, "there is no such user")
	errRoomName   = wire.E(wire.InvalidArgument, "a room is two different user names joined with &")
	errInternal   = wire.E(wire.Internal, "something went wrong here; try again")
)

// Open makes a session of verified claims; w must be ready to send. With echo, the session's own messages are shown to it like all others of their
// rooms, in their order, and message_accepted does not stand for them.
func (h *Hub) Open(w Wire, claims token.Claims, echo bool) *Session {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	s := &Session{hub: h, id: binary.LittleEndian.Uint64(id[:]) | 1, user: claims.Username}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.out.wire, s.login.claims, s.sends.echo = w, claims, echo
	s.in.Open(&h.inboxes, (*owner)(s))
	s.scope.Open(h.sights, (*owner)(s))
	h.enter(s)
	h.Directory.Acquire(s.user)
	s.Send(wire.EvWelcome, wire.Welcome{
		Username: s.user, Session: s.name(), ServerTime: wire.Timestamp{Time: time.Now()}, HeartbeatS: int(h.Heartbeat / time.Second),
		Limits: wire.Limits{FrameBytes: h.FrameBytes, ContentBytes: h.ContentBytes, MessagesPerMinute: h.MessagesPerMinute},
	}, "")
	return s
}

// outlet is the way to a session's client. Once it is shut nothing comes out any more.
type outlet struct {
	mu   sync.Mutex
	wire Wire
	shut bool
}

func (o *outlet) send(event string, data any, re string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.shut {
		o.wire.Send(event, data, re)
	}
}

func (o *outlet) message(d *router.Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.shut {
		o.wire.SendMessage(d)
	}
}

func (o *outlet) close(why wire.Close) { o.wire.Close(why) }

// end shuts it. It reports false when that was done before.
func (o *outlet) end() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.shut
	o.shut = true
	return !was
}

// User is whose session it is.
func (s *Session) User() string { return s.user }

// name is the session's public name.
func (s *Session) name() string { return strconv.FormatUint(s.id, 36) }

// Gone ends the session: when its client says so, or when the connection has ended. It does nothing the second time. Only the connection's reader
// may call it.
func (s *Session) Gone(deliberate bool) {
	if !s.out.end() {
		return
	}
	s.in.End()
	s.receipts.end()
	s.cancel()
	s.hub.leave(s)
	s.scope.End()
	if s.active.Load() {
		s.hub.Router.Remove(s.user, s)
		s.hub.Presence.Gone(s.id, s.user, deliberate)
	}
	s.hub.Directory.Release(s.user)
}

// activate makes the session a receiver: its user is online from now on. The connection's reader calls it, as Gone: they cannot overtake each other.
func (s *Session) activate() error {
	if s.active.Load() || s.ctx.Err() != nil {
		return nil
	}
	if err := s.hub.Router.Add(s.user, s); err != nil {
		s.hub.Router.Remove(s.user, s)
		return rpc.ErrUnavailable
	}
	s.active.Store(true)
	s.hub.Presence.Online(s.id, s.user)
	s.scope.Show()
	return nil
}

// Send sends an event to the client.
func (s *Session) Send(event string, data any, re string) { s.out.send(event, data, re) }

// SendError tells the client what went wrong with the frame that re names, "" for none.
func (s *Session) SendError(err error, re string) { s.Send(wire.EvError, s.hub.Failure(err), re) }

// Ack answers a frame that had an id.
func (s *Session) Ack(a wire.Ack, re string) {
	if re != "" {
		s.Send(wire.EvAck, a, re)
	}
}

// Failure is an error as a client is told of it. It is counted, and logged when it has no code.
func (h *Hub) Failure(err error) *wire.Error {
	e := AsWire(err)
	if e == errInternal {
		h.Log.Error("a client's request failed", "error", err)
	}
	h.m.errors.WithLabelValues(string(e.Code)).Inc()
	return e
}

// AsWire is err as a client may see it, also when a *wire.Error is wrapped or a token's error came bare.
func AsWire(err error) *wire.Error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, token.ErrExpired):
		return wire.E(wire.Unauthenticated, "the token has expired; get a new one")
	case errors.Is(err, token.ErrInvalid), errors.Is(err, token.ErrKey):
		return wire.E(wire.Unauthenticated, "the token is not valid")
	}
	return errInternal
}

// OwnRoom reads a room of the session's user. To join and to read it nobody's permission is needed: what was said there is of both. Only the
// connection's reader may call it.
func (s *Session) OwnRoom(name string) (room.Room, error) {
	if last := s.lastRoom; name == s.lastName && last.Has(s.user) { // most messages go where the last one went
		return last, nil
	}
	peer, err := s.peerOf(name)
	if err != nil {
		return room.Room{}, err
	}
	registered, gone, err := s.hub.Directory.Recall(s.ctx, peer)
	if err != nil {
		return room.Room{}, err
	}
	r, err := room.Of(s.user, registered)
	if err != nil {
		return room.Room{}, errRoomName
	}
	if gone {
		// In a roster the answer must not tell which names exist. It is not remembered either: somebody may yet register the name, in another case.
		if s.hub.Directory.Mode() == api.Roster {
			return r, nil
		}
		page, err := api.HistoryPage.Call(s.ctx, s.hub.Services, api.PageRequest{A: r.A, B: r.B, Limit: 1})
		if err != nil {
			return room.Room{}, err
		}
		if len(page.Messages) == 0 {
			return room.Room{}, errNobody
		}
	}
	s.lastName, s.lastRoom = name, r
	return r, nil
}

// room is OwnRoom where the other one may be talked to: what is written there needs that permission.
func (s *Session) room(name string) (room.Room, error) {
	r, err := s.OwnRoom(name)
	if err != nil {
		return r, err
	}
	_, err = s.hub.Directory.Authorize(s.ctx, s.user, r.Peer(s.user))
	return r, err
}

// peerOf is the other one of a room of the session's user, as the client wrote it.
func (s *Session) peerOf(name string) (string, error) {
	x, y, err := room.Split(name)
	if err != nil {
		return "", errRoomName
	}
	switch room.Fold(s.user) {
	case room.Fold(x):
		return y, nil
	case room.Fold(y):
		return x, nil
	}
	return "", errNotOwnRoom
}

// told is how an answer names a room of the user that the client wrote as name. In a roster, one with somebody who is no contact is named as the
// client did: the registered form would tell that there is, or was, such a user.
func (s *Session) told(r room.Room, name string) string {
	if s.hub.Directory.Mode() != api.Roster {
		return r.String()
	}
	if _, err := s.hub.Directory.Authorize(s.ctx, s.user, r.Peer(s.user)); err == nil {
		return r.String()
	}
	peer, _ := s.peerOf(name) // it is a room of the user's
	r, _ = room.Of(s.user, peer)
	return r.String()
}

// maxCalls bounds the requests to services that one session has under way.
const maxCalls = 8

// Typing tells the peer that the user types. More than one a second in a room is swallowed: it is a hint.
func (s *Session) Typing(name string) error {
	r, err := s.room(name)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	if now-s.typed[r] < 1000 {
		return nil
	}
	maps.DeleteFunc(s.typed, func(_ room.Room, at int64) bool { return now-at >= 1000 })
	if s.typed == nil {
		s.typed = map[room.Room]int64{}
	}
	s.typed[r] = now
	s.hub.Bus.Notify(r, api.Ephemeral{Event: wire.EvTyping, Username: s.user, Session: s.name(), At: now})
	return nil
}

// readTries is how often a read marker is taken to an SQL that is behind, which waits for a second each time.
const readTries = 10

// Read moves the read marker, and answers then.
func (s *Session) Read(name string, seq int64, re string) error {
	r, err := s.OwnRoom(name)
	if err != nil {
		return err
	}
	if seq <= 0 {
		return wire.E(wire.InvalidArgument, "seq is that of a message of the room")
	}
	if s.calls.Add(1) > maxCalls {
		s.calls.Add(-1)
		return inbox.ErrBusy
	}
	s.hub.Go(func() {
		defer s.calls.Add(-1)
		for range readTries {
			resp, err := api.HistoryRead.Call(s.ctx, s.hub.Services, api.ReadRequest{User: s.user, A: r.A, B: r.B, Seq: seq, Session: s.name()})
			if err != nil {
				s.SendError(err, re)
				return
			}
			// What the stream has will be in SQL; a seq that nothing has yet moves the marker as far as there are messages.
			if !resp.Behind || seq > s.hub.Router.RoutedAt(subject.Partition(r, s.hub.Router.Partitions())) {
				s.Ack(wire.Ack{}, re)
				return
			}
		}
		s.SendError(rpc.ErrUnavailable, re)
	})
	return nil
}

// Watch narrows presence to some users, and answers then. The last list counts.
func (s *Session) Watch(names []string, re string) error { return s.scope.Watch(names, re) }

// WatchPeers has the session get the presence of those whose rooms it has joined, at most as many as most, where it would get nobody's otherwise.
func (s *Session) WatchPeers(most int) { s.scope.WatchPeers(most) }

// WatchesNobody reports whether the session gets the presence neither of everybody nor of a roster by itself.
func (s *Session) WatchesNobody() bool { return s.scope.WatchesNobody() }

// Alive answers connection_alive.
func (s *Session) Alive(re string) { s.Ack(wire.Ack{Resume: s.in.Token()}, re) }

// Deliver implements router.Member.
func (s *Session) Deliver(d *router.Delivery) {
	s.scope.Meets(d.Room.Peer(s.user))
	if d.Message.Sender == s.user {
		next, accepted, told := s.copied(d)
		if accepted {
			s.countAccepted(d.Room, d.P, d.Message.Seq)
		}
		defer s.start(next)
		if told {
			return
		}
	}
	s.in.Take(d)
}

// Tick looks at the session; it is called once a second, from one goroutine. When the result is not 0, the client is to be asked for a sign of
// life: its answer, which proves that everything sent before has arrived, is given to Answered with that number.
func (s *Session) Tick(now time.Time) (question uint32) {
	if s.login.expires(now) {
		s.expire()
	}
	return s.receipts.question(now, s.hub.Heartbeat, s.hub.Router.VerifiedAt)
}

// Answered takes the answer to a question of Tick.
func (s *Session) Answered(question uint32) {
	list, device := s.receipts.answered(question)
	for _, w := range list {
		s.hub.Confirmer.Add(api.Confirm{User: s.user, Device: device, A: w.room.A, B: w.room.B, Seq: w.seq, PeerSeq: w.peerSeq, Session: s.name()})
	}
}
