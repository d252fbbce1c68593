package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/router"
)

// Session is one authenticated client. Idle, it holds no goroutine, no timer and no buffer of its own.
type Session struct {
	hub    *Hub
	wire   Wire
	id     uint64
	user   string
	acct   *account
	placed bool            // among the user's connections; under the hub's mu
	ctx    context.Context // ends with the session
	cancel context.CancelFunc

	// mu also orders what is sent: messages are handed to the wire under it. Publishing and presence are not called under it.
	mu     sync.Mutex
	claims token.Claims
	closed bool
	active bool   // it has joined something: the user is online
	device string // as named by the last join

	// What it gets (join.go).
	all      bool
	rooms    map[room.Room]int64 // joined one by one → seq up to which history was read
	floor    []int64             // of all: per partition, the seq up to which history was or will be read
	jobs     []joinJob
	joining  bool // the catch-up goroutine runs
	catching *catching
	reached  []int64 // everything up to here was sent, of all rooms; nil while that is not known

	// What it sends (send.go).
	queues     map[room.Room]*outgoing // the head is under way
	queued     int
	queueBytes int
	byHand     map[seqKey]struct{} // accepted without their copy, which may still come
	own        map[seqKey]struct{} // accepted while a catch-up runs, which reads them too

	watch watching // whose presence it gets (watch.go)

	met      map[string]struct{} // with whom the user talks, where a session gets the presence of those (near.go)
	widening bool                // met is put into force

	// What it has confirmed (cursor.go).
	dirty     map[room.Room]written
	ahead     map[room.Room]written // written live while a catch-up has older ones still to read
	probing   []written
	probe     uint32
	lastProbe int64 // Unix seconds

	// Of the connection's reader only: the last room as the client wrote it, and what it is.
	lastName string
	lastRoom room.Room

	asked  map[notice]*api.Ephemeral // what waits for the directory to say whether it may be told
	asking bool                      // askAll runs

	typed    map[room.Room]int64 // when typing was told last, Unix ms, of the last second
	calls    int                 // requests of this session under way
	checking bool                // auth is asked about an expired token
}

type seqKey struct {
	p   int
	seq int64
}

var (
	errTooMany    = wire.E(wire.TooManyConnections, "this user has too many connections here; close one")
	errDraining   = wire.E(wire.Unavailable, "this gateway is shutting down; connect again")
	errStarting   = wire.E(wire.Unavailable, "this gateway is starting; connect again")
	errBusy       = &wire.Error{Code: wire.RateLimited, Message: "too many requests of this connection are under way", RetryAfterMS: 1000}
	errNotOwnRoom = wire.E(wire.Forbidden, "this is not a room of yours")
	errNobody     = wire.E(wire.UnknownUser, "there is no such user")
	errRoomName   = wire.E(wire.InvalidArgument, "a room is two different user names joined with &")
)

// open makes a session of verified claims. w must be ready to send. Where the user has too many connections, it waits (if it may, up to roomTime)
// for those of them that are dead to make room.
func (h *Hub) open(w Wire, claims token.Claims, wait bool) (*Session, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	s := &Session{hub: h, wire: w, id: binary.LittleEndian.Uint64(id[:]) | 1, user: claims.Username, claims: claims, lastProbe: time.Now().Unix()}
	if !h.acquire(s, wait) {
		return nil, errTooMany
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h.Directory.Acquire(s.user)
	h.m.sessions.Inc()
	s.send(wire.EvWelcome, wire.Welcome{
		Username: s.user, Session: s.name(), ServerTime: wire.Timestamp{Time: time.Now()}, HeartbeatS: int(h.cfg.Heartbeat / time.Second),
		Limits: wire.Limits{FrameBytes: h.cfg.FrameBytes, ContentBytes: h.cfg.ContentBytes, MessagesPerMinute: h.cfg.MessagesPerMinute},
	}, "")
	return s, nil
}

// name is the session's public name.
func (s *Session) name() string { return strconv.FormatUint(s.id, 36) }

func (s *Session) currentClaims() token.Claims {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims
}

func (s *Session) isActive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// gone ends the session: when its client says so, or when the connection has ended. It does nothing the second time.
func (s *Session) gone(deliberate bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	active := s.active
	s.catching, s.dirty, s.ahead, s.probing, s.jobs = nil, nil, nil, nil, nil
	s.mu.Unlock()
	s.cancel()
	s.hub.forget(s)
	s.hub.Presence.Unwatch(s)
	if active {
		s.hub.Router.Remove(s.user, s)
		s.hub.Presence.Gone(s.id, s.user, deliberate)
	}
	s.hub.Directory.Release(s.user)
	s.hub.release(s)
	s.hub.m.sessions.Dec()
}

// activate makes the session a receiver: its user is online from now on.
func (s *Session) activate() error {
	s.mu.Lock()
	if s.active || s.closed {
		s.mu.Unlock()
		return nil
	}
	s.active = true
	s.mu.Unlock()
	// Called by the connection's reader only, as gone is: they cannot overtake each other.
	if err := s.hub.Router.Add(s.user, s); err != nil {
		s.hub.Router.Remove(s.user, s)
		s.mu.Lock()
		s.active = false
		s.mu.Unlock()
		return rpc.ErrUnavailable
	}
	s.hub.Presence.Online(s.id, s.user)
	s.show()
	return nil
}

func (s *Session) send(event string, data any, re string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wire.Send(event, data, re)
	}
}

func (s *Session) sendError(err error, re string) {
	e := wire.AsError(err)
	var inner *wire.Error
	if errors.As(err, &inner) {
		e = inner
	} else {
		s.hub.Log.Error("a request of a session failed", "error", err)
	}
	s.hub.m.errors.WithLabelValues(string(e.Code)).Inc()
	s.send(wire.EvError, e, re)
}

// ack answers a frame that had an id.
func (s *Session) ack(a wire.Ack, re string) {
	if re != "" {
		s.send(wire.EvAck, a, re)
	}
}

// room reads a room of the session's user whose other one may be talked to: what is written there needs that permission.
func (s *Session) room(name string) (room.Room, error) {
	r, err := s.ownRoom(name)
	if err != nil {
		return r, err
	}
	_, err = s.hub.Directory.Peer(s.ctx, s.user, r.Peer(s.user))
	return r, err
}

// ownRoom reads a room of the session's user. To join and to read it nobody's permission is needed: what was said there is of both.
func (s *Session) ownRoom(name string) (room.Room, error) {
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
		page, err := s.hub.History.HistoryPage(s.ctx, api.PageRequest{A: r.A, B: r.B, Limit: 1})
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
	if _, err := s.hub.Directory.Peer(s.ctx, s.user, r.Peer(s.user)); err == nil {
		return r.String()
	}
	peer, _ := s.peerOf(name) // it is a room of the user's
	r, _ = room.Of(s.user, peer)
	return r.String()
}

// call runs f in a goroutine; a session has few of them at a time.
func (s *Session) call(re string, f func(ctx context.Context)) {
	if !s.try(f) {
		s.sendError(errBusy, re)
	}
}

// try is call; it returns false, and does nothing, when there are too many.
func (s *Session) try(f func(ctx context.Context)) bool {
	s.mu.Lock()
	if s.closed || s.calls >= maxCalls {
		s.mu.Unlock()
		return false
	}
	s.calls++
	s.hub.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.hub.wg.Done()
		f(s.ctx)
		s.mu.Lock()
		s.calls--
		s.mu.Unlock()
	}()
	return true
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
	s.mu.Lock()
	quiet := now-s.typed[r] < 1000
	if !quiet {
		maps.DeleteFunc(s.typed, func(_ room.Room, at int64) bool { return now-at >= 1000 })
		if s.typed == nil {
			s.typed = map[room.Room]int64{}
		}
		s.typed[r] = now
	}
	s.mu.Unlock()
	if !quiet {
		s.hub.Bus.Notify(r, api.Ephemeral{Event: wire.EvTyping, Username: s.user, Session: s.name(), At: now})
	}
	return nil
}

// typingGood is how long a client shows that somebody types.
const typingGood = 5 * time.Second

func over(e *api.Ephemeral) bool {
	return e.At > 0 && time.Since(time.UnixMilli(e.At)) > typingGood
}

// Read moves the read marker.
func (s *Session) Read(name string, seq int64, re string) error {
	r, err := s.ownRoom(name)
	if err != nil {
		return err
	}
	if seq <= 0 {
		return wire.E(wire.InvalidArgument, "seq is that of a message of the room")
	}
	s.call(re, func(ctx context.Context) {
		for range readTries {
			resp, err := s.hub.History.HistoryRead(ctx, api.ReadRequest{User: s.user, A: r.A, B: r.B, Seq: seq, Session: s.name()})
			if err != nil {
				s.sendError(err, re)
				return
			}
			// What the stream has will be in SQL; a seq that nothing has yet moves the marker as far as there are messages.
			if !resp.Behind || seq > s.hub.Router.PositionAt(subject.Partition(r, s.hub.Router.Partitions())) {
				s.ack(wire.Ack{}, re)
				return
			}
		}
		s.sendError(rpc.ErrUnavailable, re)
	})
	return nil
}

// readTries is how often a read marker is taken to an SQL that is behind, which waits for a second each time.
const readTries = 10

// Alive answers connection_alive.
func (s *Session) Alive(re string) {
	s.mu.Lock()
	resume := ""
	if s.reached != nil && len(s.jobs) == 0 { // a join that waits may begin anywhere
		v := s.reached
		if !s.joining {
			// Everything up to what the router has checked was handed to the wire before this answer.
			v = maxVector(s.reached, s.hub.Router.Checked())
		}
		resume = encodeResume(v)
	}
	s.mu.Unlock()
	s.ack(wire.Ack{Resume: resume}, re)
}

// Refresh takes a new access token of the same user.
func (s *Session) Refresh(tok string, re string) error {
	c, err := s.hub.Verifier.Verify(tok, time.Now())
	if err != nil {
		return err
	}
	if c.Username != s.user {
		return wire.E(wire.Forbidden, "the token belongs to another user")
	}
	if !hasScope(c, token.ScopeNative) {
		return errScope
	}
	s.mu.Lock()
	s.claims = c
	s.mu.Unlock()
	s.ack(wire.Ack{}, re)
	return nil
}

// PresenceUpdate implements presence.Watcher.
func (s *Session) PresenceUpdate(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) {
	data := s.hub.presenceFrames.data(online, offline, unknown, snapshot, partial)
	s.send(wire.EvPresence, data, "")
}

// Notify implements router.Member.
func (s *Session) Notify(r room.Room, e *api.Ephemeral) {
	if e.Session == s.name() || e.Event == wire.EvTyping && e.Username == s.user {
		return
	}
	if over(e) {
		return // it waited somewhere
	}
	if e.Username != s.user {
		// The one gate of all that tells what the other one does: whoever may not see a user's presence learns of no marker either.
		ok, sure := s.hub.Directory.Sees(s.user, e.Username)
		if !sure {
			s.ask(r, e)
			return
		}
		if !ok {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Username != s.user {
		delete(s.asked, notice{r, e.Event}) // what waits is older
	}
	s.tell(r, e)
}

// notice is what a session may be told of the other one of a room.
type notice struct {
	room  room.Room
	event string
}

// maxAsked bounds the notices that wait for the directory; more than a user has rooms in which something moves at a time. Others are not told.
const maxAsked = 4096

// ask has a notice told when the directory has said that it may be. Of each kind and room the last one waits, so that a mark never goes back and none
// is lost while nobody knows.
func (s *Session) ask(r room.Room, e *api.Ephemeral) {
	k := notice{r, e.Event}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.asked[k]; s.closed || old != nil && old.Seq > e.Seq || old == nil && len(s.asked) >= maxAsked {
		return
	}
	if s.asked == nil {
		s.asked = map[notice]*api.Ephemeral{}
	}
	s.asked[k] = e
	if !s.asking {
		s.asking = true
		s.hub.wg.Add(1)
		go s.askAll()
	}
}

// askAll asks the directory until no notice waits.
func (s *Session) askAll() {
	defer s.hub.wg.Done()
	for {
		s.mu.Lock()
		peer := ""
		for k := range s.asked {
			peer = k.room.Peer(s.user)
			break
		}
		if s.closed || peer == "" {
			s.asked, s.asking = nil, false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		_, err := s.hub.Directory.Peer(s.ctx, s.user, peer)
		if err != nil && wire.AsError(err).Code == wire.Unavailable { // it will be known, and the mark still counts then
			select {
			case <-time.After(askAgain):
				continue
			case <-s.ctx.Done():
				continue
			}
		}
		s.mu.Lock()
		for k, e := range s.asked {
			if k.room.Peer(s.user) != peer {
				continue
			}
			delete(s.asked, k)
			if err == nil && !over(e) {
				s.tell(k.room, e)
			}
		}
		s.mu.Unlock()
	}
}

// askAgain is how long it takes to ask a directory again that knew nothing.
const askAgain = time.Second

// tell needs mu. It sends a notice to a session that joined its room.
func (s *Session) tell(r room.Room, e *api.Ephemeral) {
	if !s.closed && s.joined(r) {
		s.wire.Send(e.Event, wire.Marker{Room: r.String(), Username: e.Username, Seq: e.Seq}, "")
	}
}

// joined needs mu.
func (s *Session) joined(r room.Room) bool {
	if s.all {
		return true
	}
	_, ok := s.rooms[r]
	return ok
}

// Deliver implements router.Member.
func (s *Session) Deliver(d *router.Delivery) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.meets(d.Room.Peer(s.user))
	var next *outgoing
	told := false
	if d.Message.Sender == s.user {
		next, told = s.ownCopy(d)
	}
	if !told && s.joined(d.Room) && d.Message.Seq > s.floorOf(d.Room, d.P) {
		if c := s.catching; c != nil && c.covers(d.Room) {
			c.offer(d)
		} else {
			s.deliver(d, false)
		}
	}
	s.mu.Unlock()
	s.start(next)
}

// deliver needs mu. read: the running catch-up has read it, and all before it.
func (s *Session) deliver(d *router.Delivery, read bool) {
	s.wire.SendMessage(d)
	s.hub.m.delivered.Inc()
	s.wrote(d.Room, d.P, d.Message.Seq, d.Message.Sender != s.user, read)
}
