package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
)

// Ids of frames that are not messages; "#" is in no message id.
const (
	idJoin    = "#join"
	idAlive   = "#alive"
	idRefresh = "#refresh"
)

// link is one socket that has joined.
type link struct {
	ws      *websocket.Conn
	silence time.Duration // a link that says nothing for so long is dead
	wturn   chan struct{} // holds one value; who has taken it may write
	down    chan struct{} // closed when the socket is done
	leave   chan time.Duration
	planned atomic.Bool  // closed by this side, to connect anew at once
	heard   atomic.Int64 // when something came last, in ns since 1970
	probed  atomic.Int64 // when the server was asked last whether it is there
	mute    atomic.Bool  // closed by this side, for no answer came
	early   []wire.Frame // came before the answer to join
	refused []wire.Refusal
}

// write sends one frame. After a failure the socket is closed, and the reader sees it.
func (l *link) write(frame []byte) error { return l.writeWithin(context.Background(), frame) }

// writeWithin is write; a frame whose turn has not come when ctx ends is not sent. One that has begun is finished: half a frame would
// end the socket for everybody.
func (l *link) writeWithin(ctx context.Context, frame []byte) error {
	select {
	case <-l.wturn:
		defer func() { l.wturn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_ = l.ws.SetWriteDeadline(time.Now().Add(writeTimeout)) // a failure shows in the write
	if err := l.ws.WriteMessage(websocket.TextMessage, frame); err != nil {
		_ = l.ws.Close() // broken already
		return fmt.Errorf("write to the server: %w", err)
	}
	return nil
}

func (l *link) read() (wire.Frame, error) {
	_ = l.ws.SetReadDeadline(time.Now().Add(l.silence)) // a failure shows in the read
	_, b, err := l.ws.ReadMessage()
	var ce *websocket.CloseError
	switch {
	case err == nil:
		l.heard.Store(time.Now().UnixNano())
		return wire.DecodeFrame(b)
	case l.mute.Load():
		return wire.Frame{}, errNoAnswer
	case errors.As(err, &ce):
		return wire.Frame{}, &CloseError{ce.Code, ce.Text}
	}
	return wire.Frame{}, fmt.Errorf("read from the server: %w", err)
}

// connect makes a socket, which has to open within a time, and joins. It returns when the server has acknowledged that. A refused token
// is renewed once.
func (c *Conn) connect(ctx context.Context, within time.Duration) (*link, error) {
	tok := c.session.Tokens().AccessToken
	l, err := c.connectOnce(ctx, within)
	if err == nil || !refusedToken(err) || !c.session.renewable() {
		return l, err
	}
	if rerr := c.session.renew(ctx, tok); rerr != nil {
		return nil, rerr
	}
	return c.connectOnce(ctx, within)
}

// refusedToken reports that the server does not take the token (any more), which a fresh one may mend.
func refusedToken(err error) bool {
	var ce *CloseError
	if errors.As(err, &ce) {
		return ce.Code == wire.CloseTokenExpired.Code || ce.Code == wire.CloseNoAuth.Code
	}
	return isCode(err, wire.Unauthenticated)
}

func (c *Conn) connectOnce(ctx context.Context, within time.Duration) (*link, error) {
	tok, err := c.session.Token(ctx)
	if err != nil {
		return nil, err
	}
	d := websocket.Dialer{HandshakeTimeout: within, ReadBufferSize: 4096, WriteBufferSize: 1024}
	if t, ok := c.session.c.http.Transport.(*http.Transport); ok && t != nil {
		d.TLSClientConfig, d.Proxy, d.NetDialContext = t.TLSClientConfig, t.Proxy, t.DialContext
	} else {
		d.Proxy = http.ProxyFromEnvironment
	}
	ws, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(c.session.c.base, "http")+"/v1/ws", http.Header{"Authorization": {"Bearer " + tok}})
	if err != nil {
		if resp != nil {
			defer resp.Body.Close()
			return nil, problem(resp)
		}
		return nil, fmt.Errorf("reach the server: %w", err)
	}
	l := &link{ws: ws, silence: welcomeTimeout, wturn: make(chan struct{}, 1), down: make(chan struct{}), leave: make(chan time.Duration, 1)}
	l.wturn <- struct{}{}
	ws.SetReadLimit(maxFrame)
	ws.SetPingHandler(func(data string) error {
		_ = ws.SetReadDeadline(time.Now().Add(l.silence))
		l.heard.Store(time.Now().UnixNano())
		if c.lagging.Load() {
			return nil // an answer would confirm what was dropped
		}
		err := ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		var ne net.Error
		if errors.Is(err, websocket.ErrCloseSent) || errors.As(err, &ne) {
			return nil // a pong that waits behind a slow write is not worth the connection
		}
		return err
	})
	stop := context.AfterFunc(ctx, func() { _ = ws.Close() }) // makes the reads below end
	defer stop()
	if err := c.join(l); err != nil {
		_ = ws.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	c.attach(l)
	return l, nil
}

// join says which rooms, from where on, and waits for the answer.
func (c *Conn) join(l *link) error {
	f, err := l.read()
	if err != nil {
		return err
	}
	var w wire.Welcome
	switch f.Event {
	case wire.EvWelcome:
		if err := wire.DecodeData(f, &w); err != nil {
			return err
		}
	case wire.EvError:
		return serverError(f)
	default:
		return fmt.Errorf("the server began with %q instead of welcome", f.Event)
	}
	c.session.name(w.Username)
	c.mu.Lock()
	c.frameBytes = w.Limits.FrameBytes
	j := wire.Join{Rooms: wire.RoomList{All: c.o.Rooms == nil, List: c.o.Rooms}, Device: c.o.Device, Resume: c.resume}
	c.mu.Unlock()
	parts := split(j, w.Limits.FrameBytes)
	for _, part := range parts {
		if err := l.write(withID(wire.Encode(wire.EvJoin, part, ""), idJoin)); err != nil {
			return err
		}
	}
	return c.joinAnswers(l, parts, w.HeartbeatS)
}

// joinAnswers reads until every part of the join is acknowledged.
func (c *Conn) joinAnswers(l *link, parts []wire.Join, heartbeat int) error {
	for answered, joined := 0, 0; answered < len(parts); {
		f, err := l.read()
		if err != nil {
			return err
		}
		switch {
		case f.Re == idJoin && f.Event == wire.EvAck:
			var a wire.Ack
			if wire.DecodeData(f, &a) == nil {
				l.refused = append(l.refused, a.Refused...)
			}
			l.early = slices.DeleteFunc(l.early, isToken) // none of them covers this part
			answered++
			joined++
			continue
		case f.Re == idJoin && f.Event == wire.EvError && (joined > 0 || answered+1 < len(parts)) && l.passOver(parts[answered], serverError(f)):
			answered++
			continue
		case f.Event == wire.EvError:
			e := serverError(f)
			if e.Code == wire.InvalidArgument && c.forgetResume() {
				return fmt.Errorf("the resume token is not taken any more: %s", e.Message) // not as *wire.Error: the next try is without
			}
			return e
		case len(l.early) == maxEarly:
			return errors.New("the server does not answer join")
		}
		l.early = append(l.early, f)
	}
	l.silence = time.Minute
	if heartbeat > 0 {
		l.silence = 2*time.Duration(heartbeat)*time.Second + time.Second
	}
	return c.rewatch(l)
}

func isToken(f wire.Frame) bool { return f.Event == wire.EvCatchingUp || f.Event == wire.EvCaughtUp }

// passOver notes a part of a join of which nothing could be joined, for a reason that concerns its rooms only.
func (l *link) passOver(part wire.Join, e *wire.Error) bool {
	if e.Code != wire.Forbidden && e.Code != wire.UnknownUser {
		return false
	}
	for _, name := range part.Rooms.List {
		l.refused = append(l.refused, wire.Refusal{Room: name, Code: e.Code})
	}
	return true
}

// split makes as many joins of one as it takes for each to fit into a frame of the server.
func split(j wire.Join, frameBytes int) (parts []wire.Join) {
	if j.Rooms.All || len(j.Rooms.List) == 0 { // the server says what is wrong with an empty list
		return []wire.Join{j}
	}
	if frameBytes <= 0 {
		frameBytes = wire.DefaultFrameBytes
	}
	part := j
	part.Rooms.List = nil
	most := frameBytes - len(withID(wire.Encode(wire.EvJoin, wire.Join{Rooms: wire.RoomList{All: true}, Device: j.Device, Resume: j.Resume}, ""), idJoin))
	used := 0
	for _, name := range j.Rooms.List {
		need := len(wire.AppendString(nil, name)) + 1
		if used+need > most && len(part.Rooms.List) > 0 {
			parts = append(parts, part)
			part.Rooms.List, used = nil, 0
		}
		part.Rooms.List = append(part.Rooms.List, name)
		used += need
	}
	return append(parts, part)
}

// rewatch narrows presence again as it was before.
func (c *Conn) rewatch(l *link) error {
	c.mu.Lock()
	watch := c.watch
	c.mu.Unlock()
	if watch == nil {
		return nil
	}
	return l.write(wire.Encode(wire.EvWatch, wire.Watch{Usernames: watch}, ""))
}

func serverError(f wire.Frame) *wire.Error {
	e := &wire.Error{}
	if wire.DecodeData(f, e) != nil || e.Code == "" {
		return wire.E(wire.Internal, "the server sent an error without a code")
	}
	return e
}

// serve reads until the socket ends.
func (c *Conn) serve(l *link) error {
	c.wg.Add(1)
	go c.tend(l)
	defer close(l.down)
	defer c.detach()
	defer l.ws.Close()
	stop := context.AfterFunc(c.ctx, func() { _ = l.ws.Close() })
	defer stop()
	for _, r := range l.refused {
		c.emit(NotJoined{r.Room, r.Code})
	}
	for _, f := range l.early {
		c.handle(l, f)
	}
	l.early, l.refused = nil, nil
	for {
		f, err := l.read()
		switch {
		case err != nil && c.lagging.Load():
			return ErrLagging
		case err != nil:
			return err
		}
		c.handle(l, f)
	}
}

// handle deals with one frame. A frame of a kind or form that it does not know is from a younger server, and ignored.
func (c *Conn) handle(l *link, f wire.Frame) {
	var m wire.Message
	var mk wire.Marker
	switch f.Event {
	case wire.EvAccepted:
		if wire.DecodeData(f, &m) == nil {
			m.Sender = c.session.Username()
			own := c.accept(&m) || m.Content == "" // without its text it is of no use to anybody
			c.incoming(m, own)
		}
		return
	case wire.EvError:
		e := serverError(f)
		if !c.refuse(f.Re, e) && f.Re != idAlive {
			c.emit(Refused{e})
		}
		return
	}
	if c.lagging.Load() && f.Event != wire.EvGoingAway {
		return // it all comes again; a resume token of now would skip what was dropped
	}
	switch f.Event {
	case wire.EvReceived:
		if wire.DecodeData(f, &m) == nil {
			c.moved.Store(true)
			// One's own message, back after a reconnect that ate its acceptance.
			own := m.Sender == c.session.Username() && c.accept(&m)
			c.incoming(m, own)
		}
	case wire.EvPresence:
		var p wire.Presence
		if wire.DecodeData(f, &p) == nil {
			c.emit(Presence{p})
		}
	case wire.EvTyping, wire.EvRead, wire.EvDelivered:
		if wire.DecodeData(f, &mk) == nil {
			switch f.Event {
			case wire.EvTyping:
				c.emit(Typing{mk.Room, mk.Username})
			case wire.EvRead:
				c.emit(Read{mk.Room, mk.Username, mk.Seq})
			default:
				c.emit(Delivered{mk.Room, mk.Username, mk.Seq})
			}
		}
	case wire.EvContactAdded, wire.EvContactRemoved:
		var ct wire.Contact
		if wire.DecodeData(f, &ct) == nil {
			c.emit(ContactChanged{ct, f.Event == wire.EvContactRemoved})
		}
	case wire.EvGoingAway:
		var g wire.GoingAway
		if wire.DecodeData(f, &g) == nil {
			select {
			case l.leave <- time.Duration(g.ReconnectInMS) * time.Millisecond:
			default: // it said so before
			}
		}
	case wire.EvCatchingUp, wire.EvCaughtUp, wire.EvAck:
		var cu wire.CaughtUp
		if wire.DecodeData(f, &cu) == nil && cu.Resume != "" {
			c.goOnFrom(cu.Resume)
			if f.Event == wire.EvCaughtUp {
				c.emit(CaughtUp(cu))
			}
		}
	}
}

// goOnFrom makes the newest token the place of the next join. What was handed over and lies above it comes again, and is dropped.
func (c *Conn) goOnFrom(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resume = token
	c.moved.Store(false)
}

// forgetResume drops a resume token that worked for this connection before: the server is another installation. One that never worked is the
// caller's mistake.
func (c *Conn) forgetResume() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.resume != "" && c.joined
	if had {
		c.resume = ""
	}
	return had
}

func accepted(m *wire.Message) Accepted { return Accepted{m.ID, m.Room, m.Seq, m.SentAt.Time} }

// tend does what a live socket needs beside reading: fresh access tokens, fresh resume tokens, leaving a server that drains.
func (c *Conn) tend(l *link) {
	defer c.wg.Done()
	renew := time.NewTimer(until(c.session.renewAt()))
	defer renew.Stop()
	tick := time.NewTicker(checkpoint)
	defer tick.Stop()
	look := time.NewTicker(50 * time.Millisecond) // a full queue that has been read makes no event
	look.Stop()
	defer look.Stop()
	var leave <-chan time.Time
	for {
		select {
		case <-l.down:
			return
		case d := <-l.leave:
			t := time.NewTimer(d)
			defer t.Stop() // once: leave has one reader and is taken once
			leave = t.C
		case <-leave:
			c.abandon(l)
		case <-c.lagged:
			look.Reset(50 * time.Millisecond)
		case <-look.C:
			if !c.lagging.Load() || len(c.events) <= cap(c.events)/2 {
				look.Stop()
				if c.lagging.Load() {
					c.abandon(l)
				}
			}
		case <-tick.C:
			if c.moved.Load() && !c.lagging.Load() {
				_ = l.write(withID(wire.Encode(wire.EvAlive, nil, ""), idAlive)) // a failure ends the link
			}
		case <-renew.C:
			ctx, cancel := context.WithTimeout(c.ctx, 20*time.Second)
			tok, err := c.session.Token(ctx)
			cancel()
			if err != nil || until(c.session.renewAt()) == 0 {
				renew.Reset(time.Second + rand.N(4*time.Second))
				continue
			}
			_ = l.write(withID(wire.Encode(wire.EvRefreshToken, wire.Authenticate{Token: tok}, ""), idRefresh)) // a failure ends the link
			renew.Reset(until(c.session.renewAt()))
		}
	}
}

// probe asks a server that has not answered whether it is there, and closes the socket if it says nothing. However many sends wait, one
// question serves them all: frames are limited. It ends with the socket at the latest.
func (c *Conn) probe(l *link) {
	if c.lagging.Load() {
		return // what comes is dropped, and another socket follows
	}
	asked, last := time.Now().UnixNano(), l.probed.Load()
	if asked-last < int64(c.o.AnswerTimeout/4) || !l.probed.CompareAndSwap(last, asked) {
		return
	}
	_ = l.write(withID(wire.Encode(wire.EvAlive, nil, ""), idAlive)) // a failure ends the link
	t := time.NewTimer(c.o.AnswerTimeout * 2 / 3)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.down:
		return
	}
	if l.heard.Load() < asked {
		l.mute.Store(true)
		_ = l.ws.Close() // the reader sees it
	}
}

// abandon closes a socket to make another at once. Not as a good-bye: the user stays online.
func (c *Conn) abandon(l *link) {
	l.planned.Store(true)
	msg := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	_ = l.ws.WriteControl(websocket.CloseMessage, msg, time.Now().Add(time.Second)) // closed below in any case
	_ = l.ws.Close()
}

// until is the time to t, 0 when it has passed, and a year when there is no t.
func until(t time.Time) time.Duration {
	if t.IsZero() {
		return 365 * 24 * time.Hour
	}
	return max(0, time.Until(t))
}
