package engineio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/wsconn"
)

// Config of a Server.
type Config struct {
	PingInterval time.Duration // between two heartbeats
	PingTimeout  time.Duration // for the answer to one
	MaxPayload   int           // bytes: largest packet that a client may send; it is told to make no larger bodies of a POST either
	MaxBody      int           // bytes: largest body of a POST that is read, from clients that do not listen; at least MaxPayload
	Budget       *wsconn.Budget
	// FramesPerSecond and FrameBurst limit the packets that a connection may send, whatever they are and whatever brings them; 0: no limit.
	FramesPerSecond, FrameBurst int

	Origin func(*http.Request) bool // whether the page that asks may; nil: any

	// Node names this server among several behind one address; session ids begin with it. "" when it is the only one.
	Node string
	// Forward asks another Node about a session of its own; nil when there is none. ErrNoNode when there is no such node.
	Forward func(ctx context.Context, node string, req Request) (Response, error)
}

// ErrNoNode is Forward's answer for a node that does not exist (any more).
var ErrNoNode = errors.New("no such node")

// Handler gets what one client sends. Its calls come one after the other, whatever transport brought them, and Closed last.
type Handler interface {
	// Text and Binary are messages; b is valid during the call only.
	Text(b []byte)
	Binary(b []byte)
	// Pong answers the ping with that number (Conn.Ping), and all before: everything sent before it has arrived.
	Pong(n uint32)
	Closed(why wire.Close)
}

// Accept makes the Handler of a new connection, or refuses it with a *wire.Error. c cannot send before Accept returns.
type Accept func(c *Conn, r *http.Request) (Handler, error)

// Server holds the connections. It is an http.Handler for the path of the protocol. Run must run, for the heartbeats.
type Server struct {
	cfg      Config
	accept   Accept
	upgrader *wsconn.Upgrader

	round atomic.Int64 // Unix ns: when Run last looked at the connections

	mu    sync.Mutex
	conns map[string]*Conn
}

// New makes a Server.
func New(cfg Config, accept Accept) *Server {
	if cfg.Origin == nil {
		cfg.Origin = func(*http.Request) bool { return true }
	}
	return &Server{
		cfg: cfg, accept: accept, conns: map[string]*Conn{},
		upgrader: wsconn.NewUpgrader(wsconn.Config{
			FrameBytes: cfg.MaxPayload, Budget: cfg.Budget, FramesPerSecond: cfg.FramesPerSecond, FrameBurst: cfg.FrameBurst,
		}, ""),
	}
}

// Run sends heartbeats and ends who does not answer them, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	t := time.NewTicker(s.every())
	defer t.Stop()
	s.round.Store(time.Now().UnixNano())
	var list []*Conn // reused
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		list = s.look(time.Now(), list)
	}
}

// look looks at every connection; list is memory to be used again. The clock on the wall measures a pause, as it does the heartbeats: Linux'
// monotonic clock stands still while a machine is suspended.
func (s *Server) look(now time.Time, list []*Conn) []*Conn {
	pause := time.Duration(now.UnixNano()-s.round.Swap(now.UnixNano())) - s.every()
	if pause < s.every() {
		pause = 0 // as usual
	}
	list = s.list(list[:0])
	for i, c := range list {
		c.beat(now, pause)
		list[i] = nil
	}
	return list
}

// every is how often Run looks at the connections.
func (s *Server) every() time.Duration {
	return min(time.Second, max(10*time.Millisecond, min(s.cfg.PingInterval, s.cfg.PingTimeout)/10))
}

// paused reports whether Run has not looked for so long that nothing may have run here: then it is Run that judges who is late. Like a
// heartbeat that we send late (Conn.check), half of a timeout counts as that.
func (s *Server) paused(now int64) bool {
	last := s.round.Load()
	return last != 0 && now-last > int64(s.every()+s.cfg.PingTimeout/2)
}

func (s *Server) list(out []*Conn) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		out = append(out, c)
	}
	return out
}

// Len is the number of connections that are open or were closed a moment ago.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) get(sid string) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[sid]
}

// Holds reports whether a session id is that of a connection here.
func (s *Server) Holds(sid string) bool { return s.get(sid) != nil }

func (s *Server) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.sid] = c
}

func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.sid)
}

// failure is an answer that refuses a request; the codes and texts are those of the reference implementation.
type failure struct {
	status  int
	Code    int    `json:"code"`
	Message string `json:"message"`
}

var (
	failTransport = &failure{400, 0, "Transport unknown"}
	failSession   = &failure{400, 1, "Session ID unknown"}
	failMethod    = &failure{400, 2, "Bad handshake method"}
	failRequest   = &failure{400, 3, "Bad request"}
	failVersion   = &failure{400, 5, "Unsupported protocol version"}
	failTooLarge  = &failure{413, 3, "Payload too large"}
	failOrigin    = &failure{403, 4, "Forbidden"}
	failAway      = &failure{503, 3, "The server that holds this session cannot be reached now"}
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	transport, sid := q.Get("transport"), q.Get("sid")
	switch {
	case q.Get("EIO") != "4":
		fail(w, failVersion)
	case transport != "polling" && transport != "websocket":
		fail(w, failTransport)
	case !s.cfg.Origin(r):
		fail(w, failOrigin)
	case transport == "websocket":
		s.serveWebSocket(w, r, sid)
	case sid == "":
		s.handshake(w, r)
	default:
		s.servePolling(w, r, sid)
	}
}

func fail(w http.ResponseWriter, f *failure) {
	body, _ := json.Marshal(f) // cannot fail
	answer(w, Response{Status: f.status, Body: body})
}

func answer(w http.ResponseWriter, resp Response) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	if resp.Status != http.StatusOK {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(resp.Status)
	_, _ = w.Write(resp.Body) // a client whose poll fails ends the session
}

// refuse answers an error of Accept.
func refuse(w http.ResponseWriter, err error) {
	e := wire.AsError(err)
	if e.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", "1")
	}
	fail(w, &failure{e.Code.HTTPStatus(), 3, e.Message})
}

// open is the packet that begins a connection.
func (s *Server) open(sid string, upgrades ...string) []byte {
	if upgrades == nil {
		upgrades = []string{}
	}
	b, _ := json.Marshal(struct { // cannot fail
		SID          string   `json:"sid"`
		Upgrades     []string `json:"upgrades"`
		PingInterval int64    `json:"pingInterval"`
		PingTimeout  int64    `json:"pingTimeout"`
		MaxPayload   int      `json:"maxPayload"`
	}{sid, upgrades, s.cfg.PingInterval.Milliseconds(), s.cfg.PingTimeout.Milliseconds(), s.cfg.MaxPayload})
	return append([]byte{typeOpen}, b...)
}

// CookieName of the cookie that ties a polling session to its client. A session id stands in URLs, which get logged; a client that has shown that it keeps
// cookies must go on showing this one, so the id alone is of no use to others.
const CookieName = "parley_sio"

// maxSID bounds the ids that other nodes are asked about, which whoever comes may make up: ours have at most 64 bytes, and a subject of NATS
// that is too long ends the whole node's connection there.
const maxSID = 100

// newSID makes a session id: 18 random bytes, which nobody guesses, behind the name of the node.
func (s *Server) newSID() string {
	if s.cfg.Node == "" {
		return random()
	}
	return s.cfg.Node + "." + random()
}

func random() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// handshake begins a polling connection.
func (s *Server) handshake(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		fail(w, failMethod)
		return
	}
	c := newConn(s, s.newSID())
	cookie := ""
	if k, err := r.Cookie(CookieName); err == nil && len(k.Value) == 24 {
		cookie = k.Value // another page of the same browser has a session already
	}
	if cookie == "" {
		cookie = random()
		http.SetCookie(w, &http.Cookie{Name: CookieName, Value: cookie, Path: r.URL.Path, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	c.cookie = cookie
	h, err := s.accept(c, r)
	if err != nil {
		refuse(w, err)
		return
	}
	c.begin(h, nil)
	answer(w, Response{Status: http.StatusOK, Body: s.open(c.sid, "websocket")})
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, sid string) {
	if status, _ := wsconn.Refusal(w, r); status != 0 {
		fail(w, failRequest)
		return
	}
	if sid != "" {
		c := s.get(sid)
		// A session of another node stays on polling: its client goes on there when the upgrade is refused. Carrying a WebSocket's frames from
		// node to node would need its own acknowledgements, for a lost one would not be noticed.
		if c == nil || !c.allowed(cookieOf(r)) {
			fail(w, failSession)
			return
		}
		c.upgrade(w, r)
		return
	}
	c := newConn(s, s.newSID())
	h, err := s.accept(c, r)
	if err != nil {
		refuse(w, err)
		return
	}
	ws := s.upgrader.Upgrade(w, r)
	if ws == nil {
		h.Closed(wire.CloseProtocol)
		return
	}
	c.begin(h, ws)
	ws.Start((*direct)(c))
}

// Request is one request of long-polling, as it may be forwarded to the node that holds the session.
type Request struct {
	SID    string `json:"sid"`
	Post   bool   `json:"post,omitempty"`
	Cookie string `json:"cookie,omitempty"`
	Body   []byte `json:"body,omitempty"`
}

// Response is the answer.
type Response struct {
	Status int    `json:"status"`
	Body   []byte `json:"body"`
}

func cookieOf(r *http.Request) string {
	if k, err := r.Cookie(CookieName); err == nil {
		return k.Value
	}
	return ""
}

func (s *Server) servePolling(w http.ResponseWriter, r *http.Request, sid string) {
	req := Request{SID: sid, Post: r.Method == http.MethodPost, Cookie: cookieOf(r)}
	if !req.Post && r.Method != http.MethodGet {
		fail(w, failRequest)
		return
	}
	node, _, ok := strings.Cut(sid, ".")
	foreign := ok && node != s.cfg.Node && s.cfg.Forward != nil
	if foreign && (node == "" || len(sid) > maxSID) || !foreign && s.get(sid) == nil {
		fail(w, failSession)
		return
	}
	if req.Post {
		var err error
		if req.Body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, int64(max(s.cfg.MaxPayload, s.cfg.MaxBody)))); err != nil {
			// Part of a payload is lost, so the session cannot go on.
			req.Body = nil
			s.forget(r.Context(), node, foreign, req)
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				fail(w, failTooLarge)
			} else {
				fail(w, failRequest)
			}
			return
		}
		if longestPacket(req.Body) > s.cfg.MaxPayload {
			s.forget(r.Context(), node, foreign, req)
			fail(w, failTooLarge)
			return
		}
	}
	resp, err := Response{}, error(nil)
	if foreign {
		resp, err = s.cfg.Forward(r.Context(), node, req)
	} else {
		resp = s.Exchange(r.Context(), req)
	}
	switch {
	case errors.Is(err, ErrNoNode):
		fail(w, failSession)
	case err != nil:
		// It may have been done, and its answer is lost: what a poll took is missing.
		s.forget(context.WithoutCancel(r.Context()), node, foreign, req)
		fail(w, failAway)
	case r.Context().Err() != nil && !req.Post && resp.Status == http.StatusOK:
		// What the answer carries was taken out of the session and will not arrive: a pong to a later ping would say that it has.
		s.forget(context.WithoutCancel(r.Context()), node, foreign, req)
	default:
		answer(w, resp)
	}
}

// forget ends a session whose order of packets is broken: an empty POST is none that a client may make.
func (s *Server) forget(ctx context.Context, node string, foreign bool, req Request) {
	req.Post, req.Body = true, nil
	if !foreign {
		s.Exchange(ctx, req)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _ = s.cfg.Forward(ctx, node, req) // else it ends for lack of a pong
}

// Exchange does one request of long-polling on a session of this node. A poll waits until there is something to say, or ctx ends.
func (s *Server) Exchange(ctx context.Context, req Request) Response {
	c := s.get(req.SID)
	var body []byte
	f := failSession
	switch {
	case c == nil || !c.allowed(req.Cookie):
	case req.Post:
		body, f = c.post(req.Body)
	default:
		body, f = c.poll(ctx)
	}
	if f != nil {
		body, _ = json.Marshal(f) // cannot fail
		return Response{Status: f.status, Body: body}
	}
	return Response{Status: http.StatusOK, Body: body}
}
