package legacy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// TestOldClientsASuspiciousTester has the questions of one who knows the original well and looks for a difference. The server is as it comes, but for
// the times of its presence store, which is slow under the race detector.
func TestOldClientsASuspiciousTester(t *testing.T) {
	base := serve(t, map[string]string{"presence-tick": "1s", "presence-lease": "15s"})
	e := env{base: base, natives: base, view: harness.Outside(t, base), delay: 3 * time.Second}
	run(t, e, []scenario{
		{"silences", silences, true}, // the longest first
		{"one's own name", ownName, true},
		{"a new login while connected", loginAgain, true},
		{"odds and ends", oddsAndEnds, true},
		{"keys of events", keysOfEvents, true},
		{"keys of routes", keysOfRoutes, true},
	}, ways[:1])
}

// useless are values of a key that no old client sends, as JSON.
var useless = []string{`null`, `""`, `0`, `7`, `-1.5`, `true`, `false`, `[]`, `["x"]`, `{}`, `{"x":"y"}`}

// raw posts a body as it stands.
func (e *env) raw(path, media, body string) answer {
	e.t.Helper()
	headers := map[string]string{}
	if media != "" {
		headers["Content-Type"] = media
	}
	return answer{e.d.do(e.t, command{Do: "http", Method: "POST", Path: path, Headers: headers, Raw: body})}
}

// object is a JSON object of these keys, one of them with another value; "" leaves it out.
func object(keys map[string]string, key, value string) string {
	parts := make([]string, 0, len(keys))
	for k, v := range keys {
		text, _ := json.Marshal(v) // a text
		if k == key {
			text = []byte(value)
		}
		if len(text) > 0 {
			parts = append(parts, fmt.Sprintf("%q:%s", k, text))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// keysOfRoutes: each key of each route missing, of no use, of another type, spelt otherwise; bodies that are none.
func keysOfRoutes(e *env) {
	user := e.register("lisa")[0]
	const (
		missing = `{"error":"Invalid Log In request"}`
		wrong   = `{"result":"Invalid credentials"}`
		denied  = `{"error":"Admin access denied"}`
	)
	login := map[string]string{"username": user, "password": harness.Password}
	admin := map[string]string{"username": "Admin", "password": "AdminPassword"}
	kill := map[string]string{"username": "Admin", "password": "AdminPassword", "user_token_terminate": user}
	post := func(path, body, want string) {
		e.t.Helper()
		e.raw(path, "application/json", body).is(e.t, path+" "+fmt.Sprintf("%.60s", body), want)
	}
	for _, key := range []string{"username", "password"} {
		post("/log_in", object(login, key, ""), missing)
		post("/admin/get_info", object(admin, key, ""), denied)
		post("/admin/kill_token", object(kill, key, ""), denied)
		post("/log_in", strings.Replace(object(login, "", ""), key, strings.ToUpper(key), 1), missing)
		for _, v := range append([]string{`"` + strings.Repeat("x", 5000) + `"`, `"` + strings.Repeat("x", 20_000) + `"`, `"\u0000"`, `" "`}, useless...) {
			post("/log_in", object(login, key, v), wrong)
			post("/admin/get_info", object(admin, key, v), denied)
			post("/admin/kill_token", object(kill, key, v), denied)
		}
	}
	for _, body := range []string{"", "null", "[]", `["username","password"]`, `"username password"`, "7", "true", "{", "{}", "username=Lisa&password=TestMe"} {
		post("/log_in", body, missing)
		post("/admin/get_info", body, denied)
		post("/admin/kill_token", body, denied)
	}
	for _, v := range useless {
		var text any
		if json.Unmarshal([]byte(v), &text) != nil {
			e.t.Fatal(v)
		}
		name, isText := text.(string)
		if !isText {
			name = v
		}
		want, _ := json.Marshal(map[string]string{"error": "No JWT for user " + name})
		post("/admin/kill_token", object(kill, "user_token_terminate", v), string(want))
	}
	post("/admin/kill_token", object(kill, "", ""), `{"error":"No JWT for user `+user+`"}`) // registered, never logged in

	// A page of another site cannot make its visitor's browser do any of it, and what pages may send anywhere is no JSON.
	right := object(login, "", "")
	for _, h := range []map[string]string{
		{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://127.0.0.1:1"},
	} {
		for path, body := range map[string]any{"/log_in": login, "/admin/get_info": admin, "/admin/kill_token": kill} {
			if a := e.http("POST", path, h, body); a.Status != 403 || !strings.Contains(a.Text, `"error"`) || strings.Contains(a.Text, "token") {
				e.t.Errorf("%s with %v: %d %s", path, h, a.Status, a.Text)
			}
		}
	}
	for _, media := range []string{"text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		e.raw("/log_in", media, right).is(e.t, "a login as "+media, missing)
		e.raw("/admin/get_info", media, object(admin, "", "")).is(e.t, "get_info as "+media, denied)
		e.raw("/admin/kill_token", media, object(kill, "", "")).is(e.t, "kill_token as "+media, denied)
	}
	if a := e.raw("/log_in", "", right); a.Status != 200 || !strings.Contains(a.Text, `"success"`) {
		e.t.Errorf("a login that names no media type: %d %s", a.Status, a.Text)
	}

	// None of it counts as a wrong password.
	jwt := e.login(user, harness.Password)
	const noHeader = `{"error":"The 'get_contact_list' request headers must contain username and jwt fields"}`
	const noToken = `{"error":"Invalid JWT"}`
	for _, c := range []struct {
		headers map[string]string
		want    string
	}{
		{nil, noHeader},
		{map[string]string{"username": user}, noHeader},
		{map[string]string{"jwt": jwt}, noHeader},
		{map[string]string{"username": user, "jwt": ""}, noToken},
		{map[string]string{"username": user, "jwt": "null"}, noToken},
		{map[string]string{"username": user, "jwt": jwt + "x"}, noToken},
		{map[string]string{"username": user, "jwt": jwt[:len(jwt)-5]}, noToken},
		{map[string]string{"username": "", "jwt": jwt}, noToken},
		{map[string]string{"username": "Avi", "jwt": jwt}, noToken},
	} {
		e.http("GET", "/get_contacts_list/"+user, c.headers, nil).is(e.t, fmt.Sprintf("contacts with %.80v", c.headers), c.want)
	}
	e.http("GET", "/get_contacts_list/Avi", map[string]string{"username": user, "jwt": jwt}, nil).is(e.t, "the path of another", noToken)
	e.contacts(user, jwt)
}

// keysOfEvents: each key of each event missing, of no use, of another type. The connection stays as good as it was, and nobody hears of it.
func keysOfEvents(e *env) {
	names := e.register("lisa", "avi")
	lisa, avi := e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, avi.user)
	ask := func(event, data string) string {
		e.t.Helper()
		var got map[string]any
		ack := lisa.ask(event, json.RawMessage(data))
		if json.Unmarshal(ack, &got) != nil || len(got) != 1 {
			e.t.Fatalf("%s %.60s was answered with %s", event, data, ack)
		}
		text, _ := got["error"].(string)
		return text
	}
	want := func(event, data, want string) {
		e.t.Helper()
		if got := ask(event, data); got != want {
			e.t.Errorf("%s %.60s was answered with %q, want %q", event, data, got, want)
		}
	}
	for event, data := range map[string]map[string]string{
		"join": join(room, lisa.user, lisa.jwt), "client_sends_message": lisa.data(room, "must not arrive"),
		"client_disconnection": {"client": lisa.user, "jwt": lisa.jwt},
	} {
		for _, key := range slices.Sorted(maps.Keys(data)) {
			want(event, object(data, key, ""), "Invalid request, missing required field: "+key)
			for _, v := range useless {
				switch key {
				case "jwt", "client", "sender":
					want(event, object(data, key, v), "Invalid JWT")
				default:
					if ask(event, object(data, key, v)) == "" {
						e.t.Errorf("%s with %s as %s is taken", event, v, key)
					}
				}
			}
		}
		// python-socketio sends null as no data at all.
		for _, data := range []string{`null`, `[]`, `7`, `"x"`} {
			want(event, data, "Invalid request")
		}
	}
	for _, v := range append([]string{""}, useless...) {
		if got := ask("connection_alive", object(map[string]string{"client": ""}, "client", v)); got != "" {
			e.t.Errorf("connection_alive of %s: %s", v, got)
		}
	}

	lisa.sure(room, "still good")
	avi.message("still good")
	avi.sure(room, "mine too")
	lisa.message("mine too")
	settle()
	avi.exactly(room, []string{"still good", "mine too"})
	if got := avi.told(lisa.user); got != "+" && got != "" { // she may have come first
		e.t.Errorf("avi was told %s", got)
	}
	// Each message with a token that was none told the sender so, and nothing else did.
	refused := 0
	for _, ev := range lisa.came() {
		if ev.name == "received_message" && ev.fields().Sender == "Admin" {
			refused++
		}
	}
	if refused != 2*len(useless) || lisa.disconnects() != 0 {
		e.t.Errorf("Admin said %d times that the token is not good, want %d", refused, 2*len(useless))
	}
}

// ownName: whose name is in whose lists, and who hears what, at each step of coming and going.
func ownName(e *env) {
	names := e.register("lisa", "era")
	era := e.signIn(names[1])
	user, told := names[0], ""
	// look compares all three lists, as both see them.
	look := func(when, jwt string, online bool) {
		e.t.Helper()
		views := map[string]contactsList{}
		// While presence cannot be known, as on a machine that is too busy for its store, nobody else is online.
		testx.Eventually(e.t, when+": who is online is in currently_online", harness.Within, func() bool {
			views[era.user] = e.contacts(era.user, era.jwt)
			if jwt != "" {
				views[user] = e.contacts(user, jwt)
			}
			for _, l := range views {
				if !slices.Contains(l.Online, era.user) || online && !slices.Contains(l.Online, user) {
					return false
				}
			}
			return true
		})
		for who, l := range views {
			if !slices.Contains(l.All, user) || !slices.Contains(l.All, era.user) {
				e.t.Errorf("%s: %s has %+v", when, who, l)
			}
			if slices.Contains(l.Online, user) != online {
				e.t.Errorf("%s: %s is online for %s: %v", when, user, who, !online)
			}
			if _, self := l.Contacts[who]; self || len(l.All) != len(l.Contacts)+1 {
				e.t.Errorf("%s: %d rooms for %d names, oneself among them: %v", when, len(l.Contacts), len(l.All), self)
			}
		}
		if got := era.told(user); got != told {
			e.t.Errorf("%s: %s was told %q, want %q", when, era.user, got, told)
		}
	}
	look("before anything", "", false)
	for _, leave := range []struct {
		how  string
		by   func(c *client)
		void bool // the token is
	}{
		{"client_disconnection", func(c *client) { c.emit("client_disconnection", map[string]string{"client": c.user, "jwt": c.jwt}) }, true},
		{"a disconnect", func(c *client) { c.do(command{Do: "disconnect"}) }, false},
		{"kill_token", func(*client) {
			e.http("POST", "/admin/kill_token", nil, map[string]string{"username": "Admin", "password": "AdminPassword", "user_token_terminate": user}).
				is(e.t, "kill_token", `{"result":"success"}`)
		}, true},
	} {
		jwt := e.login(user, harness.Password)
		look("logged in", jwt, false)
		lisa := e.connect(e.d, user, jwt)
		look("connected", jwt, false)
		lisa.emit("join", join(roomOf(user, era.user), user, "nonsense"))
		letter(lisa, "a join", lisa.ask("join", join(roomOf(user, era.user), user, jwt)), `{"result":"success"}`)
		if l := e.contacts(user, jwt); !slices.Contains(l.Online, user) || !slices.Contains(l.All, user) {
			e.t.Errorf("right after the join, before others hear of it, one is online for oneself: %+v", l)
		}
		e.keepAlive(lisa)
		e.joinAll(lisa) // again, and all of them: it is told once
		lisa.online(user)
		era.online(user)
		told += "+"
		look("joined", jwt, true)
		leave.by(lisa)
		era.offline(user)
		told += "-"
		look("after "+leave.how, "", false)
		if leave.void {
			e.contactsAnswer(user, jwt).is(e.t, "contacts after "+leave.how, `{"error":"Invalid JWT"}`)
			jwt = e.login(user, harness.Password)
		}
		look("after "+leave.how+", logged in again", jwt, false)
	}
}

// loginAgain: a new login while connected. Both tokens are good, and the user comes once.
func loginAgain(e *env) {
	names := e.register("lisa", "era")
	era, lisa := e.signIn(names[1]), e.signIn(names[0])
	era.online(lisa.user)
	room := roomOf(lisa.user, era.user)
	old := lisa.jwt
	fresh := e.login(lisa.user, harness.Password)
	lisa.sure(room, "with the old token")
	for _, jwt := range []string{fresh, old, fresh} {
		lisa.jwt = jwt
		letter(lisa, "a join", lisa.ask("join", join(room, lisa.user, jwt)), `{"result":"success"}`)
		lisa.sure(room, "with a token")
		if l := e.contacts(lisa.user, jwt); !slices.Contains(l.Online, lisa.user) {
			e.t.Errorf("one is not online: %+v", l)
		}
	}
	// The same beside it, on a connection of its own.
	second := e.connect(e.d, lisa.user, fresh)
	letter(second, "a join", second.ask("join", join(room, lisa.user, fresh)), `{"result":"success"}`)
	e.keepAlive(second)
	second.online(lisa.user)
	second.sure(room, "beside")
	want := []string{"with the old token", "with a token", "with a token", "with a token", "beside"}
	era.has(room, want)
	lisa.has(room, want)
	second.do(command{Do: "disconnect"})
	lisa.sure(room, "still here")
	era.message("still here")
	settle()
	if got := era.told(lisa.user); got != "+" {
		e.t.Errorf("%s was told %s", era.user, got)
	}
	lisa.emit("client_disconnection", map[string]string{"client": lisa.user, "jwt": lisa.jwt})
	era.offline(lisa.user)
	lisa.refused(lisa.user, fresh, room)
}

// oddsAndEnds are questions that came up last.
func oddsAndEnds(e *env) {
	names := e.register("lisa", "avi")
	lisa, avi := e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, avi.user)

	// Keys that nobody knows do no harm, in a route and in each event; keys spelt otherwise are other keys.
	a := e.http("POST", "/log_in", nil, map[string]any{"username": lisa.user, "password": harness.Password, "x": nil, "Username": "Avi", "PASSWORD": 5})
	if a.Status != 200 || !strings.Contains(a.Text, `"success"`) {
		e.t.Errorf("a login with more keys: %s", a.Text)
	}
	more := func(m map[string]string) map[string]any {
		out := map[string]any{"x": nil, "Room": 5, "CLIENT": "Avi", "Content": []string{"x"}, "timestamp": "now"}
		for k, v := range m {
			out[k] = v
		}
		return out
	}
	letter(lisa, "a join with more keys", lisa.ask("join", more(join(room, lisa.user, lisa.jwt))), `{"result":"success"}`)
	lisa.accepted(lisa.ask("client_sends_message", more(lisa.data(room, "with more keys"))))
	letter(lisa, "connection_alive with more keys", lisa.ask("connection_alive", more(map[string]string{"client": lisa.user})), `{"result":"success"}`)
	for _, key := range []string{"Room", "ROOM"} {
		data := join(room, lisa.user, lisa.jwt)
		delete(data, "room")
		data[key] = room
		letter(lisa, "a join with "+key, lisa.ask("join", data), `{"error":"Invalid request, missing required field: room"}`)
	}
	// Names of headers are spelt as one likes.
	if a := e.http("GET", "/get_contacts_list/"+lisa.user, map[string]string{"USERNAME": lisa.user, "Jwt": lisa.jwt}, nil); !strings.Contains(a.Text, `"contacts"`) {
		e.t.Errorf("headers spelt otherwise: %s", a.Text)
	}

	// Who registers later is in the lists at once, and gets what is said before he has ever come.
	late := e.register("late")[0]
	if l := e.contacts(lisa.user, lisa.jwt); !slices.Contains(l.All, late) || l.Contacts[late] != roomOf(lisa.user, late) || slices.Contains(l.Online, late) {
		e.t.Errorf("one who has just registered: %+v", l)
	}
	lisa.sure(roomOf(lisa.user, late), "welcome")
	newcomer := e.signIn(late)
	newcomer.message("welcome")

	// A message from a connection that has joined nothing is a message.
	jwt := e.login(avi.user, harness.Password)
	other := e.connect(e.d, avi.user, jwt)
	other.sure(room, "without a join")
	lisa.message("without a join")
	other.do(command{Do: "disconnect"})

	// A token outlives a disconnect of the library, and goes with the good-bye of this protocol.
	again := e.connect(e.d, avi.user, jwt)
	letter(again, "a join after a disconnect", again.ask("join", join(room, avi.user, jwt)), `{"result":"success"}`)
	letter(again, "a good-bye", again.ask("client_disconnection", map[string]string{"client": avi.user, "jwt": jwt}), `{"result":"success"}`)
	letter(again, "a second one", again.ask("client_disconnection", map[string]string{"client": avi.user, "jwt": jwt}), `{"error":"Invalid JWT"}`)
	again.refused(avi.user, jwt, room)
	avi.sure(room, "the other login is not concerned")
	lisa.message("the other login is not concerned")
}

// silences: who says nothing is kept for 18 s from the join or the last connection_alive, whatever else is said, and not for longer. All wait at the
// same time.
func silences(e *env) {
	names := e.register("watcher", "faithful", "twice", "silent", "chatty", "once", "mistaken", "again", "back")
	watcher, faithful := e.signIn(names[0]), e.signIn(names[1])
	since := map[string]time.Time{} // before the last sign of life of each
	come := func(user, jwt string) *client {
		e.t.Helper()
		c := e.connect(e.d, user, jwt)
		since[user] = time.Now()
		letter(c, "a join", c.ask("join", join(roomOf(user, watcher.user), user, jwt)), `{"result":"success"}`)
		return c
	}
	// Tokens first: who has joined has only so much time.
	tokens, second := map[string]string{}, e.login(names[7], harness.Password)
	for _, user := range names[2:] {
		tokens[user] = e.login(user, harness.Password)
	}
	// Two connections with one token, of which one is silent, as one is that is dead: the user is not silent.
	twice := []*client{come(names[2], tokens[names[2]]), come(names[2], tokens[names[2]])}
	e.keepAlive(twice[0])
	var clients []*client
	for _, user := range names[3:] {
		clients = append(clients, come(user, tokens[user]))
	}
	chatty, once, mistaken, again, back := clients[1], clients[2], clients[3], clients[4], clients[5]
	for _, c := range clients {
		watcher.online(c.user)
	}

	// What is no sign of life: messages, another join with the same token, connection_alive of somebody else.
	chatty.sure(roomOf(chatty.user, watcher.user), "I am here")
	letter(chatty, "a join", chatty.ask("join", join(roomOf(chatty.user, faithful.user), chatty.user, chatty.jwt)), `{"result":"success"}`)
	letter(mistaken, "connection_alive", mistaken.ask("connection_alive", map[string]string{"client": faithful.user}), `{"result":"success"}`)
	// What is one: connection_alive, and the join of a new login, while connected or after a good-bye.
	since[once.user] = time.Now()
	letter(once, "connection_alive", once.ask("connection_alive", map[string]string{"client": once.user}), `{"result":"success"}`)
	again.jwt = second
	since[again.user] = time.Now()
	letter(again, "a join", again.ask("join", join(roomOf(again.user, watcher.user), again.user, again.jwt)), `{"result":"success"}`)
	back.emit("client_disconnection", map[string]string{"client": back.user, "jwt": back.jwt})
	watcher.offline(back.user)
	back.jwt = e.login(back.user, harness.Password)
	since[back.user] = time.Now()
	letter(back, "a join", back.ask("join", join(roomOf(back.user, watcher.user), back.user, back.jwt)), `{"result":"success"}`)
	watcher.online(back.user)

	for _, c := range clients {
		gone := watcher.expectIn(aliveBound, "announcement that "+c.user+" is gone", func(ev event) bool {
			return ev.name == "user_has_gone_offline" && ev.fields().Username == c.user
		})
		after := gone.at.Sub(since[c.user])
		if after < alive-10*time.Millisecond || after > aliveBound {
			e.t.Errorf("%s was taken for gone %s after the last sign of life", c.user, after)
		}
		e.t.Logf("%s: kept for %s", c.user, after)
		c.refused(c.user, c.jwt, roomOf(c.user, watcher.user))
		letter(c, "a join", c.ask("join", join(roomOf(c.user, watcher.user), c.user, c.jwt)), `{"error":"Invalid JWT"}`)
		e.contactsAnswer(c.user, c.jwt).is(e.t, "contacts after a silence", `{"error":"Invalid JWT"}`)
		if n := c.disconnects(); n != 0 {
			e.t.Errorf("the connection of %s was closed", c.user)
		}
		if l := e.contacts(watcher.user, watcher.jwt); slices.Contains(l.Online, c.user) || !slices.Contains(l.All, c.user) {
			e.t.Errorf("%s in the watcher's lists: %+v", c.user, l)
		}
	}
	if got := watcher.told(names[2]); got != "+" {
		e.t.Errorf("the watcher was told %s of one with two connections", got)
	}
	for _, c := range twice {
		c.sure(roomOf(c.user, watcher.user), "still here")
		watcher.message("still here")
	}
	if got := watcher.told(faithful.user); got != "+" && got != "" {
		e.t.Errorf("the watcher was told %s of one who said connection_alive", got)
	}
	e.sees(watcher, faithful.user, true)
}
