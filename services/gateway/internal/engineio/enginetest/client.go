// Package enginetest is an Engine.IO client for tests. It sends whatever it is told to, wrong things too, and does nothing by itself: it
// answers no ping and begins no poll.
package enginetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Patience is how long a client waits for anything: longer than a busy machine sleeps, never reached by a test that passes.
const Patience = 30 * time.Second

// Site is a server of the protocol as its clients see it.
type Site struct {
	t    testing.TB
	srv  *httptest.Server
	path string
}

// Serve serves h under path, beside run, until the test ends.
func Serve(t testing.TB, path string, h http.Handler, run func(context.Context) error) *Site {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(path, h)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = run(ctx) // ends with ctx
	}()
	s := &Site{t: t, srv: httptest.NewServer(mux), path: path}
	s.srv.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 32 // many requests at once must not cost a connection each
	t.Cleanup(func() {
		s.srv.CloseClientConnections() // polls that a test left
		s.srv.Close()
		cancel()
		<-ran
	})
	return s
}

// Answer is what an HTTP request got. Status is 0 when there was none.
type Answer struct {
	Status int
	Body   string
	Cookie string // "name=value" that was set, if any
}

// Do makes any request; query is what follows the "?".
func (s *Site) Do(ctx context.Context, method, query, cookie string, body io.Reader) Answer {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.srv.URL+s.path+"?"+query, body)
	if err != nil {
		s.t.Errorf("make a request: %v", err)
		return Answer{}
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	resp, err := s.srv.Client().Do(r)
	if err != nil {
		return Answer{Body: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{Body: err.Error()}
	}
	a := Answer{Status: resp.StatusCode, Body: string(b)}
	for _, k := range resp.Cookies() {
		a.Cookie = k.Name + "=" + k.Value
	}
	return a
}

// Hello is the packet that begins a connection.
type Hello struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"`
	PingTimeout  int      `json:"pingTimeout"`
	MaxPayload   int      `json:"maxPayload"`
}

// ReadHello reads it, and nothing else.
func ReadHello(packet string) (h Hello, err error) {
	rest, ok := strings.CutPrefix(packet, "0")
	if !ok {
		return h, errors.New("not an open packet: " + packet)
	}
	d := json.NewDecoder(strings.NewReader(rest))
	d.DisallowUnknownFields()
	err = d.Decode(&h)
	if err == nil && (h.SID == "" || h.Upgrades == nil) {
		err = errors.New("incomplete: " + packet)
	}
	return h, err
}

// Poller is a session on long-polling.
type Poller struct {
	site   *Site
	SID    string
	Given  string // the cookie that the handshake set
	Cookie string // to be sent; none at first, as from clients that keep none
}

// Open makes a session on long-polling.
func (s *Site) Open() *Poller {
	s.t.Helper()
	a := s.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", "", nil)
	h, err := ReadHello(a.Body)
	if a.Status != http.StatusOK || err != nil {
		s.t.Fatalf("no session: %+v %v", a, err)
	}
	return &Poller{site: s, SID: h.SID, Given: a.Cookie}
}

// Handshakes makes n sessions on long-polling that nobody goes on with, as quickly as one TCP connection can.
func (s *Site) Handshakes(n int) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.srv.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	go func() {
		one := "GET " + s.path + "?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n"
		_, _ = io.WriteString(conn, strings.Repeat(one, n)) // a failure shows in the answers
	}()
	r := bufio.NewReader(conn)
	for range n {
		resp, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			s.t.Fatalf("no session: %+v %v", resp, err)
		}
	}
}

// At is the same session at another server.
func (p *Poller) At(s *Site) *Poller {
	q := *p
	q.site = s
	return &q
}

func (p *Poller) query() string { return "EIO=4&transport=polling&sid=" + url.QueryEscape(p.SID) }

// Get polls.
func (p *Poller) Get() Answer { return p.GetUntil(context.Background()) }

// GetUntil polls until ctx ends.
func (p *Poller) GetUntil(ctx context.Context) Answer {
	return p.site.Do(ctx, http.MethodGet, p.query(), p.Cookie, nil)
}

// GiveUp polls and closes the connection, without waiting for an answer. The request is with the kernel when it returns, so the server gets
// it: http.Client says of a request that it was written before it is, and one that is cancelled then is never sent.
func (p *Poller) GiveUp() {
	t, addr := p.site.t, p.site.srv.Listener.Addr().String()
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cookie := ""
	if p.Cookie != "" {
		cookie = "Cookie: " + p.Cookie + "\r\n"
	}
	if _, err := io.WriteString(conn, "GET "+p.site.path+"?"+p.query()+" HTTP/1.1\r\nHost: test\r\n"+cookie+"\r\n"); err != nil {
		t.Fatal(err)
	}
}

// Go polls in the background.
func (p *Poller) Go() <-chan Answer {
	got := make(chan Answer, 1)
	go func() { got <- p.Get() }()
	return got
}

// Post sends a payload.
func (p *Poller) Post(body string) Answer { return p.PostFrom(strings.NewReader(body)) }

// PostFrom sends a payload that is still being made.
func (p *Poller) PostFrom(body io.Reader) Answer {
	return p.site.Do(context.Background(), http.MethodPost, p.query(), p.Cookie, body)
}

// Upgrade opens the WebSocket for the session, and nothing more.
func (p *Poller) Upgrade() *Socket {
	p.site.t.Helper()
	s, status := p.site.Dial("EIO=4&transport=websocket&sid="+url.QueryEscape(p.SID), p.Cookie)
	if s == nil {
		p.site.t.Fatalf("the upgrade was refused with %d", status)
	}
	return s
}

// Wait gives what comes, within Patience.
func Wait[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// Socket is a WebSocket. It reads when it is asked for something.
type Socket struct {
	t    testing.TB
	ws   *websocket.Conn
	code int // it was closed with
}

// Dial opens a WebSocket; where that is refused, there is a status only.
func (s *Site) Dial(query, cookie string) (*Socket, int) {
	s.t.Helper()
	h := http.Header{}
	if cookie != "" {
		h.Set("Cookie", cookie)
	}
	ws, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.srv.URL, "http")+s.path+"?"+query, h)
	if err != nil {
		if resp == nil {
			s.t.Fatalf("dial: %v", err)
		}
		resp.Body.Close()
		return nil, resp.StatusCode
	}
	s.t.Cleanup(func() { ws.Close() })
	return &Socket{t: s.t, ws: ws}, resp.StatusCode
}

// Socket opens a session on a WebSocket.
func (s *Site) Socket() (*Socket, Hello) {
	s.t.Helper()
	ws, status := s.Dial("EIO=4&transport=websocket", "")
	if ws == nil {
		s.t.Fatalf("the WebSocket was refused with %d", status)
	}
	h, err := ReadHello(ws.Next().Data)
	if err != nil {
		s.t.Fatal(err)
	}
	return ws, h
}

// Send sends text messages. One that cannot be written any more shows in what is read.
func (s *Socket) Send(packets ...string) {
	for _, p := range packets {
		_ = s.ws.WriteMessage(websocket.TextMessage, []byte(p))
	}
}

// SendBinary sends one binary message.
func (s *Socket) SendBinary(b ...byte) { _ = s.ws.WriteMessage(websocket.BinaryMessage, b) }

// Message is what came; when nothing more comes, Code says with which close code (1006: without a word).
type Message struct {
	Data   string
	Binary bool
	Code   int
}

// Next is the next message.
func (s *Socket) Next() Message {
	if s.code != 0 {
		return Message{Code: s.code}
	}
	_ = s.ws.SetReadDeadline(time.Now().Add(Patience))
	kind, b, err := s.ws.ReadMessage()
	if err == nil {
		return Message{Data: string(b), Binary: kind == websocket.BinaryMessage}
	}
	s.code = websocket.CloseAbnormalClosure
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		s.code = ce.Code
	}
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() {
		s.t.Errorf("neither a message nor a close came")
	}
	return Message{Code: s.code}
}

// Want checks the next messages; binary ones are written as "b" and their bytes.
func (s *Socket) Want(packets ...string) {
	s.t.Helper()
	for _, want := range packets {
		m := s.Next()
		got := m.Data
		if m.Binary {
			got = "b" + got
		}
		if m.Code != 0 || got != want {
			s.t.Fatalf("got %+v, want %q", m, want)
		}
	}
}

// WantClose passes over what still comes and checks how it ends.
func (s *Socket) WantClose(code int) {
	s.t.Helper()
	m := s.Next()
	for m.Code == 0 {
		m = s.Next()
	}
	if m.Code != code {
		s.t.Fatalf("closed with %d, want %d", m.Code, code)
	}
	s.ws.Close()
}

// Close closes in an orderly way.
func (s *Socket) Close(code int) {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(Patience))
}

// Abort cuts the connection.
func (s *Socket) Abort() { s.ws.NetConn().Close() }
