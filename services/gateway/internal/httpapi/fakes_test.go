package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/legacy"
	"parley.example/services/gateway/internal/wsconn"
	"parley.example/services/gateway/web"
)

// world is every dependency at once. A field that is set replaces a default answer.
type world struct {
	mu sync.Mutex

	fail     map[string]error // by method
	users    map[string]string
	erased   map[string]string
	online   map[string]bool
	unknown  bool // presence
	lastSeen map[string]int64
	ended    int // logins that AuthEndLogins ended
	notReady error
	unseen   string // one whose doings may not be learned
	full     error
	page     api.PageResponse
	convs    api.ConversationsPage
	contacts api.ContactsPage
	among    []string // who is a contact of a question with names; nil: an auth that does not know such questions
	bots     []string
	joined   string // an old client of this user has
	state    string
	now      time.Time
	slowSeen bool // LastSeen answers when its context ends
	socketIO http.Handler
	held     func(sid string) bool
	served   []string // "user: online", that were told of

	credentials []api.Credentials
	refreshes   []api.RefreshRequest
	logouts     []api.LogoutRequest
	pages       []api.PageRequest
	convReqs    []api.ConversationsRequest
	contactReqs []api.ContactsRequest
	pairs       map[string][]api.PairRequest
	resolved    []string
	seenReqs    []api.LastSeenRequest
}

func newWorld() *world {
	return &world{
		fail: map[string]error{}, online: map[string]bool{}, lastSeen: map[string]int64{}, pairs: map[string][]api.PairRequest{},
		users: map[string]string{"avi": "Avi", "lisa": "Lisa", "dana": "Dana"},
		now:   time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC),
	}
}

func (w *world) register(_ context.Context, c api.Credentials) (api.User, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credentials = append(w.credentials, c)
	return api.User{Username: c.Username}, w.fail["register"]
}

// services are auth, history and presence.
func (w *world) services() rpc.Caller {
	return rpc.Caller{Timeout: time.Minute, Conn: rpc.Local(
		api.AuthRegister.Handle(w.register), api.AuthLogin.Handle(w.login), api.AuthRefresh.Handle(w.refresh), api.AuthLogout.Handle(w.logout),
		api.AuthCheck.Handle(w.check), api.AuthEndLogins.Handle(w.endLogins), api.AuthContacts.Handle(w.listContacts), api.AuthPutContact.Handle(w.putContact),
		api.AuthDeleteContact.Handle(w.deleteContact), api.AuthPutBlock.Handle(w.putBlock), api.AuthDeleteBlock.Handle(w.deleteBlock),
		api.HistoryPage.Handle(w.historyPage), api.HistoryConversations.Handle(w.conversations), api.PresenceLastSeen.Handle(w.seen),
	)}
}

func (w *world) tokens() api.Tokens {
	return api.Tokens{AccessToken: "a.b.c", RefreshToken: "r", ExpiresIn: 900, Username: "Avi"}
}

func (w *world) login(_ context.Context, c api.Credentials) (api.Tokens, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credentials = append(w.credentials, c)
	return w.tokens(), w.fail["login"]
}

func (w *world) refresh(_ context.Context, r api.RefreshRequest) (api.Tokens, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refreshes = append(w.refreshes, r)
	return w.tokens(), w.fail["refresh"]
}

func (w *world) logout(_ context.Context, r api.LogoutRequest) (api.Empty, error) {
	w.logouts = append(w.logouts, r)
	return api.Empty{}, w.fail["logout"]
}

func (w *world) listContacts(_ context.Context, r api.ContactsRequest) (api.ContactsPage, error) {
	w.contactReqs = append(w.contactReqs, r)
	if len(r.Among) > 0 && w.among != nil {
		return api.ContactsPage{Usernames: slices.DeleteFunc(slices.Clone(r.Among), func(n string) bool { return !slices.Contains(w.among, n) })}, w.fail["contacts"]
	}
	return w.contacts, w.fail["contacts"]
}

func (w *world) pair(what string, r api.PairRequest) error {
	w.pairs[what] = append(w.pairs[what], r)
	return w.fail[what]
}

func (w *world) putContact(_ context.Context, r api.PairRequest) (api.PairResponse, error) {
	return api.PairResponse{State: w.state}, w.pair("put_contact", r)
}
func (w *world) deleteContact(_ context.Context, r api.PairRequest) (api.Empty, error) {
	return api.Empty{}, w.pair("delete_contact", r)
}
func (w *world) putBlock(_ context.Context, r api.PairRequest) (api.Empty, error) {
	return api.Empty{}, w.pair("put_block", r)
}
func (w *world) deleteBlock(_ context.Context, r api.PairRequest) (api.Empty, error) {
	return api.Empty{}, w.pair("delete_block", r)
}

func (w *world) historyPage(_ context.Context, r api.PageRequest) (api.PageResponse, error) {
	w.pages = append(w.pages, r)
	return w.page, w.fail["page"]
}

func (w *world) conversations(_ context.Context, r api.ConversationsRequest) (api.ConversationsPage, error) {
	w.convReqs = append(w.convReqs, r)
	return w.convs, w.fail["conversations"]
}

func (w *world) seen(ctx context.Context, r api.LastSeenRequest) (api.LastSeenResponse, error) {
	w.seenReqs = append(w.seenReqs, r)
	if w.slowSeen {
		<-ctx.Done()
		return api.LastSeenResponse{}, rpc.ErrUnavailable
	}
	var out api.LastSeenResponse
	for _, u := range r.Users {
		out.LastSeen = append(out.LastSeen, w.lastSeen[u])
	}
	return out, w.fail["last_seen"]
}

func (w *world) OnlineUsers(most int) (users []string, known bool) {
	for u, online := range w.online {
		if online && len(users) < most {
			users = append(users, u)
		}
	}
	return users, !w.unknown
}
func (w *world) check(_ context.Context, c api.Credentials) (api.CheckResponse, error) {
	w.credentials = append(w.credentials, c)
	return api.CheckResponse{Username: c.Username, Admin: c.Username == "Admin"}, w.fail["check"]
}
func (w *world) endLogins(_ context.Context, r api.EndLoginsRequest) (api.EndLoginsResponse, error) {
	return api.EndLoginsResponse{Username: r.Username, Ended: w.ended}, w.fail["end_logins"]
}
func (w *world) IsOnline(user string) (online, known bool) { return w.online[user], !w.unknown }

func (w *world) Recall(_ context.Context, name string) (registered string, gone bool, err error) {
	w.resolved = append(w.resolved, name)
	if err := w.fail["resolve"]; err != nil {
		return "", false, err
	}
	if u := w.users[room.Fold(name)]; u != "" {
		return u, false, nil
	}
	if u := w.erased[room.Fold(name)]; u != "" {
		return u, true, nil
	}
	return name, true, nil
}

func (w *world) Unseen(_ context.Context, _ string, peers []string) map[string]bool {
	unseen := map[string]bool{}
	for _, p := range peers {
		unseen[p] = w.unseen == p
	}
	return unseen
}

// Verify takes tokens such as "Avi" (native) and "Avi/seed".
func (w *world) Verify(tok string, _ time.Time) (token.Claims, error) {
	if err := w.fail["verify"]; err != nil {
		return token.Claims{}, err
	}
	name, scope, ok := strings.Cut(tok, "/")
	if !ok {
		scope = token.ScopeNative
	}
	return token.Claims{Username: name, SID: "sid-of-" + name, Scope: scope}, nil
}

func testConfig() Config { return Config{Rate: 50, Burst: 100} }

// site is read once: compressing its files takes half a second under the race detector.
var site = sync.OnceValues(web.New)

// legacy are the routes of the old clients.
func (w *world) legacy(edge *Edge) *legacy.HTTP {
	return legacy.NewHTTP(legacy.HTTPDeps{
		Services: w.services(), Presence: w, Tokens: w, Bots: w.bots, Address: edge.AddressText, OwnSite: edge.SiteAllowed, Now: func() time.Time { return w.now },
		Joined: func(user string) bool { return user == w.joined },
		Tell:   func(user string, online []string) { w.served = append(w.served, user+": "+strings.Join(online, " ")) },
	})
}

func (w *world) deps(reg *prometheus.Registry, cfg Config) Deps {
	files, err := site()
	if err != nil {
		panic(err) // the files are in the program
	}
	edge, err := NewEdge(cfg)
	if err != nil {
		edge = &Edge{} // New says so
	}
	return Deps{
		Services: w.services(), Presence: w, Tokens: w, Directory: w, Web: files,
		Ready: func() error { return w.notReady }, Storage: func() error { return w.full }, Routed: func() []int64 { return []int64{7, 9} },
		WebSocket: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusSwitchingProtocols)
		}),
		SocketIO: w.socketIO, Held: w.held, Legacy: w.legacy(edge).Routes(),
		Log: testx.Quiet(), Registry: reg, Now: func() time.Time { return w.now },
	}
}

func (w *world) handler(t *testing.T, cfg Config) http.Handler {
	t.Helper()
	h, err := New(cfg, w.deps(prometheus.NewRegistry(), cfg))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type reply struct {
	*http.Response
	body []byte
}

func (r reply) problem(t *testing.T) wire.Problem {
	t.Helper()
	if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("status %d with Content-Type %q, body %q", r.StatusCode, ct, r.body)
	}
	var p wire.Problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// wants fails unless the reply is this problem.
func (r reply) wants(t *testing.T, status int, code wire.Code) {
	t.Helper()
	p := r.problem(t)
	if r.StatusCode != status || p.Status != status || p.Code != code || p.Detail == "" || p.Title == "" || p.Type != problemType+string(code) {
		t.Fatalf("status %d, problem %+v; want %d %s", r.StatusCode, p, status, code)
	}
}

// upgrade are the headers of a WebSocket handshake.
var upgrade = []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}

// ask makes one request. headers are "Name: value" lines; tok may be "".
func ask(h http.Handler, method, target, tok, body string, headers ...string) reply {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, rd)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if tok != "" {
		r.Header.Set("Authorization", "Bearer "+tok)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return reply{rec.Result(), rec.Body.Bytes()}
}

// engineError is the body of what Engine.IO refuses.
type engineError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// engine is a server of the protocol in front of nobody. Its other node is away; away is what a new connection is refused with.
func (w *world) engine(away error) *sink {
	s := &sink{closed: make(chan struct{}, 1)}
	e := engineio.New(engineio.Config{
		PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, MaxPayload: 256, Budget: &wsconn.Budget{PerConn: 1 << 20, Total: 1 << 20},
		Origin: func(r *http.Request) bool { return !strings.Contains(r.Header.Get("Origin"), "evil") }, Node: "here",
		Forward: func(_ context.Context, node string, _ engineio.Request) (engineio.Response, error) {
			if node == "gone" {
				return engineio.Response{}, engineio.ErrNoNode
			}
			return engineio.Response{}, errors.New("no answer")
		},
	}, func(c *engineio.Conn, _ *http.Request) (engineio.Handler, error) {
		s.conn = c
		return s, away
	})
	w.socketIO, w.held = e, e.Holds
	return s
}

// sink takes what an engineio.Conn brings.
type sink struct {
	conn   *engineio.Conn
	closed chan struct{}
}

func (s *sink) Text([]byte)       {}
func (s *sink) Binary([]byte)     {}
func (s *sink) Pong(uint32)       {}
func (s *sink) Closed(wire.Close) { s.closed <- struct{}{} }
