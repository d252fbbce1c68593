package session

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/socketio"
)

// SeedConfig has what only the Socket.IO clients of the seed system need (docs/socketio.md).
type SeedConfig struct {
	Delay        time.Duration `cfg:"socketio-delay" default:"3s" help:"Socket.IO: after its first join, a client is announced and gets messages only after this; the old clients lose what comes sooner"`
	Alive        time.Duration `cfg:"socketio-alive" default:"18s" help:"Socket.IO: without connection_alive for so long a user is signed out, even while the connection is open"`
	PingInterval time.Duration `cfg:"socketio-ping-interval" default:"25s" help:"Socket.IO: between two heartbeats of the server"`
	PingTimeout  time.Duration `cfg:"socketio-ping-timeout" default:"20s" help:"Socket.IO: for the answer to one"`
	Idle         time.Duration `cfg:"socketio-idle" default:"60s" help:"Socket.IO: a connection on which nobody is signed in is closed after this"`
	Bots         []string      `cfg:"socketio-bots" help:"Socket.IO: users whose messages arrive as ai_response_received; comma-separated"`
}

// Validate returns every mistake.
func (c SeedConfig) Validate() error {
	var errs []error
	for name, d := range map[string]time.Duration{
		"socketio-alive": c.Alive, "socketio-ping-interval": c.PingInterval, "socketio-ping-timeout": c.PingTimeout, "socketio-idle": c.Idle,
	} {
		if d < time.Second {
			errs = append(errs, errors.New(name+": must be at least 1s"))
		}
	}
	if c.Delay < 0 || c.Delay > time.Minute {
		errs = append(errs, errors.New("socketio-delay: must be between 0s and 1m"))
	}
	return errors.Join(errs...)
}

// Events of the seed's protocol that the native one does not have.
const (
	evUserOnline  = "new_user_online"
	evUserOffline = "user_has_gone_offline"
	evBotMessage  = "ai_response_received"
)

const (
	invalidJWT = "Invalid JWT"
	adminName  = "Admin"
)

// adminText is what a sender whose token is not good reads, to the letter.
func adminText(sender string) string {
	return "Error! User '" + sender + "' must disconnect, re login and reconnect so the conversation can be resumed."
}

// joinBurst lets a client join every room of a long contacts list at once.
const joinBurst = MaxSeedContacts + 100

// SeedBurst is how many packets an old client may send at once.
func (c Config) SeedBurst() int { return frameBurst*c.FramesPerSecond + joinBurst }

// MaxSeedContacts is how many contacts an old client is served: it joins each one's room.
const MaxSeedContacts = 1000

// Seed serves the seed's Socket.IO protocol.
type Seed struct {
	hub    *Hub
	cfg    SeedConfig
	sio    socketio.Config
	bots   map[string]struct{}
	served *served

	mu     sync.Mutex
	joined map[string][]*seedConn // by user
}

// NewSeed makes what Accept of an engineio.Server needs.
func NewSeed(h *Hub, cfg SeedConfig) *Seed {
	s := &Seed{
		hub: h, cfg: cfg, bots: map[string]struct{}{}, served: newServed(), joined: map[string][]*seedConn{},
		// A chat has no use for attachments; a few are read so that their event can be refused by name.
		sio: socketio.Config{ConnectTimeout: h.cfg.AuthTimeout, Attachments: 4, AttachmentBytes: h.cfg.FrameBytes},
	}
	for _, b := range cfg.Bots {
		s.bots[b] = struct{}{}
	}
	return s
}

// Joined reports whether a client of user has joined here. The contacts list of an old one has it as online from its join on, which others hear of
// after the delay.
func (s *Seed) Joined(user string) bool {
	s.mu.Lock()
	old := len(s.joined[user]) > 0
	s.mu.Unlock()
	return old || len(s.hub.Router.Members(user)) > 0
}

func (s *Seed) join(user string, c *seedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined[user] = append(s.joined[user], c)
}

func (s *Seed) leave(user string, c *seedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.joined[user], func(x *seedConn) bool { return x == c })
	if s.joined[user] = left; len(left) == 0 {
		delete(s.joined, user)
	}
}

// heard takes a sign of life of a user, on whichever connection: as the original has it, one that is dead and not known to be must not void the token of
// the one that took its place.
func (s *Seed) heard(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.joined[user] {
		c.alive.Store(time.Now().UnixMilli())
	}
}

// Accept is engineio.Accept.
func (s *Seed) Accept(e *engineio.Conn, r *http.Request) (engineio.Handler, error) {
	c := &seedConn{seed: s}
	c.quietSince.Store(time.Now().Unix())
	c.sio = socketio.New(&s.sio, e, c)
	if _, err := s.hub.add(c, r); err != nil {
		c.sio.Discard()
		return nil, err
	}
	return c.sio, nil
}

// seedConn is one connection. What is of the reader is used under the engine's receive lock only (socketio's and engineio's calls, Do).
type seedConn struct {
	seed *Seed
	sio  *socketio.Conn

	// Of the reader.
	wrong   mistake
	entries mistake           // into a namespace
	tokens  mistake           // that were new here
	asked   [sha256.Size]byte // of the token that was looked at last
	refused time.Time         // when that was refused
	noRoom  time.Time         // when its user had too many connections
	proof   [sha256.Size]byte // of the token that was found good last
	ended   string            // the login that was ended last from here
	counted string            // the login whose join the keep-alive began with
	pending []room.Room       // joined, while the delay runs
	delay   *time.Timer
	begun   bool // the delay is over

	quietSince atomic.Int64 // Unix seconds: since when nobody is signed in
	alive      atomic.Int64 // Unix ms: the last sign of life of the user; 0 while nothing is joined

	mu sync.Mutex
	s  *Session

	// Under the session's lock.
	told  map[string]struct{} // who was announced as online to this client
	probe uint32              // the last one that was not answered; 0 for none
	ping  uint32              // that carries it
}

// answer is what an ack says.
type answer struct {
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
	ID     string `json:"id,omitempty"`
	Seq    int64  `json:"seq,omitempty"`
}

func (c *seedConn) hub() *Hub { return c.seed.hub }

func (c *seedConn) session() *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

func (c *seedConn) setSession(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s = s
}

// Connect implements socketio.Handler.
func (c *seedConn) Connect(namespace string, _ json.RawMessage) error {
	if c.entries.tooMany(time.Now()) {
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
func (c *seedConn) Connected(string, json.RawMessage) {}

// Disconnected implements socketio.Handler: the client has said good-bye, though not to its login.
func (c *seedConn) Disconnected(string) { c.signOut(true) }

// Closed implements socketio.Handler.
func (c *seedConn) Closed(why wire.Close) {
	c.signOut(why.Code == wire.CloseNormal.Code)
	c.hub().remove(c, why)
}

// Pong implements socketio.Handler.
func (c *seedConn) Pong(n uint32) {
	s := c.session()
	if s == nil {
		return
	}
	s.mu.Lock()
	probe := c.probe
	if int32(n-c.ping) < 0 {
		probe = 0 // a heartbeat from before; that to a later one counts
	}
	if probe != 0 {
		c.probe = 0
	}
	s.mu.Unlock()
	if probe != 0 {
		s.Answered(probe)
	}
}

// signOut ends the session; the connection stays. Reader only.
func (c *seedConn) signOut(deliberate bool) {
	if c.delay != nil {
		c.delay.Stop()
	}
	told := c.begun
	c.delay, c.pending, c.begun, c.proof = nil, nil, false, [sha256.Size]byte{}
	s := c.session()
	if s != nil {
		c.seed.leave(s.user, c)
	}
	c.alive.Store(0)
	if s == nil {
		return
	}
	s.gone(deliberate)
	if told {
		c.emit(evUserOffline, userEvent{s.user})
	}
	s.mu.Lock()
	c.told, c.probe = nil, 0
	s.mu.Unlock()
	c.setSession(nil)
	c.quietSince.Store(time.Now().Unix())
}

// Event implements socketio.Handler.
func (c *seedConn) Event(e socketio.Event) {
	var in seedEvent
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
		if s := c.session(); s != nil && in.Client != nil && sameUser(*in.Client, s.user) && c.alive.Load() != 0 {
			c.seed.heard(s.user)
		}
		c.reply(e.Ack, answer{Result: "success"})
	case wire.EvDisconnection:
		c.goodbye(&in, e.Ack)
	default:
		c.mistake(e.Ack, "there is no event "+strconv.Quote(e.Name))
	}
}

// sameUser reports whether a client means a user by a name.
func sameUser(name, user string) bool {
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

func (c *seedConn) reply(a socketio.Ack, v answer) {
	if a.Wanted() {
		b, _ := json.Marshal([]answer{v}) // cannot fail
		c.sio.Answer(a, b)
	}
}

// mistake answers what no client of this protocol sends; too much of it ends the connection.
func (c *seedConn) mistake(a socketio.Ack, text string) {
	c.hub().m.errors.WithLabelValues(string(wire.InvalidArgument)).Inc()
	if a.Wanted() {
		c.reply(a, answer{Error: text})
	} else {
		c.emit(wire.EvError, wire.E(wire.InvalidArgument, text))
	}
	if c.wrong.tooMany(time.Now()) {
		c.Close(wire.CloseBadFrames)
	}
}

func (c *seedConn) emit(event string, data any) { c.sio.SendFrame(eventFrame(event, data)) }

func eventFrame(event string, data any) []byte {
	b, _ := json.Marshal(data) // types of this package and of wire: cannot fail
	return socketio.EventFrame(event, b)
}

// errToken says that an event's token is not good for the user that it names.
var errToken = wire.E(wire.Unauthenticated, invalidJWT)

// authenticate gives the session of an event's token, which must be that of the user it names.
func (c *seedConn) authenticate(jwt, user string) (*Session, error) {
	h := c.hub()
	proof := sha256.Sum256([]byte(jwt))
	s := c.session()
	if s != nil && proof == c.proof {
		// Found good before. Whether it still is, is asked every time.
		cl := s.currentClaims()
		if !sameUser(user, s.user) || h.Verifier.Revoked(cl) || time.Now().After(cl.Expires) {
			return nil, errToken
		}
		return s, nil
	}
	// Every look costs a signature's check. Clients have few tokens in their life, and repeat one that was refused for each room.
	switch {
	case proof == c.asked:
		if time.Since(c.refused) < time.Second {
			return nil, errToken
		}
	case strings.Count(jwt, ".") == 2 && c.tokens.tooMany(time.Now()):
		c.Close(wire.CloseBadFrames)
		return nil, errToken
	}
	c.asked, c.refused = proof, time.Time{}
	cl, err := h.Verifier.Verify(jwt, time.Now())
	if err != nil {
		if e := asWire(err); e.Code == wire.Unavailable {
			return nil, e
		}
		c.refused = time.Now()
		return nil, errToken
	}
	if cl.SID == c.ended || !hasScope(cl, token.ScopeSeed) && !hasScope(cl, token.ScopeNative) || !sameUser(user, cl.Username) {
		return nil, errToken
	}
	switch {
	case s == nil:
		// A client joins one room after the other: they do not all wait.
		if s, err = h.open(c, cl, time.Since(c.noRoom) > roomTime); err != nil {
			c.noRoom = time.Now()
			return nil, err
		}
		c.setSession(s)
	case s.user != cl.Username:
		return nil, errToken // one user a connection at a time
	default:
		s.mu.Lock()
		s.claims = cl
		s.mu.Unlock()
	}
	c.proof = proof
	return s, nil
}

func (c *seedConn) join(in *seedEvent, ack socketio.Ack) {
	if text := missing(field{"room", in.Room}, field{"client", in.Client}, field{"jwt", in.JWT}); text != "" {
		c.reply(ack, answer{Error: text})
		return
	}
	s, err := c.authenticate(*in.JWT, *in.Client)
	if err == nil {
		var r room.Room
		if r, err = s.ownRoom(*in.Room); err == nil {
			err = c.enter(s, r)
		}
	}
	if err != nil {
		c.reply(ack, answer{Error: asWire(err).Message})
		return
	}
	c.reply(ack, answer{Result: "success"})
}

// enter joins a room, once the delay is over.
func (c *seedConn) enter(s *Session, r room.Room) error {
	// From now on the client has to say that it is there; after a new login, from that one's join.
	login := s.currentClaims().SID
	if c.alive.Load() == 0 {
		c.seed.join(s.user, c)
		c.counted = ""
	}
	if c.counted != login {
		c.counted = login
		c.seed.heard(s.user)
	}
	if c.begun {
		if s.has(r) {
			return nil // as before nearly every message
		}
		if err := s.joinSent(r); err != nil {
			return err
		}
		c.watch(s)
		return nil
	}
	for _, have := range c.pending {
		if have == r {
			return nil
		}
	}
	if len(c.pending) >= wire.MaxJoinRooms {
		return wire.E(wire.InvalidArgument, "too many rooms")
	}
	c.pending = append(c.pending, r)
	if c.delay == nil {
		c.delay = time.AfterFunc(c.seed.cfg.Delay, func() { c.sio.Engine().Do(c.begin) })
	}
	return nil
}

// begin ends the delay: the user is announced and gets what waits.
func (c *seedConn) begin() {
	s, rooms := c.session(), c.pending
	if s == nil || c.begun || len(rooms) == 0 {
		return // signed out since
	}
	c.begun, c.pending = true, nil
	// What the list said must be compared with everybody whom it was about: where nobody is watched at first, with the second snapshot.
	narrow := watchesNobody(s)
	online := c.seed.served.take(s.user)
	if !narrow {
		c.tell(s, online)
	}
	// The seed announces a user to everybody, himself included, before it delivers what waits. The presence of others leaves him out.
	c.emit(evUserOnline, userEvent{s.user})
	if err := s.join(joinJob{rooms: rooms}); err != nil {
		// NATS is away: nothing was announced. The client joins again when it connects again.
		c.Close(wire.CloseTryLater)
		return
	}
	if narrow {
		c.tell(s, online)
	}
	c.watch(s)
}

// tell notes whom the client knows to be online, from the contacts list that it was served.
func (c *seedConn) tell(s *Session, online []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range online {
		if u != s.user {
			c.note(u)
		}
	}
}

// note needs the session's lock.
func (c *seedConn) note(user string) {
	if c.told == nil {
		c.told = map[string]struct{}{}
	}
	c.told[user] = struct{}{}
}

// watchesNobody reports whether a session gets presence neither of everybody nor of a roster.
func watchesNobody(s *Session) bool {
	sc := s.scope(s.ctx, nil, nil)
	return sc.names != nil && len(sc.names) == 0
}

// watch widens presence to the peers of all rooms that were joined, where a session watches nobody by itself.
func (c *seedConn) watch(s *Session) {
	peers := s.peers()
	if len(peers) > MaxSeedContacts {
		peers = peers[:MaxSeedContacts]
	}
	s.watchPeers(peers)
}

func (c *seedConn) message(in *seedEvent, ack socketio.Ack) {
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
		c.reply(ack, answer{Error: asWire(err).Message})
		return
	}
	re := ack.String()
	if err := s.SendMessage(wire.Send{Room: *in.Conversation, Content: *in.Content, ID: in.ID, Retry: in.Retry}, re); err != nil {
		s.sendError(err, re)
	}
}

func (c *seedConn) goodbye(in *seedEvent, ack socketio.Ack) {
	if text := missing(field{"client", in.Client}, field{"jwt", in.JWT}); text != "" {
		c.reply(ack, answer{Error: text})
		return
	}
	s, err := c.authenticate(*in.JWT, *in.Client)
	if err != nil {
		c.reply(ack, answer{Error: asWire(err).Message})
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
func (c *seedConn) endLogin(s *Session) (done <-chan struct{}) {
	cl := s.currentClaims()
	c.ended = cl.SID
	return c.hub().endLogin(cl.Username, cl.SID)
}

// tick implements ticker.
func (c *seedConn) tick(now time.Time) {
	s := c.session()
	if s == nil {
		if c.hub().silence(now, time.Unix(c.quietSince.Load(), 0)) > c.seed.cfg.Idle {
			c.Close(wire.CloseNoAuth)
		}
		return
	}
	s.tick(now)
	at := c.alive.Load()
	if at == 0 {
		return
	}
	// The next look would come too late.
	if left := c.seed.cfg.Alive - c.hub().silence(now, time.UnixMilli(at)); left < tickEvery {
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
func (c *seedConn) later(in time.Duration, f func()) {
	h := c.hub()
	h.wg.Add(1)
	time.AfterFunc(in, func() {
		defer h.wg.Done()
		c.sio.Engine().Do(f)
	})
}

// goAway implements ticker: these clients know no such event.
func (c *seedConn) goAway(time.Duration) {}

// close implements ticker.
func (c *seedConn) close(why wire.Close) { c.Close(why) }

// Close implements Wire. A token that is no longer good ends the session only: the client hears why when it next sends.
func (c *seedConn) Close(why wire.Close) {
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

// Send implements Wire: what the seed's clients know of it.
func (c *seedConn) Send(event string, data any, re string) {
	switch v := data.(type) {
	case *Accepted:
		c.acked(re, answer{Result: "success", ID: v.ID, Seq: v.Seq})
	case *wire.Error:
		if re != "" {
			c.acked(re, answer{Error: v.Message})
		} else {
			c.emit(wire.EvError, v)
		}
	case *Shared:
		if p, ok := v.Data.(wire.Presence); ok {
			c.presence(&p)
		}
	}
}

// acked answers the event whose ack was named re.
func (c *seedConn) acked(re string, v answer) {
	if a, err := socketio.ParseAck(re); err == nil {
		c.reply(a, v)
	}
}

type userEvent struct {
	Username string `json:"username"`
}

// presence makes single events of a batch. To one client, each user's alternate.
func (c *seedConn) presence(p *wire.Presence) {
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

func (c *seedConn) announce(user string, online bool) {
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

// encode is a message as these clients get it; what they do not know of it does no harm.
func (s *Seed) encode(m *wire.Message) []byte {
	event := wire.EvReceived
	if _, bot := s.bots[m.Sender]; bot {
		event = evBotMessage
	}
	return socketio.EventFrame(event, wire.AppendMessageData(make([]byte, 0, len(m.Content)+256), m))
}

// SendMessage implements Wire.
func (c *seedConn) SendMessage(d *router.Delivery) {
	c.sio.SendFrame(d.Frame(router.SocketIO, c.seed.encode))
}

// Probe implements Wire. It is called under the session's lock, which Pong takes as well: the answer cannot overtake these two lines.
func (c *seedConn) Probe(n uint32) {
	c.ping = c.sio.Engine().Ping()
	c.probe = n
}

// Beats implements Wire.
func (c *seedConn) Beats() bool { return true }

// Echoes implements Wire: the old clients append what comes, so their own messages must not come before older ones.
func (c *seedConn) Echoes() bool { return true }

// LastReceived implements Wire.
func (c *seedConn) LastReceived() int64 { return c.sio.Engine().LastReceived() }

// ask implements ticker.
func (c *seedConn) ask() { c.sio.Engine().Ping() }

// JoinSent implements Wire.
func (c *seedConn) JoinSent(s *Session, r room.Room) error { return c.enter(s, r) }

// Wait implements Wire.
func (c *seedConn) Wait(ctx context.Context) error { return c.sio.Engine().Wait(ctx) }
