package client_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client"
	"parley.example/client/wire"
)

// fake is a server of the protocol for one room, avi&lisa, in memory. The knobs make what goes wrong in real ones.
type fake struct {
	t   *testing.T
	srv *httptest.Server

	mu        sync.Mutex
	msgs      []wire.Message
	byID      map[string]int
	conns     map[*fakeConn]bool
	dials     int
	sends     []wire.Send // as they came
	tokens    map[string]string
	refreshes int
	said      []string // events of clients, in order

	hide      map[int64]bool // seqs that are not delivered live
	pagesDown bool
	tooFast   int // pages that are refused for their rate
	sayNo     []*wire.Error
	mute      bool // sends have no outcome
	alives    int
	pongs     int

	onSecondAlive func()
}

type fakeConn struct {
	ws   *websocket.Conn
	mu   sync.Mutex
	user string
	live bool
}

const room = "avi&lisa"

func newFake(t *testing.T) *fake {
	f := &fake{t: t, byID: map[string]int{}, conns: map[*fakeConn]bool{}, tokens: map[string]string{"tok-lisa": "lisa", "tok-avi": "avi"},
		hide: map[int64]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/ws", f.socket)
	mux.HandleFunc("POST /v1/sessions", f.login)
	mux.HandleFunc("POST /v1/sessions/refresh", f.refresh)
	mux.HandleFunc("GET /v1/rooms/{room}/messages", f.page)
	f.srv = httptest.NewServer(mux)
	t.Cleanup(func() {
		f.kick(0)
		f.srv.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return f
}

func (f *fake) client() *client.Client {
	c, err := client.New(f.srv.URL, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// session has a bare token of user.
func (f *fake) session(user string) *client.Session {
	return f.client().Session(client.Tokens{AccessToken: "tok-" + user, Username: user})
}

func (f *fake) dial(o client.Options) *client.Conn {
	f.t.Helper()
	if o.MinBackoff == 0 {
		o.MinBackoff = 10 * time.Millisecond
		o.MaxBackoff = 100 * time.Millisecond
	}
	c, err := client.Dial(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (f *fake) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Username, Password string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Password != "secret" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(401)
		_, _ = w.Write([]byte(`{"title":"Unauthorized","status":401,"code":"unauthenticated","detail":"wrong user name or password"}`))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w.WriteHeader(201)
	_ = json.NewEncoder(w).Encode(client.Tokens{AccessToken: "tok-" + in.Username, RefreshToken: "r0", ExpiresIn: 900, Username: in.Username})
}

func (f *fake) refresh(w http.ResponseWriter, r *http.Request) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.RefreshToken != "r"+strconv.Itoa(f.refreshes) {
		http.Error(w, "reused", 401)
		return
	}
	f.refreshes++
	tok := "fresh-" + strconv.Itoa(f.refreshes)
	f.tokens[tok] = "lisa"
	w.WriteHeader(201)
	_ = json.NewEncoder(w).Encode(client.Tokens{AccessToken: tok, RefreshToken: "r" + strconv.Itoa(f.refreshes), ExpiresIn: 900, Username: "lisa"})
}

func (f *fake) page(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.tokens[bearer(r)] == "":
		http.Error(w, "no", 401)
		return
	case f.pagesDown:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "no", 503)
		return
	}
	if f.tooFast > 0 {
		f.tooFast--
		http.Error(w, "slowly", 429)
		return
	}
	const size = 2 // small pages, to have many
	q := r.URL.Query()
	after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
	before, err := strconv.ParseInt(q.Get("before"), 10, 64)
	if err != nil {
		before = 1 << 53
	}
	var fit []wire.Message
	for _, m := range f.msgs {
		if m.Seq > after && m.Seq < before {
			fit = append(fit, m)
		}
	}
	p := client.MessagesPage{Messages: fit, More: len(fit) > size}
	if p.More && q.Has("after") {
		p.Messages = fit[:size]
	} else if p.More {
		p.Messages = fit[len(fit)-size:]
	}
	_ = json.NewEncoder(w).Encode(p)
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (f *fake) socket(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	user := f.tokens[bearer(r)]
	f.dials++
	f.mu.Unlock()
	if user == "" {
		http.Error(w, "no", 401)
		return
	}
	ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &fakeConn{ws: ws, user: user}
	defer ws.Close()
	ws.SetPongHandler(func(string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pongs++
		return nil
	})
	f.mu.Lock()
	f.conns[c] = true
	f.mu.Unlock()
	defer func() { f.mu.Lock(); delete(f.conns, c); f.mu.Unlock() }()
	c.say(wire.EvWelcome, wire.Welcome{Username: user, HeartbeatS: 5}, "")
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			return
		}
		fr, err := wire.DecodeFrame(b)
		if err != nil {
			f.t.Errorf("the client sent %q: %v", b, err)
			return
		}
		if !f.handle(c, fr) {
			return
		}
	}
}

func (f *fake) handle(c *fakeConn, fr wire.Frame) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fr.Event)
	switch fr.Event {
	case wire.EvJoin:
		var j wire.Join
		_ = wire.DecodeData(fr, &j)
		if len(f.sayNo) > 0 && f.sayNo[0].Code == wire.Forbidden {
			c.say(wire.EvError, f.sayNo[0], fr.ID)
			return true
		}
		c.say(wire.EvAck, wire.Ack{Joined: []string{"*"}}, fr.ID)
		c.say(wire.EvPresence, wire.Presence{Snapshot: true, Online: []string{"avi"}}, "")
		if from, err := strconv.ParseInt(j.Resume, 10, 64); err == nil {
			for _, m := range f.msgs {
				if m.Seq > from {
					c.say(wire.EvReceived, m, "")
				}
			}
		}
		c.live = true
		c.say(wire.EvCaughtUp, wire.CaughtUp{Resume: strconv.FormatInt(f.last(), 10)}, "")
	case wire.EvSend:
		var s wire.Send
		_ = wire.DecodeData(fr, &s)
		f.sends = append(f.sends, s)
		if f.mute {
			return true
		}
		if len(f.sayNo) > 0 {
			e := f.sayNo[0]
			f.sayNo = f.sayNo[1:]
			c.say(wire.EvError, e, fr.ID)
			return true
		}
		at, ok := f.byID[c.user+s.ID]
		if !ok {
			at = f.store(c.user, s.ID, s.Content, c)
		}
		m := f.msgs[at]
		m.Sender, m.Content = "", ""
		c.say(wire.EvAccepted, m, fr.ID)
	case wire.EvAlive:
		if f.alives++; f.alives == 2 && f.onSecondAlive != nil {
			f.onSecondAlive()
		}
		c.say(wire.EvAck, wire.Ack{Resume: strconv.FormatInt(f.last(), 10)}, fr.ID)
	case wire.EvRefreshToken:
		c.say(wire.EvAck, wire.Ack{}, fr.ID)
	case wire.EvDisconnection:
		c.close(1000)
		return false
	}
	return true
}

func (f *fake) last() int64 {
	if len(f.msgs) == 0 {
		return 0
	}
	return f.msgs[len(f.msgs)-1].Seq
}

// store keeps a message and delivers it to the live sockets but from. f.mu is held.
func (f *fake) store(sender, id, content string, from *fakeConn) int {
	prev := f.last()
	m := wire.Message{Sender: sender, Content: content, Room: room, ID: id, Seq: prev + 10, Prev: &prev, SentAt: wire.Timestamp{Time: time.Now()}}
	f.msgs = append(f.msgs, m)
	f.byID[sender+id] = len(f.msgs) - 1
	for c := range f.conns {
		if c != from && c.live && !f.hide[m.Seq] {
			c.say(wire.EvReceived, m, "")
		}
	}
	return len(f.msgs) - 1
}

// post is a message of avi's from elsewhere.
func (f *fake) post(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.store("avi", id, "text of "+id, nil)
}

// kick closes all sockets, with a close code unless it is 0.
func (f *fake) kick(code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if code != 0 {
			c.close(code)
		}
		_ = c.ws.Close()
	}
}

// ping probes all sockets.
func (f *fake) ping() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.ws.WriteControl(websocket.PingMessage, []byte("1"), time.Now().Add(5*time.Second))
	}
}

func (f *fake) announce(event string, data any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.say(event, data, "")
	}
}

// set runs change under the lock.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (c *fakeConn) say(event string, data any, re string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_ = c.ws.WriteMessage(websocket.TextMessage, wire.Encode(event, data, re))
}

func (c *fakeConn) close(code int) {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "because"), time.Now().Add(time.Second))
}
