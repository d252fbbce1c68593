// Package legacy shows that the clients of the system before Parley work unchanged: it drives their real libraries, python-socketio and
// socket.io-client, against the real server. Nothing here knows the protocol below them.
package legacy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) {
	testx.SideBySide(8) // most scenarios wait for a delay of the protocol most of the time
	harness.Main(m)
}

// way is a library and the transports that it is told to use; none: its default, which begins with polling and upgrades.
type way struct {
	name       string
	library    library
	transports []string
}

var ways = []way{
	{"python", python, nil},
	{"python on WebSocket", python, []string{"websocket"}},
	{"python on polling", python, []string{"polling"}},
	{"node", node, nil},
	{"node on WebSocket", node, []string{"websocket"}},
	{"node on polling", node, []string{"polling"}},
}

// transport is what a connection uses in the end, when nothing is in the way.
func (w way) transport() string {
	if w.transports == nil {
		return "websocket"
	}
	return w.transports[0]
}

// env is a server as one scenario sees it, through the clients of one way.
type env struct {
	t       *testing.T
	way     way
	base    string // for old clients
	natives string // for native ones
	view    *harness.View
	d       *driver
	delay   time.Duration
	mixed   bool // whether an upgrade succeeds is a matter of luck
}

// settings of all servers here: what is counted by address is not in the way, since all clients have the same one.
// And on a machine that does much else, what takes long is not given up: without history, newer messages would come first.
var settings = map[string]string{
	"http-rate": "100000", "http-burst": "100000", "login-tries-address": "1000000", "catch-up-patience": "30s", "rpc-timeout": "20s",
}

// serve starts parley serve with more settings.
func serve(t *testing.T, more map[string]string) (base string) {
	t.Helper()
	all := maps.Clone(settings)
	maps.Copy(all, more)
	p := harness.Start(t, "parley serve", "parley", all, "serve", "--demo", "--http", "127.0.0.1:0", "--data", t.TempDir())
	return p.LogMatch(t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
}

type scenario struct {
	name string
	run  func(*env)
	once bool // in one way of each library
}

// run does the scenarios side by side, in each way; the clients of a way share a driver. Those that are about HTTP, or about what lies
// behind the protocol, are the same on every transport: they run in the default one.
func run(t *testing.T, e env, list []scenario, ways []way) {
	t.Run("ways", func(t *testing.T) {
		for _, w := range ways {
			e := e
			e.way, e.d = w, startDriver(t, w.library, e.base)
			for _, sc := range list {
				if sc.once && w.transports != nil {
					continue
				}
				t.Run(w.name+"/"+sc.name, func(t *testing.T) {
					t.Parallel()
					e := e
					e.t, e.view = t, e.view.For(t)
					sc.run(&e)
				})
			}
		}
	})
}

// TestOldClients has a server whose delay is short, so that there is time for many scenarios.
func TestOldClients(t *testing.T) {
	const delay = 400 * time.Millisecond
	base := serve(t, map[string]string{
		"socketio-delay": delay.String(), "socketio-alive": "20s",
		// The embedded store of presence is slow under the race detector, and these limits are tight for a busy machine.
		"presence-tick": "1s", "presence-lease": "15s",
	})
	e := env{base: base, natives: base, view: harness.Outside(t, base), delay: delay}
	run(t, e, []scenario{
		{"announcements", announcements, false}, // the longest first
		{"conversation", conversation, false},
		{"contents", contents, false},
		{"offline", offline, false},
		{"tokens", tokens, true},
		{"signing out", signingOut, true},
		{"several sessions", severalSessions, true},
		{"native clients", nativeClients, true},
		{"bot", bot, true},
		{"the four routes", routes, true},
		{"administrators", administrators, true},
	}, ways)
}

// TestOldClientsAsTheyAre has a server as it comes, and clients that register their handlers late.
func TestOldClientsAsTheyAre(t *testing.T) {
	base := serve(t, nil)
	e := env{base: base, natives: base, view: harness.Outside(t, base), delay: 3 * time.Second}
	run(t, e, []scenario{
		{"handlers registered late", lateHandlers, false},
		{"keep-alive", keepAlive, false},
	}, ways)
}

// register makes users, so that they are in the contacts of all that sign in later.
func (e *env) register(bases ...string) []string {
	e.t.Helper()
	names := make([]string, len(bases))
	for i, b := range bases {
		names[i] = e.view.Register(b)
	}
	return names
}

// answer is an HTTP answer.
type answer struct{ line }

func (e *env) http(method, path string, headers map[string]string, body any) answer {
	e.t.Helper()
	return answer{e.d.do(e.t, command{Do: "http", Method: method, Path: path, Headers: headers, Body: body})}
}

// is checks an answer to the letter: status 200, JSON, and exactly these keys and values.
func (a answer) is(t *testing.T, what string, want string) {
	t.Helper()
	var got, wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	err := json.Unmarshal([]byte(a.Text), &got)
	if a.Status != http.StatusOK || !strings.HasPrefix(a.Type, "application/json") || err != nil || !sameJSON(got, wanted) {
		t.Errorf("%s was answered with %d %s %s, want 200 and %s", what, a.Status, a.Type, a.Text, want)
	}
}

// sameJSON compares what encoding/json has decoded.
func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// hashing are slots for logins: scenarios side by side are no login storm.
var hashing = make(chan struct{}, 2)

// login gives a token.
func (e *env) login(user, password string) string {
	e.t.Helper()
	hashing <- struct{}{}
	defer func() { <-hashing }()
	a := e.http("POST", "/log_in", nil, map[string]string{"username": user, "password": password})
	var got struct{ Result, Token string }
	if err := json.Unmarshal([]byte(a.Text), &got); err != nil || a.Status != http.StatusOK || got.Result != "success" || got.Token == "" {
		e.t.Fatalf("log in %s: %d %s", user, a.Status, a.Text)
	}
	a.is(e.t, "a login", fmt.Sprintf(`{"result":"success","token":%q}`, got.Token))
	return got.Token
}

// contactsList is the answer of /get_contacts_list.
type contactsList struct {
	Contacts map[string]string `json:"contacts"`
	Online   []string          `json:"currently_online"`
	All      []string          `json:"all_existing_contacts"`
}

func (e *env) contacts(user, jwt string) contactsList {
	e.t.Helper()
	a := e.contactsAnswer(user, jwt)
	var l contactsList
	dec := json.NewDecoder(strings.NewReader(a.Text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil || a.Status != http.StatusOK || l.Contacts == nil || l.Online == nil || l.All == nil {
		e.t.Fatalf("contacts of %s: %d %s", user, a.Status, a.Text)
	}
	return l
}

func (e *env) contactsAnswer(user, jwt string) answer {
	e.t.Helper()
	return e.http("GET", "/get_contacts_list/"+user, map[string]string{"username": user, "jwt": jwt}, nil)
}

// roomOf is the room of two people, as the old clients know it.
func roomOf(a, b string) string {
	names := []string{a, b}
	slices.Sort(names)
	return strings.Join(names, "&")
}

// signIn does what the old desktop client does: log in, fetch the contacts, connect, join every room, and keep telling that it is
// there. It returns when the user is announced.
func (e *env) signIn(user string) *client {
	e.t.Helper()
	return e.signInWith(user, e.login(user, harness.Password))
}

func (e *env) signInWith(user, jwt string) *client {
	e.t.Helper()
	c := e.connect(e.d, user, jwt)
	e.joinAll(c)
	e.keepAlive(c)
	c.online(user)
	return c
}

// connect opens a connection, with the handlers in place.
func (e *env) connect(d *driver, user, jwt string) *client {
	e.t.Helper()
	c := d.client(e.t, user, jwt)
	c.do(command{Do: "connect", Transports: e.way.transports})
	return c
}

func (e *env) keepAlive(c *client) {
	e.t.Helper()
	c.do(command{Do: "alive", Name: c.user, Every: 6})
}

// joinAll joins the room of every contact, without waiting, as the old client does.
func (e *env) joinAll(c *client) {
	e.t.Helper()
	rooms := slices.Sorted(maps.Values(e.contacts(c.user, c.jwt).Contacts))
	for _, room := range rooms {
		c.emit("join", join(room, c.user, c.jwt))
	}
}

func join(room, client, jwt string) map[string]string {
	return map[string]string{"room": room, "client": client, "jwt": jwt}
}

// message is the data of client_sends_message.
func (c *client) data(room, content string) map[string]string {
	return map[string]string{"sender": c.user, "content": content, "conversation_room": room, "jwt": c.jwt}
}

// say sends a message as the old clients do.
func (c *client) say(room, content string) {
	c.t.Helper()
	c.emit("client_sends_message", c.data(room, content))
}

// sure sends a message and waits until it is accepted.
func (c *client) sure(room, content string) {
	c.t.Helper()
	c.accepted(c.ask("client_sends_message", c.data(room, content)))
}

func (c *client) accepted(ack json.RawMessage) (seq int64) {
	c.t.Helper()
	var got struct {
		Result, ID string
		Seq        int64
	}
	if err := json.Unmarshal(ack, &got); err != nil || got.Result != "success" || got.ID == "" || got.Seq == 0 {
		c.t.Fatalf("a message was answered with %s", ack)
	}
	return got.Seq
}

// settle is how long something that must not come is waited for: the repair looks at every message for up to two seconds.
func settle() { time.Sleep(2500 * time.Millisecond) } // nothing to wait for: the proof is that nothing comes

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %d", prefix, i)
	}
	return out
}

// has waits until a room has as many messages as want, then checks that exactly want came.
func (c *client) has(room string, want []string) {
	c.t.Helper()
	if len(want) > 0 {
		c.message(want[len(want)-1])
	}
	testx.Eventually(c.t, fmt.Sprintf("%s has %d messages", c.user, len(want)), harness.Within, func() bool { return len(c.received(room)) >= len(want) })
	c.exactly(room, want)
}

// exactly checks that want came: each once, in order. One that the server marks as late may come behind younger ones.
func (c *client) exactly(room string, want []string) {
	c.t.Helper()
	got := c.received(room)
	last := int64(0)
	for _, m := range got {
		switch {
		case m.Late:
			c.t.Logf("%s: seq %d came late", c.user, m.Seq)
		case m.Seq <= last:
			c.t.Errorf("%s: seq %d comes after %d", c.user, m.Seq, last)
		}
		last = max(last, m.Seq)
	}
	slices.SortStableFunc(got, func(a, b fields) int { return cmp.Compare(a.Seq, b.Seq) })
	texts := make([]string, len(got))
	for i, m := range got {
		texts[i] = m.Content
	}
	if !slices.Equal(texts, want) {
		c.t.Errorf("%s has %d messages in %s: %.40q\nwant %d: %.40q", c.user, len(texts), room, texts, len(want), want)
	}
}

// sees waits until a contacts list has a user as online, or has not.
func (e *env) sees(who *client, user string, online bool) {
	e.t.Helper()
	testx.Eventually(e.t, fmt.Sprintf("%s is online in the contacts of %s: %v", user, who.user, online), harness.Within, func() bool {
		return slices.Contains(e.contacts(who.user, who.jwt).Online, user) == online
	})
}
