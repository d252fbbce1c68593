package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/access"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/wsconn"
)

// seedWorld is a world with an engineio server in front, tokens, and presence that remembers what it is told.
type seedWorld struct {
	*world
	seed   *Seed
	server *engineio.Server
	site   *enginetest.Site
	budget *wsconn.Budget

	mu       sync.Mutex
	tokens   map[string]token.Claims
	revoked  map[string]bool // by SID
	away     bool            // auth's keys have not been read
	logouts  chan api.LogoutRequest
	large    bool     // directory
	silent   bool     // auth answers no question about a name
	contacts []string // of everybody, in a roster; nil: no roster
	there    []string // online
	said     []string // to presence
}

// newSeedWorld runs seed over its server. Without a change, the delay lasts until a test ends it (seedClient.begin).
func newSeedWorld(t *testing.T, change func(*Config, *SeedConfig)) *seedWorld {
	t.Helper()
	cfg := SeedConfig{Delay: time.Hour, Alive: time.Minute, PingInterval: time.Hour, PingTimeout: time.Hour, Idle: time.Minute, Bots: []string{"Leonid"}}
	w := &seedWorld{tokens: map[string]token.Claims{}, revoked: map[string]bool{}, logouts: make(chan api.LogoutRequest, 10)}
	w.world = newWorld(t, func(c *Config) {
		if change != nil {
			change(c, &cfg)
		}
	})
	w.hub.Verifier, w.hub.Auth, w.hub.Presence, w.hub.Directory = w, w, w, w
	w.seed = NewSeed(w.hub, cfg)
	w.budget = &wsconn.Budget{PerConn: 1 << 20, Total: 1 << 30}
	w.server = engineio.New(engineio.Config{PingInterval: cfg.PingInterval, PingTimeout: cfg.PingTimeout, MaxPayload: w.hub.cfg.FrameBytes, Budget: w.budget,
		FramesPerSecond: w.hub.cfg.FramesPerSecond, FrameBurst: w.hub.cfg.SeedBurst()}, w.seed.Accept)
	t.Cleanup(func() { // after the clients and the server
		testx.Eventually(t, "every connection and its place is gone", 20*time.Second, func() bool {
			return w.hub.Connections() == 0 && w.hub.places() == 0
		})
	})
	w.site = enginetest.Serve(t, "/socket.io/", w.server, w.server.Run)
	return w
}

// login gives a token of a new login. Scope is that of the seed's /log_in.
func (w *seedWorld) login(user string) string { return w.token(user, token.ScopeSeed) }

func (w *seedWorld) token(user, scope string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	tok := fmt.Sprint("token-", len(w.tokens))
	w.tokens[tok] = token.Claims{Username: user, SID: "sid-" + tok, Scope: scope, Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
	return tok
}

// revoke is what auth does, and what the gateway's verifier hears of.
func (w *seedWorld) revoke(tok string) {
	w.mu.Lock()
	sid := w.tokens[tok].SID
	w.revoked[sid] = true
	w.mu.Unlock()
	w.hub.Revoke(w.Revoked)
}

func (w *seedWorld) Verify(tok string, _ time.Time) (token.Claims, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.tokens[tok]
	switch {
	case w.away:
		return token.Claims{}, rpc.ErrUnavailable
	case !ok:
		return token.Claims{}, token.ErrInvalid
	case w.revoked[c.SID]:
		return token.Claims{}, access.ErrRevoked
	}
	return c, nil
}
func (w *seedWorld) Disabled(string) bool { return false }

func (w *seedWorld) Revoked(c token.Claims) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked[c.SID]
}
func (w *seedWorld) AuthLogout(_ context.Context, r api.LogoutRequest) error {
	w.logouts <- r
	return nil
}
func (w *seedWorld) AuthRelations(context.Context, api.RelationsRequest) (api.Relations, error) {
	return api.Relations{}, nil
}
func (w *seedWorld) Peer(ctx context.Context, user, name string) (string, error) {
	w.mu.Lock()
	silent := w.silent
	w.mu.Unlock()
	if silent {
		return "", rpc.ErrUnavailable
	}
	if name == "away" {
		return "", errors.New("auth cannot be reached")
	}
	return w.world.Peer(ctx, user, name)
}
func (w *seedWorld) Recall(ctx context.Context, name string) (registered string, gone bool, err error) {
	if _, err := w.Peer(ctx, "", name); err != nil && wire.AsError(err).Code != wire.UnknownUser {
		return "", false, err
	}
	return w.world.Recall(ctx, name)
}
func (w *seedWorld) SmallDirectory() ([]string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return nil, !w.large
}
func (w *seedWorld) Sight(string) directory.Sight {
	return directory.Sight{Mode: w.Mode(), Contacts: w.contacts}
}

func (w *seedWorld) Mode() api.Mode {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.contacts != nil {
		return api.Roster
	}
	return api.Everyone
}
func (w *seedWorld) Contacts(string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.contacts
}
func (w *seedWorld) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, fmt.Sprintf(format, args...))
}
func (w *seedWorld) Online(_ uint64, user string) { w.tell("online %s", user) }
func (w *seedWorld) Gone(_ uint64, user string, deliberate bool) {
	w.tell("gone %s %v", user, deliberate)
}

// Watch tells who is there, as presence does.
func (w *seedWorld) Watch(s presence.Watcher, self string, names, hidden []string) {
	w.mu.Lock()
	var online []string
	for _, u := range w.there {
		if u != self && !slices.Contains(hidden, u) && (names == nil || slices.Contains(names, u)) {
			online = append(online, u)
		}
	}
	list := "everybody"
	if names != nil {
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		list = strings.Join(names, " ")
	}
	w.said = append(w.said, "watch "+list)
	w.mu.Unlock()
	s.PresenceUpdate(online, nil, false, true, names != nil)
}

// heard takes what presence was told.
func (w *seedWorld) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.said
	w.said = nil
	return out
}

// seedClient is a client on a WebSocket. It keeps what comes until it is asked for.
type seedClient struct {
	t      *testing.T
	ws     *enginetest.Socket
	conn   *seedConn // the other end
	asked  int
	user   string   // who joined last
	events []string // `["name",data]`; "ping"
	own    []string // announcements of the user himself, which the seed makes as well
}

// places is how many addresses have connections.
func (h *Hub) places() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byAddress)
}

func (w *seedWorld) client() *seedClient {
	w.t.Helper()
	before := w.hub.connections()
	ws, _ := w.site.Socket()
	ws.Send("40")
	if m := ws.Next(); !strings.HasPrefix(m.Data, `40{"sid":`) {
		w.t.Fatalf("got %+v", m)
	}
	c := &seedClient{t: w.t, ws: ws}
	for _, k := range w.hub.connections() {
		if conn, ok := k.(*seedConn); ok && !slices.Contains(before, k) {
			c.conn = conn
		}
	}
	return c
}

// next takes one packet; it returns the number and the text of an ack, if it is one.
func (c *seedClient) next() (id, ack string) {
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
func (c *seedClient) ask(event string, data map[string]any) string {
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
func (c *seedClient) barrier() { c.t.Helper(); c.ask(wire.EvAlive, map[string]any{"client": "nobody"}) }

func (c *seedClient) join(tok, user, room string) string {
	c.t.Helper()
	c.user = user
	return c.ask(wire.EvJoin, map[string]any{"room": room, "client": user, "jwt": tok})
}

func (c *seedClient) mustJoin(tok, user string, rooms ...string) {
	c.t.Helper()
	for _, r := range rooms {
		if a := c.join(tok, user, r); a != `{"result":"success"}` {
			c.t.Fatalf("got %s", a)
		}
	}
}

// begin ends the delay, as its timer does.
func (c *seedClient) begin() { c.inside(c.conn.begin) }

// inside runs f where the connection's reader would.
func (c *seedClient) inside(f func()) { c.conn.sio.Engine().Do(f) }

// take takes what came, which must be n events at least, waiting for them.
func (c *seedClient) take(n int) []string {
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
func (c *seedClient) want(events ...string) {
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
func (c *seedClient) seqs(event string, seqs ...int64) {
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

// caughtUp waits until no catch-up runs.
func (c *seedClient) caughtUp() *Session {
	c.t.Helper()
	s := c.conn.session()
	testx.Eventually(c.t, "the catch-up ends", 20*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.joining })
	return s
}
