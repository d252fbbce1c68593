package sdk

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// patience is how long a step waits for what has to come: what comes later than this never comes.
const patience = 30 * time.Second

// judge plays one scene to one driver.
type judge struct {
	ctx   context.Context
	scene *Scene
	vars  vars
	srv   *httptest.Server

	opens chan *attempt
	posts chan *asked
	sock  *socket // the one opened last
	last  string  // id of the frame heard last

	mu       sync.Mutex // guards in
	in       *json.Encoder
	events   chan map[string]any
	outcomes chan map[string]any // answers to commands, which events may overtake

	log []string // what came and went, for who has to find a mistake
	lmu sync.Mutex
}

// attempt is a handshake that waits for the scene to say what becomes of it.
type attempt struct {
	token string
	do    chan func(http.ResponseWriter, *http.Request)
}

// asked is an HTTP request that waits for its answer.
type asked struct {
	path   string
	body   map[string]any
	answer chan step
}

type frame struct {
	Event string         `json:"event"`
	Data  map[string]any `json:"data"`
	ID    string         `json:"id"`
}

// socket is the server's end of one connection.
type socket struct {
	ws     *websocket.Conn
	mu     sync.Mutex  // writes
	frames chan frame  // those that no step has asked for; closed when the client has gone
	pongs  chan string // room for one
}

// outcomes are the events that answer a command.
var outcomes = map[string]bool{"sent": true, "unsent": true, "failed": true, "resume": true}

// Play judges the driver that command starts by a scene; nil means that it did as it should.
func Play(ctx context.Context, s *Scene, command ...string) error {
	j := &judge{
		scene: s, vars: vars{}, opens: make(chan *attempt, 64), posts: make(chan *asked, 64),
		events: make(chan map[string]any, 4096), outcomes: make(chan map[string]any, 4096),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.ctx = ctx
	j.srv = httptest.NewServer(http.HandlerFunc(j.serve))
	defer j.srv.Close()
	defer cancel() // what waits in a handler
	if err := j.start(command); err != nil {
		return err
	}
	for _, st := range s.steps {
		if err := j.step(st); err != nil {
			return fmt.Errorf("line %d, %s: %w\n%s", st.line, st.text, err, j.told())
		}
	}
	if err := j.end(); err != nil {
		return fmt.Errorf("at the end: %w\n%s", err, j.told())
	}
	return nil
}

func (j *judge) note(format string, args ...any) {
	j.lmu.Lock()
	defer j.lmu.Unlock()
	if j.log = append(j.log, fmt.Sprintf(format, args...)); len(j.log) > 60 {
		j.log = j.log[1:]
	}
}

func (j *judge) told() string {
	j.lmu.Lock()
	defer j.lmu.Unlock()
	return "  " + strings.Join(j.log, "\n  ")
}

// start starts the driver. It ends with j.ctx at the latest.
func (j *judge) start(command []string) error {
	cmd := exec.CommandContext(j.ctx, command[0], command[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the driver: %w", err)
	}
	j.in = json.NewEncoder(in)
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e map[string]any
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				e = map[string]any{"is": "no JSON", "line": lines.Text()}
			}
			j.note("driver: %s", lines.Text())
			is, _ := e["is"].(string)
			if outcomes[is] {
				j.outcomes <- e
			} else {
				j.events <- e
			}
		}
		_ = cmd.Wait() // that it has ended is said below
		j.note("the driver has ended: %s", stderr.String())
		j.events <- map[string]any{"is": "driver ended"}
	}()
	return nil
}

// serve takes handshakes and requests.
func (j *judge) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/ws" {
		a := &attempt{token: bearer(r), do: make(chan func(http.ResponseWriter, *http.Request), 1)}
		j.note("client: opens a socket with %s", a.token)
		j.opens <- a
		select {
		case do := <-a.do:
			do(w, r)
		case <-j.ctx.Done():
		}
		return
	}
	q := &asked{path: r.URL.Path, answer: make(chan step, 1)}
	b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // what is cut is no JSON
	_ = json.Unmarshal(b, &q.body)                    // it is compared
	j.note("client: %s %s %s", r.Method, r.URL.Path, b)
	j.posts <- q
	select {
	case st := <-q.answer:
		if st.status == 0 { // the answer is lost
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(st.status)
		_ = json.NewEncoder(w).Encode(st.answer) // the client may be gone
	case <-j.ctx.Done():
	}
}

// bearer is the access token of a handshake, from its header or its subprotocols.
func bearer(r *http.Request) string {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	list := websocket.Subprotocols(r)
	if len(list) == 2 && list[0] == "parley.v1" {
		return strings.TrimPrefix(list[1], "bearer.")
	}
	return ""
}

// await takes the next of a channel.
func await[T any](c <-chan T, what string) (v T, err error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case v = <-c:
		return v, nil
	case <-t.C:
		return v, fmt.Errorf("no %s within %v", what, patience)
	}
}

func (j *judge) step(st step) error {
	switch st.verb {
	case "do":
		return j.do(st.name, st.data)
	case "is":
		return j.is(st)
	case "open":
		return j.open(st)
	case "post":
		return j.post(st)
	}
	if j.sock == nil {
		return fmt.Errorf("there is no socket")
	}
	switch st.verb {
	case "hear":
		return j.hear(st)
	case "say":
		f := map[string]any{"event": st.name, "data": j.vars.fill(st.data)}
		if st.re {
			f["re"] = j.last
		}
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		for range st.times {
			if err := j.write(b); err != nil {
				return err
			}
		}
		return nil
	case "raw":
		return j.write([]byte(st.name))
	case "ping":
		if err := j.sock.ws.WriteControl(websocket.PingMessage, []byte(st.text), time.Now().Add(patience)); err != nil {
			return err
		}
		_, err := await(j.sock.pongs, "pong")
		return err
	// The client may have gone at what was said before. What it does then the next steps judge.
	case "cut":
		_ = j.sock.ws.UnderlyingConn().Close()
		return nil
	case "close":
		code, err := strconv.Atoi(st.name)
		if err == nil {
			_ = j.sock.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "because"), time.Now().Add(patience))
		}
		return err
	}
	return j.left() // the verb that is left
}

func (j *judge) write(b []byte) error {
	j.sock.mu.Lock()
	defer j.sock.mu.Unlock()
	j.note("server: %s", b)
	return j.sock.ws.WriteMessage(websocket.TextMessage, b)
}

// do gives the driver a command.
func (j *judge) do(name string, data map[string]any) error {
	c := map[string]any{}
	if name == "connect" {
		c = map[string]any{"url": j.srv.URL, "token": "t1", "min_backoff_ms": 1, "max_backoff_ms": 20}
	}
	if data != nil {
		maps.Copy(c, j.vars.fill(data).(map[string]any))
	}
	c["do"] = name
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note("driver told: %v", c)
	return j.in.Encode(c)
}

// is waits for the next event of the driver, which has to be this one.
func (j *judge) is(st step) error {
	from := j.events
	if outcomes[st.name] {
		from = j.outcomes
	}
	e, err := await(from, st.name)
	if err != nil {
		return err
	}
	want := map[string]any{"is": st.name}
	if st.data == nil { // of what has nothing to compare the name is enough
		e = map[string]any{"is": e["is"]}
	}
	maps.Copy(want, st.data)
	return j.vars.match(want, any(e))
}

// open takes the next handshake: with the token that the step names (t1 if none), or, "dead", leaves it without an answer.
func (j *judge) open(st step) error {
	a, err := await(j.opens, "connection")
	if err != nil {
		return err
	}
	if st.name == "dead" {
		return nil // as a load balancer does whose server has gone
	}
	want := st.name
	if want == "" {
		want = "t1"
	}
	if a.token != want {
		return fmt.Errorf("it came with the token %q", a.token)
	}
	opened := make(chan *socket, 1)
	a.do <- func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{Subprotocols: []string{"parley.v1"}}).Upgrade(w, r, nil)
		if err != nil {
			return // nothing is opened, and the step says so
		}
		s := &socket{ws: ws, frames: make(chan frame, 4096), pongs: make(chan string, 1)}
		ws.SetPongHandler(func(text string) error {
			select {
			case s.pongs <- text:
			default:
			}
			return nil
		})
		opened <- s
		j.read(s)
	}
	if j.sock, err = await(opened, "socket"); err != nil {
		return err
	}
	if j.scene.waitsFor("say", "welcome") {
		return nil
	}
	b := []byte(`{"event":"welcome","data":{"username":"lisa","session":"s","heartbeat_s":25,"limits":{}}}`)
	return j.write(b)
}

// read reads until the client has gone. A connection may ask at any time whether the server is there: unless the scene is about that, it is.
func (j *judge) read(s *socket) {
	defer close(s.frames)
	defer s.ws.Close()
	asks := j.scene.mute || j.scene.waitsFor("hear", "connection_alive")
	for {
		_, b, err := s.ws.ReadMessage()
		if err != nil {
			j.note("client: gone, %v", err)
			return
		}
		j.note("client: %s", b)
		var f frame
		if err := json.Unmarshal(b, &f); err != nil {
			f.Event = "no JSON"
		}
		if f.Event == "connection_alive" && !asks {
			s.mu.Lock()
			_ = s.ws.WriteJSON(map[string]any{"event": "ack", "re": f.ID, "data": map[string]any{}}) // a failure shows in the read
			s.mu.Unlock()
			continue
		}
		s.frames <- f
	}
}

// hear waits for the next frame of the client, which has to be this one. Questions whether the server is there are passed over where another frame is
// wanted.
func (j *judge) hear(st step) error {
	for {
		f, err := await(j.sock.frames, st.name)
		if err != nil {
			return err
		}
		if f.Event == "connection_alive" && st.name != f.Event {
			continue
		}
		if f.Event != st.name {
			return fmt.Errorf("%q came, with %v", f.Event, f.Data)
		}
		j.last = f.ID
		if st.data == nil {
			return nil
		}
		return j.vars.match(st.data, any(f.Data))
	}
}

// left waits until the client has closed the socket.
func (j *judge) left() error {
	for {
		f, err := await(j.sock.frames, "end of the socket")
		if err != nil || f.Event == "" {
			return err
		}
		if f.Event != "connection_alive" {
			return fmt.Errorf("%q came, with %v", f.Event, f.Data)
		}
	}
}

func (j *judge) post(st step) error {
	q, err := await(j.posts, "request")
	if err != nil {
		return err
	}
	if q.path != st.name {
		return fmt.Errorf("%s was asked for", q.path)
	}
	if err := j.vars.match(st.data, any(q.body)); err != nil {
		return err
	}
	q.answer <- st
	return nil
}

// end sees that nothing else was told, and that the driver leaves when it is told to.
func (j *judge) end() error {
	if last := j.scene.steps[len(j.scene.steps)-1]; last.verb == "is" && last.name == "closed" {
		return nil
	}
	for _, text := range []string{
		`say typing {"conversation_room":"avi&lisa","username":"the end"}`, `is typing {"room":"avi&lisa","username":"the end"}`, `do close`,
		`hear client_disconnection`, `close 1000`, `is closed {"why":"closed"}`,
	} {
		st, err := parse(text)
		if err != nil {
			return err
		}
		if err := j.step(st); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	if n := len(j.outcomes); n > 0 {
		return fmt.Errorf("%d outcomes more than expected", n)
	}
	return nil
}
