package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
)

// Within is how long tests wait for what should come at once; long, because the machine is shared and the race detector is on.
const Within = 30 * time.Second

// WS is a native client without any cleverness: it records every frame, and forgets nothing.
type WS struct {
	t    testing.TB
	ws   *websocket.Conn
	done chan struct{} // closed when reading has ended

	wmu sync.Mutex // of writes

	mu     sync.Mutex
	frames []wire.Frame
	taken  []bool // by Expect
	more   chan struct{}
	end    error
	nextID int
}

// DialOptions of a WS.
type DialOptions struct {
	Token       string // Authorization header
	Subprotocol string // Sec-WebSocket-Protocol
	Origin      string
	NoRead      bool // do not read at all
	ReadBuffer  int  // of the kernel, 0: its default
}

// DialWS opens a WebSocket. A refused handshake is an error, with its answer if there was one.
func DialWS(t testing.TB, base string, o DialOptions) (*WS, *http.Response, error) {
	h := http.Header{}
	if o.Token != "" {
		h.Set("Authorization", "Bearer "+o.Token)
	}
	if o.Origin != "" {
		h.Set("Origin", o.Origin)
	}
	d := websocket.Dialer{HandshakeTimeout: 20 * time.Second}
	if o.Subprotocol != "" {
		h.Set("Sec-WebSocket-Protocol", o.Subprotocol)
	}
	if o.ReadBuffer > 0 {
		d.NetDialContext = smallBuffer(o.ReadBuffer)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(base, "http")+"/v1/ws", h)
	if err != nil {
		return nil, resp, err
	}
	c := &WS{t: t, ws: conn, done: make(chan struct{}), more: make(chan struct{})}
	if o.NoRead {
		close(c.done)
	} else {
		go c.read()
	}
	t.Cleanup(c.Drop)
	return c, resp, nil
}

// Connect opens a WebSocket with a user's token and waits for welcome.
func (u *User) Connect(base string) *WS {
	u.v.t.Helper()
	c, _, err := DialWS(u.v.t, base, DialOptions{Token: u.Tokens.AccessToken})
	if err != nil {
		u.v.t.Fatalf("connect %s: %v", u.Name, err)
	}
	c.Expect(wire.EvWelcome, nil)
	return c
}

// Joined opens a WebSocket, joins all rooms and waits until it has caught up.
func (u *User) Joined(base string) *WS {
	u.v.t.Helper()
	c := u.Connect(base)
	c.Join(map[string]any{"rooms": "*"})
	return c
}

func (c *WS) read() {
	defer close(c.done)
	for {
		kind, b, err := c.ws.ReadMessage()
		var f wire.Frame
		if err == nil && kind != websocket.TextMessage {
			err = errors.New("the server sent a binary frame")
		}
		if err == nil {
			err = json.Unmarshal(b, &f)
		}
		c.mu.Lock()
		if err != nil {
			c.end = err
		} else {
			c.frames = append(c.frames, f)
			c.taken = append(c.taken, false)
		}
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Drop closes the TCP connection without a word, as a lost network does. Safe to repeat.
func (c *WS) Drop() {
	c.ws.Close()
	<-c.done
}

// Raw writes one frame of any kind.
func (c *WS) Raw(kind int, b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(20 * time.Second)) // a TCP connection takes deadlines
	return c.ws.WriteMessage(kind, b)
}

// Text writes one text frame; a broken connection shows in what is expected next.
func (c *WS) Text(s string) { _ = c.Raw(websocket.TextMessage, []byte(s)) }

// Say sends an event with a frame id, which it returns.
func (c *WS) Say(event string, data any) string {
	c.mu.Lock()
	c.nextID++
	id := fmt.Sprintf("f%d", c.nextID)
	c.mu.Unlock()
	b, err := json.Marshal(map[string]any{"event": event, "data": data, "id": id})
	if err != nil {
		c.t.Errorf("encode %s: %v", event, err)
	}
	c.Text(string(b))
	return id
}

// Join joins and waits for caught_up, whose resume token it returns.
func (c *WS) Join(data map[string]any) string {
	c.t.Helper()
	re := c.Say(wire.EvJoin, data)
	c.Expect(wire.EvAck, func(f wire.Frame) bool { return f.Re == re })
	return Data[wire.CaughtUp](c.t, c.Expect(wire.EvCaughtUp, nil)).Resume
}

// Send sends a message without waiting.
func (c *WS) Send(room, content, id string, retry bool) (re string) {
	data := map[string]any{"conversation_room": room, "content": content}
	if id != "" {
		data["id"] = id
	}
	if retry {
		data["retry"] = true
	}
	return c.Say(wire.EvSend, data)
}

// MustSend sends a message and waits until it is accepted.
func (c *WS) MustSend(room, content string) wire.Message {
	c.t.Helper()
	return c.MustSendID(room, content, "")
}

// MustSendID is MustSend with an id of the client's.
func (c *WS) MustSendID(room, content, id string) wire.Message {
	c.t.Helper()
	f := c.Answer(c.Send(room, content, id, false))
	if f.Event != wire.EvAccepted {
		c.t.Fatalf("%q was answered with %s %s", content, f.Event, f.Data)
	}
	return Data[wire.Message](c.t, f)
}

// TrySend is MustSendID for a server that may be going away.
func (c *WS) TrySend(room, content, id string, retry bool) (wire.Message, error) {
	re := c.Send(room, content, id, retry)
	f, err := c.wait(20*time.Second, func(f wire.Frame) bool { return f.Re == re })
	if err == nil && f.Event != wire.EvAccepted {
		err = fmt.Errorf("answered with %s %s", f.Event, f.Data)
	}
	if err != nil {
		return wire.Message{}, err
	}
	return Data[wire.Message](c.t, f), nil
}

// TryJoined is Joined for a server that may be going away.
func (u *User) TryJoined(base string) (*WS, error) {
	c, _, err := DialWS(u.v.t, base, DialOptions{Token: u.Tokens.AccessToken})
	if err != nil {
		return nil, err
	}
	c.Say(wire.EvJoin, map[string]any{"rooms": "*"})
	if _, err := c.wait(20*time.Second, func(f wire.Frame) bool { return f.Event == wire.EvCaughtUp }); err != nil {
		c.Drop()
		return nil, err
	}
	return c, nil
}

// Answer waits for the one frame that answers the frame re.
func (c *WS) Answer(re string) wire.Frame {
	c.t.Helper()
	return c.ExpectIn(60*time.Second, "an answer to "+re, func(f wire.Frame) bool { return f.Re == re })
}

// Error waits for an error that answers re ("" for one that answers no frame) and gives its code.
func (c *WS) Error(re string) wire.Code {
	c.t.Helper()
	f := c.ExpectIn(Within, "an error", func(f wire.Frame) bool {
		return f.Re == re && (re != "" || f.Event == wire.EvError)
	})
	if f.Event != wire.EvError {
		c.t.Fatalf("wanted an error, got %s %s", f.Event, f.Data)
	}
	return Data[wire.Error](c.t, f).Code
}

// Barrier returns when the server has answered a question that was put after everything before.
func (c *WS) Barrier() (resume string) {
	c.t.Helper()
	re := c.Say(wire.EvAlive, nil)
	return Data[wire.Ack](c.t, c.Answer(re)).Resume
}

// Expect waits for an event that ok (nil: any) accepts, and that no Expect has taken before.
func (c *WS) Expect(event string, ok func(wire.Frame) bool) wire.Frame {
	c.t.Helper()
	return c.ExpectIn(Within, event, func(f wire.Frame) bool { return f.Event == event && (ok == nil || ok(f)) })
}

// Message waits for received_message with this content.
func (c *WS) Message(content string) wire.Message {
	c.t.Helper()
	f := c.ExpectIn(2*Within, fmt.Sprintf("the message %.60s", content), func(f wire.Frame) bool {
		return f.Event == wire.EvReceived && Data[wire.Message](c.t, f).Content == content
	})
	return Data[wire.Message](c.t, f)
}

// ExpectIn waits for a frame that ok accepts.
func (c *WS) ExpectIn(within time.Duration, what string, ok func(wire.Frame) bool) wire.Frame {
	c.t.Helper()
	f, err := c.wait(within, ok)
	if err != nil {
		c.t.Fatalf("no %s: %v; the last frames: %s", what, err, c.tail())
	}
	return f
}

func (c *WS) wait(within time.Duration, ok func(wire.Frame) bool) (wire.Frame, error) {
	timeout := time.After(within)
	for seen := 0; ; {
		c.mu.Lock()
		for ; seen < len(c.frames); seen++ {
			if !c.taken[seen] && ok(c.frames[seen]) {
				c.taken[seen] = true
				f := c.frames[seen]
				c.mu.Unlock()
				return f, nil
			}
		}
		more, end := c.more, c.end
		c.mu.Unlock()
		if end != nil {
			return wire.Frame{}, fmt.Errorf("the connection ended: %w", end)
		}
		select {
		case <-more:
		case <-timeout:
			return wire.Frame{}, fmt.Errorf("nothing within %s", within)
		}
	}
}

func (c *WS) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, f := range c.frames[max(0, len(c.frames)-8):] {
		fmt.Fprintf(&b, "\n  %s re=%s %.120s", f.Event, f.Re, f.Data)
	}
	return b.String()
}

// Frames gives every frame so far.
func (c *WS) Frames() []wire.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// All gives every frame of an event so far.
func (c *WS) All(event string) []wire.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []wire.Frame
	for _, f := range c.frames {
		if f.Event == event {
			out = append(out, f)
		}
	}
	return out
}

// Received gives every received_message so far, of one room ("" for all).
func (c *WS) Received(room string) []wire.Message {
	var out []wire.Message
	for _, f := range c.All(wire.EvReceived) {
		if m := Data[wire.Message](c.t, f); room == "" || m.Room == room {
			out = append(out, m)
		}
	}
	return out
}

// Count is how often content was received.
func (c *WS) Count(content string) int {
	n := 0
	for _, m := range c.Received("") {
		if m.Content == content {
			n++
		}
	}
	return n
}

// Online is what the presence events so far say: true online, false offline; who was not named is not in it.
func (c *WS) Online() map[string]bool {
	state := map[string]bool{}
	for _, f := range c.All(wire.EvPresence) {
		p := Data[wire.Presence](c.t, f)
		if p.Snapshot {
			clear(state)
		}
		for _, u := range p.Online {
			state[u] = true
		}
		for _, o := range p.Offline {
			state[o.Username] = false
		}
	}
	return state
}

// Closed waits for the end of the connection and gives its close code; 1006 stands for an end without one.
func (c *WS) Closed(within time.Duration) int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(within):
		c.t.Fatalf("the connection is still open after %s; the last frames: %s", within, c.tail())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var ce *websocket.CloseError
	if errors.As(c.end, &ce) {
		return ce.Code
	}
	return websocket.CloseAbnormalClosure
}

// Open reports whether the connection still lives.
func (c *WS) Open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end == nil
}

// Data decodes the data of a frame.
func Data[T any](t testing.TB, f wire.Frame) T {
	var v T
	if len(f.Data) > 0 {
		if err := json.Unmarshal(f.Data, &v); err != nil {
			t.Errorf("decode the data of %s: %v: %s", f.Event, err, f.Data)
		}
	}
	return v
}
