package legacy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest"
	"parley.example/services/gateway/internal/session/sessiontest/doors"
)

func TestMain(m *testing.M) { testx.Main(m) }

// world has an engineio server in front.
type world struct {
	*doors.World
	legacy *Legacy
	server *engineio.Server
	site   *enginetest.Site
}

// newWorld runs the room over its server. Without a change, the delay lasts until a test ends it (client.begin).
func newWorld(t *testing.T, change func(*session.Config, *Config)) *world {
	t.Helper()
	cfg := Config{Delay: time.Hour, Alive: time.Minute, PingInterval: time.Hour, PingTimeout: time.Hour, Idle: time.Minute, Bots: []string{"Leonid"}}
	w := &world{World: doors.New(t, func(c *session.Config) {
		if change != nil {
			change(c, &cfg)
		}
	})}
	w.legacy = New(w.Hub, w.Table, cfg, w.Services())
	w.server = engineio.New(engineio.Config{PingInterval: cfg.PingInterval, PingTimeout: cfg.PingTimeout, MaxPayload: w.Hub.FrameBytes, Budget: w.Budget,
		FramesPerSecond: w.Hub.FramesPerSecond, FrameBurst: Burst(w.Hub.FrameBurst())}, w.legacy.Accept)
	t.Cleanup(func() { // after the clients and the server
		testx.Eventually(t, "every connection is gone", 20*time.Second, func() bool { return w.Table.Len() == 0 })
	})
	w.site = enginetest.Serve(t, "/socket.io/", w.server, w.server.Run)
	return w
}

// accept makes m, which Say stored, the answer to a message that s has under way.
func accept(s *session.Session, m api.StoredMessage) {
	_ = s.Say(room.Room{A: m.A, B: m.B}, wire.Send{ID: m.ID, Content: m.Content}, "")
}

// open opens a session of a client of another protocol.
func (w *world) open(user string) (*session.Session, *sessiontest.Wire) {
	l := sessiontest.NewWire()
	return w.Hub.Open(l, token.Claims{Username: user, SID: "x", Expires: time.Now().Add(time.Hour)}, false), l
}

// client is a client on a WebSocket. It keeps what comes until it is asked for.
type client struct {
	t      *testing.T
	ws     *enginetest.Socket
	conn   *conn // the other end
	asked  int
	user   string   // who joined last
	events []string // `["name",data]`; "ping"
	own    []string // announcements of the user himself, which the original makes as well
}

func (w *world) client() *client {
	w.T.Helper()
	before := w.Table.All()
	ws, _ := w.site.Socket()
	ws.Send("40")
	if m := ws.Next(); !strings.HasPrefix(m.Data, `40{"sid":`) {
		w.T.Fatalf("got %+v", m)
	}
	c := &client{t: w.T, ws: ws}
	for _, k := range w.Table.All() {
		if conn, ok := k.(*conn); ok && !slices.Contains(before, k) {
			c.conn = conn
		}
	}
	return c
}

// next takes one packet; it returns the number and the text of an ack, if it is one.
func (c *client) next() (id, ack string) {
	c.t.Helper()
	m := c.ws.Next()
	switch {
	case m.Data == "2":
		c.events = append(c.events, "ping")
	case strings.HasPrefix(m.Data, "42"):
		if e := m.Data[2:]; c.user != "" && (strings.EqualFold(e, `["new_user_online",{"username":"`+c.user+`"}]`) || strings.EqualFold(e, `["user_has_gone_offline",{"username":"`+c.user+`"}]`)) {
			c.own = append(c.own, e)
		} else {
			c.events = append(c.events, e)
		}
	case strings.HasPrefix(m.Data, "43"):
		id, ack, _ = strings.Cut(m.Data[2:], "[")
		return id, strings.TrimSuffix(ack, "]")
	default:
		c.t.Fatalf("got %+v; before it %q", m, c.events)
	}
	return "", ""
}

// ask emits an event and returns its ack. What the server sent before that is in events.
func (c *client) ask(event string, data map[string]any) string {
	c.t.Helper()
	c.asked++
	b, err := json.Marshal([]any{event, data})
	if err != nil {
		c.t.Fatal(err)
	}
	c.ws.Send(fmt.Sprint("42", c.asked, string(b)))
	for {
		if id, ack := c.next(); id == fmt.Sprint(c.asked) {
			return ack
		}
	}
}

// barrier returns when everything sent before has come.
func (c *client) barrier() { c.t.Helper(); c.ask(wire.EvAlive, map[string]any{"client": "nobody"}) }

func (c *client) join(tok, user, room string) string {
	c.t.Helper()
	c.user = user
	return c.ask(wire.EvJoin, map[string]any{"room": room, "client": user, "jwt": tok})
}

func (c *client) mustJoin(tok, user string, rooms ...string) {
	c.t.Helper()
	for _, r := range rooms {
		if a := c.join(tok, user, r); a != `{"result":"success"}` {
			c.t.Fatalf("got %s", a)
		}
	}
}

// begin ends the delay, as its timer does.
func (c *client) begin() { c.inside(c.conn.begin) }

// inside runs f where the connection's reader would.
func (c *client) inside(f func()) { c.conn.sio.Engine().Do(f) }

// take takes what came, which must be n events at least, waiting for them.
func (c *client) take(n int) []string {
	c.t.Helper()
	for len(c.events) < n {
		if id, _ := c.next(); id != "" {
			c.t.Fatal("an ack that nobody waits for")
		}
	}
	out := c.events
	c.events = nil
	return out
}

// want checks what comes next, and that nothing more has come.
func (c *client) want(events ...string) {
	c.t.Helper()
	got := c.take(len(events))
	if !slices.Equal(got, events) {
		c.t.Fatalf("got %q, want %q", got, events)
	}
	c.barrier()
	if len(c.events) > 0 {
		c.t.Fatalf("and more came: %q", c.events)
	}
}

// seqs checks that the next events are the messages with these numbers, in this order.
func (c *client) seqs(event string, seqs ...int64) {
	c.t.Helper()
	for i, e := range c.take(len(seqs)) {
		var name string
		var m wire.Message
		var parts []json.RawMessage
		if json.Unmarshal([]byte(e), &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[0], &name) != nil || json.Unmarshal(parts[1], &m) != nil ||
			name != event || i >= len(seqs) || m.Seq != seqs[i] {
			c.t.Fatalf("event %d is %s, want %s %d", i, e, event, seqs)
		}
	}
}

// question is the session's that has had no answer.
func (c *client) question() uint32 {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.conn.question
}

// caughtUp waits until no catch-up runs.
func (c *client) caughtUp() *session.Session {
	c.t.Helper()
	s := c.conn.session()
	testx.Eventually(c.t, "the catch-up ends", 20*time.Second, func() bool { return !s.CatchingUp() })
	return s
}
