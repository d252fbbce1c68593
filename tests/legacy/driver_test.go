package legacy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/tests/harness"
)

// driver is a process that holds clients of one library: driver.py or driver.mjs, which describes the lines.
type driver struct {
	cmd    *exec.Cmd
	stderr *bytes.Buffer // to be read when it has ended
	done   chan struct{} // closed when it has ended

	in  sync.Mutex
	enc *json.Encoder

	mu      sync.Mutex
	asked   int
	answers map[int]chan line
	clients map[string]*client
	ended   bool
}

// command is a line to a driver.
type command struct {
	ID         int               `json:"id"`
	Do         string            `json:"do"`
	As         string            `json:"as,omitempty"`
	Method     string            `json:"method,omitempty"`
	Path       string            `json:"path,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       any               `json:"body,omitempty"`
	Raw        string            `json:"raw,omitempty"`
	Transports []string          `json:"transports,omitempty"`
	Late       bool              `json:"late,omitempty"`
	Name       string            `json:"name,omitempty"`
	Data       any               `json:"data,omitempty"`
	Ack        bool              `json:"ack,omitempty"`
	Every      int               `json:"every"`
}

// line is what a driver says.
type line struct {
	Ready  bool              `json:"ready"`
	ID     int               `json:"id"`
	Error  string            `json:"error"`
	Args   []json.RawMessage `json:"args"`
	Status int               `json:"status"`
	Type   string            `json:"type"`
	Text   string            `json:"text"`

	As     string  `json:"as"`
	Name   string  `json:"name"`
	Packet *string `json:"packet"`
}

// library is one of the two client libraries.
type library string

const (
	python library = "python"
	node   library = "node"
)

// whatToDo ends what is said about a missing library.
const whatToDo = "`make test-deps` installs what the tests need, or says what is missing"

// pythonWithLibraries is a Python that has Debian's packages; another one may come first in PATH.
var pythonWithLibraries = sync.OnceValues(func() (string, error) {
	var said []byte
	for _, path := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(path, "-c", "import requests, socketio, websocket").CombinedOutput()
		if err == nil {
			return path, nil
		}
		said = append(said, out...)
	}
	return "", fmt.Errorf("there is no Python with the packages socketio, requests and websocket; %s\n%s", whatToDo, said)
})

func (l library) command(base string) (*exec.Cmd, error) {
	if l == python {
		path, err := pythonWithLibraries()
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-u", "driver.py", base), nil
	}
	if _, err := exec.LookPath("node"); err != nil {
		return nil, fmt.Errorf("%w; %s", err, whatToDo)
	}
	if _, err := os.Stat("node_modules/socket.io-client"); err != nil {
		return nil, fmt.Errorf("`npm ci` was not run in tests/legacy: %w; %s", err, whatToDo)
	}
	return exec.Command("node", "driver.mjs", base), nil
}

// startDriver starts a driver whose clients speak to base. It ends with the test at the latest.
func startDriver(t *testing.T, l library, base string) *driver {
	t.Helper()
	cmd, err := l.command(base)
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{cmd: cmd, stderr: &bytes.Buffer{}, done: make(chan struct{}), answers: map[int]chan line{}, clients: map[string]*client{}}
	ready := make(chan line, 1)
	d.answers[0] = ready
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.enc = json.NewEncoder(in)
	cmd.Stderr = d.stderr
	// A proxy that the machine is set to use is not in the way to ourselves, and no orphan stays if the test is killed.
	cmd.Env = append(os.Environ(), "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the %s driver: %v", l, err)
	}
	go func() {
		d.read(out)
		_ = cmd.Wait() // the tests end it
		close(d.done)
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() && d.stderr.Len() > 0 {
			t.Logf("the %s driver printed:\n%s", l, d.stderr)
		}
	})
	select {
	case <-ready:
	case <-d.done:
		t.Fatalf("the %s driver does not start: %s", l, d.stderr)
	case <-time.After(harness.Within):
		t.Fatalf("the %s driver does not start within %s", l, harness.Within)
	}
	return d
}

// kill ends the process without a word to anybody, as a lost network does. Safe to repeat.
func (d *driver) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

// maxLine is more than a driver ever says at once.
const maxLine = 4 << 20

func (d *driver) read(out io.Reader) {
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			l = line{Error: fmt.Sprintf("the driver said %q", sc.Text())}
		}
		d.mu.Lock()
		c, answer := d.clients[l.As], d.answers[l.ID]
		if l.As == "" {
			delete(d.answers, l.ID)
		}
		d.mu.Unlock()
		switch {
		case l.As != "":
			c.tell(l)
		case answer != nil:
			answer <- l
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	for id, answer := range d.answers {
		answer <- line{ID: id, Error: "the driver has ended"}
	}
	clear(d.answers)
}

// start gives a command and returns where its answer comes.
func (d *driver) start(c command) <-chan line {
	answer := make(chan line, 1)
	d.mu.Lock()
	d.asked++
	c.ID = d.asked
	if d.ended {
		answer <- line{Error: "the driver has ended"}
	} else {
		d.answers[c.ID] = answer
	}
	d.mu.Unlock()
	d.in.Lock()
	defer d.in.Unlock()
	_ = d.enc.Encode(c) // an end shows in the answer
	return answer
}

// patience is how long an answer is waited for: python-socketio itself gives up a connection after this.
const patience = 45 * time.Second

func await(t *testing.T, what string, answer <-chan line) line {
	t.Helper()
	select {
	case l := <-answer:
		return l
	case <-time.After(patience):
		t.Fatalf("no answer to %s within %s", what, patience)
	}
	return line{}
}

// do gives a command, which must succeed.
func (d *driver) do(t *testing.T, c command) line {
	t.Helper()
	l := await(t, c.Do, d.start(c))
	if l.Error != "" {
		t.Fatalf("%s %s%s%s: %s", c.Do, c.As, c.Path, c.Name, l.Error)
	}
	return l
}

// client is one Socket.IO connection of a driver.
type client struct {
	t    *testing.T
	d    *driver
	as   string
	user string
	jwt  string

	mu      sync.Mutex
	events  []event // as the program's handlers got them
	packets []event // as they came
	taken   []bool  // events, by expect
	more    chan struct{}
	wrong   string
}

// event is something that the server emitted.
type event struct {
	name string
	data json.RawMessage
	at   time.Time
}

// fields are those of all events to clients.
type fields struct {
	Sender   string `json:"sender"`
	Content  string `json:"content"`
	Username string `json:"username"`
	ID       string `json:"id"`
	Seq      int64  `json:"seq"`
	Room     string `json:"conversation_room"`
	SentAt   string `json:"sent_at"`
	Late     bool   `json:"late"`
}

func (e event) fields() (f fields) {
	_ = json.Unmarshal(e.data, &f) // checked when it came
	return f
}

func (d *driver) client(t *testing.T, user, jwt string) *client {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &client{t: t, d: d, as: fmt.Sprintf("c%d", len(d.clients)), user: user, jwt: jwt, more: make(chan struct{})}
	d.clients[c.as] = c
	return c
}

// tell takes what the driver says about the client.
func (c *client) tell(l line) {
	e := event{name: l.Name, at: time.Now()}
	packet := l.Packet != nil
	if packet {
		text, ok := strings.CutPrefix(*l.Packet, "2") // an event, without an ack
		if !ok {
			return
		}
		var args []json.RawMessage
		if err := json.Unmarshal([]byte(text), &args); err != nil || len(args) == 0 {
			c.fail("a packet that is none: " + text)
			return
		}
		_ = json.Unmarshal(args[0], &e.name) // "" names no event
		l.Args = args[1:]
	}
	if len(l.Args) > 0 {
		e.data = l.Args[0]
		if err := json.Unmarshal(e.data, &fields{}); err != nil || len(l.Args) > 1 {
			c.fail(fmt.Sprintf("%s with %s", e.name, l.Args))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if packet {
		c.packets = append(c.packets, e)
		return
	}
	c.events, c.taken = append(c.events, e), append(c.taken, false)
	close(c.more)
	c.more = make(chan struct{})
}

func (c *client) fail(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = why
}

func (c *client) do(cmd command) line {
	c.t.Helper()
	cmd.As = c.as
	return c.d.do(c.t, cmd)
}

// emit sends an event without an ack.
func (c *client) emit(name string, data any) {
	c.t.Helper()
	c.do(command{Do: "emit", Name: name, Data: data})
}

// ask sends an event with an ack and gives its one argument.
func (c *client) ask(name string, data any) json.RawMessage {
	c.t.Helper()
	return c.acked(name, c.later(name, data))
}

// later sends an event with an ack and returns where that comes.
func (c *client) later(name string, data any) <-chan line {
	return c.d.start(command{Do: "emit", As: c.as, Name: name, Data: data, Ack: true})
}

func (c *client) acked(name string, answer <-chan line) json.RawMessage {
	c.t.Helper()
	l := await(c.t, "the ack of "+name, answer)
	if l.Error != "" || len(l.Args) != 1 {
		c.t.Fatalf("%s was answered with %s %s", name, l.Args, l.Error)
	}
	return l.Args[0]
}

// expect waits for an event that ok accepts, and that no expect has taken before.
func (c *client) expect(what string, ok func(event) bool) event {
	c.t.Helper()
	return c.expectIn(2*harness.Within, what, ok)
}

func (c *client) expectIn(within time.Duration, what string, ok func(event) bool) event {
	c.t.Helper()
	timeout := time.After(within)
	for seen := 0; ; {
		c.mu.Lock()
		for ; seen < len(c.events); seen++ {
			if !c.taken[seen] && ok(c.events[seen]) {
				c.taken[seen] = true
				e := c.events[seen]
				c.mu.Unlock()
				return e
			}
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-c.d.done:
			c.t.Fatalf("no %s: the driver has ended", what)
		case <-timeout:
			c.t.Fatalf("%s got no %s within %s; the last events: %s", c.user, what, within, c.tail())
		}
	}
}

func (c *client) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, e := range c.events[max(0, len(c.events)-12):] {
		fmt.Fprintf(&b, "\n  %s %.120s", e.name, e.data)
	}
	return b.String()
}

// message waits for a message with this content.
func (c *client) message(content string) fields {
	c.t.Helper()
	return c.expect(fmt.Sprintf("message %.60q", content), func(e event) bool {
		return e.name == "received_message" && e.fields().Content == content
	}).fields()
}

// online and offline wait for the announcement of a user.
func (c *client) online(user string) event {
	c.t.Helper()
	return c.expect("announcement of "+user, func(e event) bool { return e.name == "new_user_online" && e.fields().Username == user })
}

func (c *client) offline(user string) event {
	c.t.Helper()
	return c.expect("announcement that "+user+" is gone", func(e event) bool {
		return e.name == "user_has_gone_offline" && e.fields().Username == user
	})
}

// told is what the client was told about a user so far: "+" for online, "-" for offline.
func (c *client) told(user string) string {
	var out strings.Builder
	for _, e := range c.came() {
		if e.fields().Username == user {
			out.WriteString(map[string]string{"new_user_online": "+", "user_has_gone_offline": "-"}[e.name])
		}
	}
	return out.String()
}

// came are the events that the server has sent, in order.
func (c *client) came() []event {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong != "" {
		c.t.Errorf("%s got %s", c.user, c.wrong)
	}
	return append([]event(nil), c.packets...)
}

// received are the messages of a room that came so far, in order.
func (c *client) received(room string) []fields {
	var out []fields
	for _, e := range c.came() {
		if f := e.fields(); (e.name == "received_message" || e.name == "ai_response_received") && f.Room == room {
			out = append(out, f)
		}
	}
	return out
}

// handled is how many of them the program's handlers got.
func (c *client) handled(room string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, e := range c.events {
		if (e.name == "received_message" || e.name == "ai_response_received") && e.fields().Room == room {
			n++
		}
	}
	return n
}

// count is how many events of this name came.
func (c *client) count(name string) int {
	n := 0
	for _, e := range c.came() {
		if e.name == name {
			n++
		}
	}
	return n
}

// disconnects is how often the library said that the connection had ended.
func (c *client) disconnects() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, e := range c.events {
		if e.name == "disconnect" {
			n++
		}
	}
	return n
}
