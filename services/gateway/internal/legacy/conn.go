package legacy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/socketio"
)

// conn is one connection, and the Wire of its session. What is of the reader is used under the engine's receive lock only (socketio's and engineio's
// calls, Do).
type conn struct {
	room *Legacy
	sio  *socketio.Conn

	// Of the reader.
	wrong   connections.Mistake
	entries connections.Mistake // into a namespace
	tokens  tokens
	counted string      // the login whose join the keep-alive began with
	pending []room.Room // joined, while the delay runs
	delay   *time.Timer
	begun   bool // the delay is over

	quietSince atomic.Int64 // Unix seconds: since when nobody is signed in
	alive      atomic.Int64 // Unix ms: the last sign of life of the user; 0 while nothing is joined

	mu       sync.Mutex
	s        *session.Session
	told     map[string]struct{} // who was announced as online to this client
	question uint32              // the last one of the session that was not answered; 0 for none
	ping     uint32              // that carries it
}

// tokens is what a connection knows of those that came with its events. Of the reader.
type tokens struct {
	asked   [sha256.Size]byte // of the one that was looked at last
	refused time.Time         // when that was refused
	good    [sha256.Size]byte // of the one that was found good last
	news    connections.Mistake
	noPlace time.Time // when the user had too many connections
	ended   string    // the login that was ended last from here
}

// answer is what an ack says.
type answer struct {
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
	ID     string `json:"id,omitempty"`
	Seq    int64  `json:"seq,omitempty"`
}

func (c *conn) session() *session.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// Connect implements socketio.Handler.
func (c *conn) Connect(namespace string, _ json.RawMessage) error {
	if c.entries.TooMany(time.Now()) {
		c.Close(wire.CloseRate)
		return errors.New(wire.CloseRate.Reason)
	}
	if namespace != socketio.Root {
		//lint:ignore ST1005 the reference implementation's text
		return errors.New("Invalid namespace")
	}
	return nil
}

// Connected implements socketio.Handler.
func (c *conn) Connected(string, json.RawMessage) {}

// Disconnected implements socketio.Handler: the client has said good-bye, though not to its login.
func (c *conn) Disconnected(string) { c.signOut(true) }

// Closed implements socketio.Handler.
func (c *conn) Closed(why wire.Close) {
	c.signOut(why.Code == wire.CloseNormal.Code)
	c.room.table.Remove(c, why)
}

// Pong implements socketio.Handler.
func (c *conn) Pong(n uint32) {
	c.mu.Lock()
	s, question := c.s, c.question
	if int32(n-c.ping) < 0 {
		question = 0 // a heartbeat from before; that to a later one counts
	}
	if question != 0 {
		c.question = 0
	}
	c.mu.Unlock()
	if s != nil && question != 0 {
		s.Answered(question)
	}
}

// signOut ends the session; the connection stays. Reader only.
func (c *conn) signOut(deliberate bool) {
	if c.delay != nil {
		c.delay.Stop()
	}
	told := c.begun
	c.delay, c.pending, c.begun, c.tokens.good = nil, nil, false, [sha256.Size]byte{}
	s := c.session()
	if s != nil {
		c.room.leave(s.User(), c)
	}
	c.alive.Store(0)
	if s == nil {
		return
	}
	s.Gone(deliberate)
	c.room.table.SignOut(c)
	if told {
		c.emit(evUserOffline, userEvent{s.User()})
	}
	c.mu.Lock()
	c.s, c.told, c.question = nil, nil, 0
	c.mu.Unlock()
	c.quietSince.Store(time.Now().Unix())
}

// Event implements socketio.Handler.
func (c *conn) Event(e socketio.Event) {
	var in event
	switch {
	case len(e.Attachments) > 0:
		c.mistake(e.Ack, "binary data has no place here")
		return
	case len(e.Args) == 0 || in.read(e.Args[0]) != nil:
		c.mistake(e.Ack, "Invalid request")
		return
	}
	switch e.Name {
	case wire.EvJoin:
		c.join(&in, e.Ack)
	case wire.EvSend:
		c.message(&in, e.Ack)
	case wire.EvAlive:
		if s := c.session(); s != nil && in.Client != nil && sameName(*in.Client, s.User()) && c.alive.Load() != 0 {
			c.room.heard(s.User())
		}
		c.reply(e.Ack, answer{Result: "success"})
	case wire.EvDisconnection:
		c.goodbye(&in, e.Ack)
	default:
		c.mistake(e.Ack, "there is no event "+strconv.Quote(e.Name))
	}
}

// sameName reports whether a client means a user by a name.
func sameName(name, user string) bool {
	return name == user || room.Fold(name) == room.Fold(user)
}

type field struct {
	name  string
	value *string
}

// missing is the error text for the first field that was not given, "" for none.
func missing(fields ...field) string {
	for _, f := range fields {
		if f.value == nil {
			return "Invalid request, missing required field: " + f.name
		}
	}
	return ""
}

func (c *conn) reply(a socketio.Ack, v answer) {
	if a.Wanted() {
		b, _ := json.Marshal([]answer{v}) // cannot fail
		c.sio.Answer(a, b)
	}
}

// mistake answers what no client of this protocol sends; too much of it ends the connection.
func (c *conn) mistake(a socketio.Ack, text string) {
	err := c.room.hub.Failure(wire.E(wire.InvalidArgument, text))
	if a.Wanted() {
		c.reply(a, answer{Error: text})
	} else {
		c.emit(wire.EvError, err)
	}
	if c.wrong.TooMany(time.Now()) {
		c.Close(wire.CloseBadFrames)
	}
}

func (c *conn) emit(event string, data any) { c.sio.SendFrame(eventFrame(event, data)) }

func eventFrame(event string, data any) []byte {
	b, _ := json.Marshal(data) // types of this package and of wire: cannot fail
	return socketio.EventFrame(event, b)
}

// errToken says that an event's token is not good for the user that it names.
var errToken = wire.E(wire.Unauthenticated, invalidJWT)

// authenticate gives the session of an event's token, which must be that of the user it names.
func (c *conn) authenticate(jwt, user string) (*session.Session, error) {
	t := &c.tokens
	proof := sha256.Sum256([]byte(jwt))
	s := c.session()
	if s != nil && proof == t.good {
		// Found good before. Whether it still is, is asked every time.
		cl := s.Claims()
		if !sameName(user, s.User()) || c.room.hub.Verifier.Revoked(cl) || time.Now().After(cl.Expires) {
			return nil, errToken
		}
		return s, nil
	}
	// Every look costs a signature's check. Clients have few tokens in their life, and repeat one that was refused for each room.
	switch {
	case proof == t.asked:
		if time.Since(t.refused) < time.Second {
			return nil, errToken
		}
	case strings.Count(jwt, ".") == 2 && t.news.TooMany(time.Now()):
		c.Close(wire.CloseBadFrames)
		return nil, errToken
	}
	t.asked, t.refused = proof, time.Time{}
	cl, err := c.room.hub.Verifier.Verify(jwt, time.Now())
	if err != nil {
		if e := session.AsWire(err); e.Code == wire.Unavailable {
			return nil, e
		}
		t.refused = time.Now()
		return nil, errToken
	}
	if cl.SID == t.ended || !cl.Has(token.ScopeLegacy) && !cl.Has(token.ScopeNative) || !sameName(user, cl.Username) {
		return nil, errToken
	}
	if s != nil {
		if s.Renew(cl) != nil {
			return nil, errToken // one user a connection at a time
		}
		t.good = proof
		return s, nil
	}
	// A client joins one room after the other: they do not all wait.
	if err := c.room.table.SignIn(c, cl.Username, time.Since(t.noPlace) > connections.PlaceTime); err != nil {
		t.noPlace = time.Now()
		return nil, err
	}
	s = c.room.hub.Open(c, cl, true)
	c.mu.Lock()
	c.s = s
	c.mu.Unlock()
	t.good = proof
	return s, nil
}

func (c *conn) join(in *event, ack socketio.Ack) {
	if text := missing(field{"room", in.Room}, field{"client", in.Client}, field{"jwt", in.JWT}); text != "" {
		c.reply(ack, answer{Error: text})
		return
	}
	s, err := c.authenticate(*in.JWT, *in.Client)
	if err == nil {
		var r room.Room
		if r, err = s.OwnRoom(*in.Room); err == nil {
			err = c.enter(s, r)
		}
	}
	if err != nil {
		c.reply(ack, answer{Error: session.AsWire(err).Message})
		return
	}
	c.reply(ack, answer{Result: "success"})
}

// enter joins a room, once the delay is over.
func (c *conn) enter(s *session.Session, r room.Room) error {
	// From now on the client has to say that it is there; after a new login, from that one's join.
	login := s.Claims().SID
	if c.alive.Load() == 0 {
		c.room.join(s.User(), c)
		c.counted = ""
	}
	if c.counted != login {
		c.counted = login
		c.room.heard(s.User())
	}
	if c.begun {
		if s.Joins(r) {
			return nil // as before nearly every message
		}
		err := s.Enter(r)
		if err == nil {
			s.WatchPeers(MaxContacts)
		}
		return err
	}
	if slices.Contains(c.pending, r) {
		return nil
	}
	if len(c.pending) >= wire.MaxJoinRooms {
		return wire.E(wire.InvalidArgument, "too many rooms")
	}
	c.pending = append(c.pending, r)
	if c.delay == nil {
		c.delay = time.AfterFunc(c.room.cfg.Delay, func() { c.sio.Engine().Do(c.begin) })
	}
	return nil
}

// begin ends the delay: the user is announced and gets what waits.
func (c *conn) begin() {
	s, rooms := c.session(), c.pending
	if s == nil || c.begun || len(rooms) == 0 {
		return // signed out since
	}
	c.begun, c.pending = true, nil
	// What the list said must be compared with everybody whom it was about: where nobody is watched at first, with the second snapshot.
	narrow := s.WatchesNobody()
	online := c.room.served.take(s.User())
	if !narrow {
		c.tell(s, online)
	}
	// The original announces a user to everybody, himself included, before it delivers what waits. The presence of others leaves him out.
	c.emit(evUserOnline, userEvent{s.User()})
	if err := s.Enter(rooms...); err != nil {
		// NATS is away: nothing was announced. The client joins again when it connects again.
		c.Close(wire.CloseTryLater)
		return
	}
	if narrow {
		c.tell(s, online)
	}
	s.WatchPeers(MaxContacts)
}

// tell notes whom the client knows to be online, from the contacts list that it was served.
func (c *conn) tell(s *session.Session, online []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range online {
		if u != s.User() {
			c.note(u)
		}
	}
}

// note needs mu.
func (c *conn) note(user string) {
	if c.told == nil {
		c.told = map[string]struct{}{}
	}
	c.told[user] = struct{}{}
}

func (c *conn) message(in *event, ack socketio.Ack) {
	if text := missing(field{"sender", in.Sender}, field{"content", in.Content}, field{"conversation_room", in.Conversation}, field{"jwt", in.JWT}); text != "" {
		c.reply(ack, answer{Error: text})
		return
	}
	s, err := c.authenticate(*in.JWT, *in.Sender)
	if err != nil {
		if err == errToken {
			c.emit(wire.EvReceived, struct {
				Sender  string `json:"sender"`
				Content string `json:"content"`
			}{adminName, adminText(*in.Sender)})
		}
		c.reply(ack, answer{Error: session.AsWire(err).Message})
		return
	}
	m, re := wire.Send{Room: *in.Conversation, Content: *in.Content, ID: in.ID, Retry: in.Retry}, ack.String()
	r, err := s.Admit(m)
	if err == nil { // sending to a room joins it
		err = c.enter(s, r)
	}
	if err == nil {
		err = s.Say(r, m, re)
	}
	if err != nil {
		s.SendError(err, re)
	}
}

func (c *conn) goodbye(in *event, ack socketio.Ack) {
	if text := missing(field{"client", in.Client}, field{"jwt", in.JWT}); text != "" {
		c.reply(ack, answer{Error: text})
		return
	}
	s, err := c.authenticate(*in.JWT, *in.Client)
	if err != nil {
		c.reply(ack, answer{Error: session.AsWire(err).Message})
		return
	}
	// Before anybody hears that the user has gone, the token should be void everywhere; but who leaves is not kept for long by auth.
	select {
	case <-c.endLogin(s):
	case <-time.After(revokePatience):
	}
	c.signOut(true)
	c.reply(ack, answer{Result: "success"})
}

// revokePatience is how long a good-bye waits for auth.
const revokePatience = 300 * time.Millisecond

// endLogin ends the login of a session. From now on this connection takes no token of it, whether the revocation has come round or not.
func (c *conn) endLogin(s *session.Session) (done <-chan struct{}) {
	cl := s.Claims()
	c.tokens.ended = cl.SID
	return c.room.endLogin(cl.Username, cl.SID)
}

// Tick implements connections.Conn.
func (c *conn) Tick(now time.Time) {
	s := c.session()
	if s == nil {
		if c.room.table.Silence(now, time.Unix(c.quietSince.Load(), 0)) > c.room.cfg.Idle {
			c.Close(wire.CloseNoAuth)
		}
		return
	}
	if question := s.Tick(now); question != 0 {
		c.mu.Lock()
		if c.s == s {
			// Pong takes the lock as well: the answer cannot overtake these lines.
			c.ping, c.question = c.sio.Engine().Ping(), question
		}
		c.mu.Unlock()
	}
	at := c.alive.Load()
	if at == 0 {
		return
	}
	// The next look would come too late.
	if left := c.room.cfg.Alive - c.room.table.Silence(now, time.UnixMilli(at)); left < connections.TickEvery {
		c.later(max(0, left), func() {
			if c.session() != s || c.alive.Load() != at {
				return
			}
			c.endLogin(s)
			c.signOut(true)
		})
	}
}

// later runs f as the reader, from who must not wait.
func (c *conn) later(in time.Duration, f func()) {
	c.room.hub.After(in, func() { c.sio.Engine().Do(f) })
}

// GoAway implements connections.Conn: these clients know no such event.
func (c *conn) GoAway(time.Duration) {}

// Ask implements connections.Conn.
func (c *conn) Ask() { c.sio.Engine().Ping() }

// LastReceived implements connections.Conn.
func (c *conn) LastReceived() int64 { return c.sio.Engine().LastReceived() }

// Close implements session.Wire. A token that is no longer good ends the session only: the client hears why when it next sends.
func (c *conn) Close(why wire.Close) {
	switch why {
	case wire.CloseTokenRevoked, wire.CloseTokenExpired, wire.CloseUserDisabled:
		s := c.session()
		c.later(0, func() {
			if c.session() == s {
				c.signOut(true)
			}
		})
	default:
		c.sio.Engine().Close(why)
	}
}

// Send implements session.Wire: what these clients know of it.
func (c *conn) Send(event string, data any, re string) {
	switch v := data.(type) {
	case *session.Accepted:
		c.acked(re, answer{Result: "success", ID: v.ID, Seq: v.Seq})
	case *wire.Error:
		if re != "" {
			c.acked(re, answer{Error: v.Message})
		} else {
			c.emit(wire.EvError, v)
		}
	case *wire.Presence:
		c.presence(v)
	}
}

// acked answers the event whose ack was named re.
func (c *conn) acked(re string, v answer) {
	if a, err := socketio.ParseAck(re); err == nil {
		c.reply(a, v)
	}
}

type userEvent struct {
	Username string `json:"username"`
}

// presence makes single events of a batch. To one client, each user's alternate.
func (c *conn) presence(p *wire.Presence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// While it is unknown, who is missing from a snapshot may be online; another one comes when it is known.
	if p.Snapshot && !p.Unknown {
		now := make(map[string]struct{}, len(p.Online))
		for _, u := range p.Online {
			now[u] = struct{}{}
		}
		for u := range c.told {
			if _, ok := now[u]; !ok {
				c.announce(u, false)
			}
		}
	}
	for _, u := range p.Online {
		c.announce(u, true)
	}
	for _, o := range p.Offline {
		c.announce(o.Username, false)
	}
}

// announce needs mu.
func (c *conn) announce(user string, online bool) {
	_, was := c.told[user]
	switch {
	case was == online:
		return
	case online:
		c.note(user)
		c.emit(evUserOnline, userEvent{user})
	default:
		delete(c.told, user)
		c.emit(evUserOffline, userEvent{user})
	}
}

// SendMessage implements session.Wire.
func (c *conn) SendMessage(d *router.Delivery) { c.sio.SendFrame(d.Frame(c.room, c.room.encode)) }

// Wait implements session.Wire.
func (c *conn) Wait(ctx context.Context) error { return c.sio.Engine().Wait(ctx) }
