package native

import (
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/wsconn"
)

// conn is one connection. It is the Wire of its session; Close, Wait and LastReceived are the WebSocket's.
type conn struct {
	*wsconn.Conn
	door   *Door
	opened time.Time
	pinged int64               // Unix seconds; of Tick only, once there is a session
	wrong  connections.Mistake // bad frames; reader only
	left   bool                // client_disconnection was said; reader only

	mu    sync.Mutex
	shown bool             // a token, which is being looked at or has been
	s     *session.Session // nil before authentication
}

var (
	errAuthFirst   = wire.E(wire.Unauthenticated, `the first frame is {"event":"authenticate","data":{"token":"…"}}`)
	errAuthTwice   = wire.E(wire.InvalidArgument, "this connection is authenticated; use refresh_token for a new token")
	errUnknown     = wire.E(wire.UnknownEvent, "clients send no such event")
	errTooLarge    = wire.E(wire.TooLarge, "the frame is larger than limits.frame_bytes")
	errBinary      = wire.E(wire.InvalidFrame, "frames are text, not binary")
	errAuthTimeout = wire.E(wire.Unauthenticated, "no token came in time")
	// errData marks data that could not be read at all, which counts as a bad frame.
	errData = wire.E(wire.InvalidArgument, `the "data" of this event has other fields or types`)
)

func (c *conn) session() *session.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// refuse answers the frame that re names, and ends the connection.
func (c *conn) refuse(err error, re string, why wire.Close) {
	c.sendError(err, re)
	c.Close(why)
}

func (c *conn) sendError(err error, re string) {
	c.SendText(wire.EncodeError(c.door.hub.Failure(err), re))
}

// authenticate opens the session, or refuses and closes. It is called by the reader or before that begins, so it may wait.
func (c *conn) authenticate(tok, re string) {
	c.mu.Lock()
	c.shown = true
	c.mu.Unlock()
	claims, err := c.door.verify(tok)
	if err != nil {
		c.refuse(session.AsWire(err), re, closeFor(err))
		return
	}
	if err := c.door.table.SignIn(c, claims.Username, true); err != nil {
		c.refuse(err, re, wire.CloseTooMany)
		return
	}
	s := c.door.hub.Open(c, claims, false)
	c.mu.Lock()
	c.s, c.pinged = s, time.Now().Unix()
	c.mu.Unlock()
	s.Ack(wire.Ack{}, re)
}

// Frame implements wsconn.Handler.
func (c *conn) Frame(b []byte) {
	f, err := wire.DecodeFrame(b)
	if err != nil {
		c.bad(err, f.ID)
		return
	}
	s := c.session()
	if s == nil {
		var a wire.Authenticate
		if f.Event != wire.EvAuthenticate {
			c.refuse(errAuthFirst, "", wire.CloseNoAuth)
		} else if err := wire.DecodeData(f, &a); err != nil {
			c.refuse(err, "", wire.CloseNoAuth)
		} else {
			c.authenticate(a.Token, f.ID)
		}
		return
	}
	switch err := c.handle(s, f); err {
	case nil:
	case errUnknown, errData:
		c.bad(err, f.ID)
	default:
		s.SendError(err, f.ID)
	}
}

// with calls do with the data of a frame.
func with[T any](f wire.Frame, do func(v T) error) error {
	var v T
	if wire.DecodeData(f, &v) != nil {
		return errData
	}
	return do(v)
}

func (c *conn) handle(s *session.Session, f wire.Frame) error {
	switch f.Event {
	case wire.EvSend:
		return with(f, func(m wire.Send) error {
			r, err := s.Admit(m)
			if err == nil { // sending to a room joins it
				err = s.Enter(r)
			}
			if err == nil {
				err = s.Say(r, m, f.ID)
			}
			return err
		})
	case wire.EvJoin:
		return with(f, func(j wire.Join) error { return s.Join(j, f.ID) })
	case wire.EvTyping:
		return with(f, func(m wire.Marker) error {
			err := s.Typing(m.Room)
			if err == nil {
				s.Ack(wire.Ack{}, f.ID)
			}
			return err
		})
	case wire.EvRead:
		return with(f, func(m wire.Marker) error { return s.Read(m.Room, m.Seq, f.ID) })
	case wire.EvWatch:
		return with(f, func(w wire.Watch) error { return s.Watch(w.Usernames, f.ID) })
	case wire.EvAlive:
		s.Alive(f.ID)
	case wire.EvRefreshToken:
		return with(f, func(a wire.Authenticate) error {
			claims, err := c.door.verify(a.Token)
			if err == nil {
				err = s.Renew(claims)
			}
			if err == nil {
				s.Ack(wire.Ack{}, f.ID)
			}
			return err
		})
	case wire.EvDisconnection:
		c.left = true
		s.Ack(wire.Ack{}, f.ID)
		c.Close(wire.CloseNormal)
		// Not when the connection has ended: a peer that does not close its side lets that take a second or two.
		s.Gone(true)
		c.door.table.SignOut(c)
	case wire.EvAuthenticate:
		return errAuthTwice
	default:
		return errUnknown
	}
	return nil
}

// Binary implements wsconn.Handler.
func (c *conn) Binary([]byte) { c.bad(errBinary, "") }

// TooLarge implements wsconn.Skipper.
func (c *conn) TooLarge() {
	if c.session() == nil {
		c.refuse(errTooLarge, "", wire.CloseTooLarge) // it is no token
		return
	}
	c.bad(errTooLarge, "")
}

// bad answers a frame that could not be understood; too many of them end the connection.
func (c *conn) bad(err error, re string) {
	if s := c.session(); s != nil {
		s.SendError(err, re)
	} else {
		c.sendError(err, re)
	}
	if c.wrong.TooMany(time.Now()) {
		c.Close(wire.CloseBadFrames)
	}
}

// Pong implements wsconn.Handler.
func (c *conn) Pong(n uint32) {
	if s := c.session(); s != nil {
		s.Answered(n)
	}
}

// Closed implements wsconn.Handler.
func (c *conn) Closed(why wire.Close) {
	c.door.table.Remove(c, why)
	if s := c.session(); s != nil {
		// The peer's own 1000 is a good-bye as well.
		s.Gone(c.left || why.Code == wire.CloseNormal.Code || why == wire.CloseTokenRevoked || why == wire.CloseUserDisabled)
	}
}

// Tick implements connections.Conn.
func (c *conn) Tick(now time.Time) {
	c.mu.Lock()
	s, shown := c.s, c.shown
	c.mu.Unlock()
	hub, table := c.door.hub, c.door.table
	switch {
	case s == nil && !shown && table.Silence(now, c.opened) > hub.AuthTimeout:
		c.refuse(errAuthTimeout, "", wire.CloseNoAuth)
	case s == nil:
	case table.Silence(now, time.Unix(c.LastReceived(), 0)) > 2*hub.Heartbeat:
		c.Close(wire.CloseNoPong)
	default:
		if question := s.Tick(now); question != 0 || now.Unix()-c.pinged >= int64(hub.Heartbeat/time.Second) {
			c.pinged = now.Unix()
			c.Ping(question)
		}
	}
}

// Ask implements connections.Conn. No session asks with 0.
func (c *conn) Ask() { c.Ping(0) }

// GoAway implements connections.Conn.
func (c *conn) GoAway(in time.Duration) {
	if s := c.session(); s != nil {
		s.Send(wire.EvGoingAway, wire.GoingAway{ReconnectInMS: in.Milliseconds()}, "")
	}
}

// Send implements session.Wire.
func (c *conn) Send(event string, data any, re string) {
	switch v := data.(type) {
	case *session.Accepted:
		c.SendText(wire.AppendMessage(nil, (*wire.Message)(v), true, re))
	case *wire.Presence:
		c.SendFrame(c.door.presenceFrame(v))
	default:
		c.SendText(wire.Encode(event, data, re))
	}
}

// SendMessage implements session.Wire: one encoding for all native recipients.
func (c *conn) SendMessage(d *router.Delivery) {
	c.SendFrame(d.Frame(c.door, func(m *wire.Message) []byte {
		return wsconn.Text(wire.AppendMessage(make([]byte, 0, len(m.Content)+256), m, false, ""))
	}))
}
