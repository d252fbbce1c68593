package session

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/wsconn"
)

// Subprotocol is what the server selects when a client offers it.
const Subprotocol = "parley.v1"

// frameBurst is how many seconds' worth of frames a connection may send at once.
const frameBurst = 10

// bearerPrefix begins the subprotocol that carries a token, for browsers, which cannot set headers.
const bearerPrefix = "bearer."

// native is the WebSocket protocol of package wire over one connection.
type native struct {
	hub    *Hub
	conn   *wsconn.Conn
	opened time.Time
	wrong  mistake // reader only
	left   bool    // client_disconnection was said; reader only

	mu    sync.Mutex
	shown bool     // a token, which is being looked at or has been
	s     *Session // nil before authentication
}

// Native serves the native protocol at an HTTP route.
type Native struct {
	hub      *Hub
	upgrader *wsconn.Upgrader
}

// NewNative makes the handler.
func NewNative(h *Hub, cfg wsconn.Config) *Native {
	cfg.FrameBytes = h.cfg.FrameBytes
	cfg.FramesPerSecond, cfg.FrameBurst = h.cfg.FramesPerSecond, frameBurst*h.cfg.FramesPerSecond
	return &Native{hub: h, upgrader: wsconn.NewUpgrader(cfg, Subprotocol)}
}

// ServeHTTP upgrades the request. Whatever is wrong with a token or with the number of connections is told on the WebSocket: a browser shows a
// page neither status nor body of a refused handshake.
func (n *Native) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tok, has := bearer(r)
	conn := n.upgrader.Upgrade(w, r)
	if conn == nil {
		return
	}
	c := &native{hub: n.hub, conn: conn, opened: time.Now()}
	if why, err := n.hub.add(c, r); err != nil {
		c.refuse(err, why)
	} else if has {
		c.authenticate(tok, "")
	}
	conn.Start(c)
}

// bearer finds a token in the header or in the subprotocols; never in the URL, which gets logged.
func bearer(r *http.Request) (string, bool) {
	if h := r.Header.Get("Authorization"); h != "" {
		if scheme, tok, ok := strings.Cut(h, " "); ok && strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(tok), true
		}
		return "", true
	}
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for _, p := range strings.Split(h, ",") {
			if tok, ok := strings.CutPrefix(strings.TrimSpace(p), bearerPrefix); ok {
				return tok, true
			}
		}
	}
	return "", false
}

var (
	errAuthFirst   = wire.E(wire.Unauthenticated, `the first frame is {"event":"authenticate","data":{"token":"…"}}`)
	errAuthTwice   = wire.E(wire.InvalidArgument, "this connection is authenticated; use refresh_token for a new token")
	errUnknown     = wire.E(wire.UnknownEvent, "clients send no such event")
	errTooLarge    = wire.E(wire.TooLarge, "the frame is larger than limits.frame_bytes")
	errBinary      = wire.E(wire.InvalidFrame, "frames are text, not binary")
	errScope       = wire.E(wire.Unauthenticated, "this token is not for the native protocol")
	errAuthTimeout = wire.E(wire.Unauthenticated, "no token came in time")
)

func (n *native) session() *Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.s
}

func (n *native) refuse(err error, why wire.Close) {
	n.sendError(err, "")
	n.conn.Close(why)
}

func (n *native) sendError(err error, re string) {
	e := wire.AsError(err)
	n.hub.m.errors.WithLabelValues(string(e.Code)).Inc()
	n.conn.SendText(wire.EncodeError(e, re))
}

// authenticate opens the session, or refuses and closes. It is called by the reader or before that begins, so it may wait.
func (n *native) authenticate(tok, re string) {
	n.mu.Lock()
	n.shown = true
	n.mu.Unlock()
	claims, err := n.hub.Verifier.Verify(tok, time.Now())
	if err == nil && !hasScope(claims, token.ScopeNative) {
		err = errScope
	}
	if err != nil {
		e := asWire(err)
		n.sendError(e, re)
		n.conn.Close(closeFor(e, err))
		return
	}
	s, err := n.hub.open(n, claims, true)
	if err != nil {
		n.sendError(err, re)
		n.conn.Close(wire.CloseTooMany)
		return
	}
	n.mu.Lock()
	n.s = s
	n.mu.Unlock()
	s.ack(wire.Ack{}, re)
}

func hasScope(c token.Claims, want string) bool {
	for _, s := range strings.Fields(c.Scope) {
		if s == want {
			return true
		}
	}
	return false
}

// Frame implements wsconn.Handler.
func (n *native) Frame(b []byte) {
	f, err := wire.DecodeFrame(b)
	if err != nil {
		n.bad(err, f.ID)
		return
	}
	s := n.session()
	if s == nil {
		if f.Event != wire.EvAuthenticate {
			n.refuse(errAuthFirst, wire.CloseNoAuth)
			return
		}
		var a wire.Authenticate
		if err := wire.DecodeData(f, &a); err != nil {
			n.refuse(err, wire.CloseNoAuth)
			return
		}
		n.authenticate(a.Token, f.ID)
		return
	}
	if err := n.handle(s, f); err != nil {
		if err == errUnknown || err == errData {
			n.bad(err, f.ID)
			return
		}
		s.sendError(err, f.ID)
	}
}

// errData marks data that could not be read at all, which counts as a bad frame.
var errData = wire.E(wire.InvalidArgument, `the "data" of this event has other fields or types`)

func decode[T any](f wire.Frame) (T, error) {
	var v T
	if wire.DecodeData(f, &v) != nil {
		return v, errData
	}
	return v, nil
}

func (n *native) handle(s *Session, f wire.Frame) error {
	switch f.Event {
	case wire.EvSend:
		v, err := decode[wire.Send](f)
		if err != nil {
			return err
		}
		return s.SendMessage(v, f.ID)
	case wire.EvJoin:
		v, err := decode[wire.Join](f)
		if err != nil {
			return err
		}
		return s.Join(v, f.ID)
	case wire.EvTyping:
		v, err := decode[wire.Marker](f)
		if err != nil {
			return err
		}
		if err := s.Typing(v.Room); err != nil {
			return err
		}
		s.ack(wire.Ack{}, f.ID)
	case wire.EvRead:
		v, err := decode[wire.Marker](f)
		if err != nil {
			return err
		}
		return s.Read(v.Room, v.Seq, f.ID)
	case wire.EvWatch:
		v, err := decode[wire.Watch](f)
		if err != nil {
			return err
		}
		return s.Watch(v.Usernames, f.ID)
	case wire.EvAlive:
		s.Alive(f.ID)
	case wire.EvRefreshToken:
		v, err := decode[wire.Authenticate](f)
		if err != nil {
			return err
		}
		return asNil(s.Refresh(v.Token, f.ID))
	case wire.EvDisconnection:
		n.left = true
		s.ack(wire.Ack{}, f.ID)
		n.conn.Close(wire.CloseNormal)
		// Not when the connection has ended: a peer that does not close its side lets that take a second or two.
		s.gone(true)
	case wire.EvAuthenticate:
		return errAuthTwice
	default:
		return errUnknown
	}
	return nil
}

// asNil turns errors of the verifier into what clients may see.
func asNil(err error) error {
	if err == nil {
		return nil
	}
	return asWire(err)
}

// Binary implements wsconn.Handler.
func (n *native) Binary([]byte) { n.bad(errBinary, "") }

// TooLarge implements wsconn.Skipper.
func (n *native) TooLarge() {
	if n.session() == nil {
		n.refuse(errTooLarge, wire.CloseTooLarge) // it is no token
		return
	}
	n.bad(errTooLarge, "")
}

// bad answers a frame that could not be understood; too many of them end the connection.
func (n *native) bad(err error, re string) {
	if s := n.session(); s != nil {
		s.sendError(err, re)
	} else {
		n.sendError(err, re)
	}
	if n.wrong.tooMany(time.Now()) {
		n.conn.Close(wire.CloseBadFrames)
	}
}

// Pong implements wsconn.Handler.
func (n *native) Pong(num uint32) {
	if s := n.session(); s != nil {
		s.Answered(num)
	}
}

// Closed implements wsconn.Handler.
func (n *native) Closed(why wire.Close) {
	n.hub.remove(n, why)
	if s := n.session(); s != nil {
		// The peer's own 1000 is a good-bye as well.
		s.gone(n.left || why.Code == wire.CloseNormal.Code || why == wire.CloseTokenRevoked || why == wire.CloseUserDisabled)
	}
}

func (n *native) tick(now time.Time) {
	if s := n.session(); s != nil {
		s.tick(now)
		return
	}
	n.mu.Lock()
	shown := n.shown
	n.mu.Unlock()
	if !shown && n.hub.silence(now, n.opened) > n.hub.cfg.AuthTimeout {
		n.refuse(errAuthTimeout, wire.CloseNoAuth)
	}
}

func (n *native) goAway(in time.Duration) {
	if s := n.session(); s != nil {
		s.send(wire.EvGoingAway, wire.GoingAway{ReconnectInMS: in.Milliseconds()}, "")
	}
}

func (n *native) close(why wire.Close) { n.conn.Close(why) }

// Send implements Wire.
func (n *native) Send(event string, data any, re string) {
	switch v := data.(type) {
	case *Accepted:
		n.conn.SendText(wire.AppendMessage(nil, (*wire.Message)(v), true, re))
	case *Shared:
		n.conn.SendFrame(v.native.get(func() []byte { return wsconn.Text(wire.Encode(event, v.Data, "")) }))
	default:
		n.conn.SendText(wire.Encode(event, data, re))
	}
}

// SendMessage implements Wire: one encoding for all native recipients.
func (n *native) SendMessage(d *router.Delivery) {
	n.conn.SendFrame(d.Frame(router.Native, func(m *wire.Message) []byte {
		return wsconn.Text(wire.AppendMessage(make([]byte, 0, len(m.Content)+256), m, false, ""))
	}))
}

// Probe implements Wire.
func (n *native) Probe(num uint32) { n.conn.Ping(num) }

// ask implements ticker. Sessions do not count with 0.
func (n *native) ask() { n.conn.Ping(0) }

// Beats implements Wire.
func (n *native) Beats() bool { return false }

// Echoes implements Wire: message_accepted says it all.
func (n *native) Echoes() bool { return false }

// LastReceived implements Wire.
func (n *native) LastReceived() int64 { return n.conn.LastReceived() }

// Close implements Wire.
func (n *native) Close(why wire.Close) { n.conn.Close(why) }

// JoinSent implements Wire.
func (n *native) JoinSent(s *Session, r room.Room) error { return s.joinSent(r) }

// Wait implements Wire.
func (n *native) Wait(ctx context.Context) error { return n.conn.Wait(ctx) }

// Shared is data that many native sessions are sent, encoded once.
type Shared struct {
	Data any

	native once
}

// once is something that is made when it is first asked for.
type once struct {
	sync.Once
	bytes []byte
}

func (o *once) get(f func() []byte) []byte {
	o.Do(func() { o.bytes = f() })
	return o.bytes
}

// presenceCache keeps the last batch of presence, which usually goes to many sessions in a row.
type presenceCache struct {
	mu  sync.Mutex
	key string
	val *Shared
}

func (c *presenceCache) data(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) *Shared {
	key := presenceKey(online, offline, unknown, snapshot, partial)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.val != nil && c.key == key {
		return c.val
	}
	p := wire.Presence{Online: online, Offline: make([]wire.Offline, 0, len(offline)), Unknown: unknown, Snapshot: snapshot, Partial: partial}
	if p.Online == nil {
		p.Online = []string{}
	}
	for _, o := range offline {
		p.Offline = append(p.Offline, wire.Offline{Username: o.User, LastSeen: wire.Millis(o.LastSeen)})
	}
	c.key, c.val = key, &Shared{Data: p}
	return c.val
}

// presenceKey spells the batch out: comparing texts is cheap beside encoding, and cannot be wrong.
func presenceKey(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) string {
	n := 8
	for _, u := range online {
		n += len(u) + 1
	}
	b := make([]byte, 0, n+len(offline)*32)
	b = strconv.AppendBool(b, unknown)
	b = strconv.AppendBool(b, snapshot)
	b = strconv.AppendBool(b, partial)
	for _, u := range online {
		b = append(append(b, '+'), u...)
		b = append(b, '&') // in no name
	}
	for _, o := range offline {
		b = append(append(b, '-'), o.User...)
		b = strconv.AppendInt(append(b, '&'), o.LastSeen, 10)
	}
	return string(b)
}
