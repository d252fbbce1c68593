package legacy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// adminText is what a sender reads whose token is not good.
func adminText(sender string) string {
	return fmt.Sprintf("Error! User '%s' must disconnect, re login and reconnect so the conversation can be resumed.", sender)
}

// refused sends a message with a token that is not good, without and with an ack, and waits for what the sender is told.
func (c *client) refused(sender, jwt, room string) {
	c.t.Helper()
	data := map[string]string{"sender": sender, "content": "must not arrive", "conversation_room": room, "jwt": jwt}
	c.emit("client_sends_message", data)
	ack := c.ask("client_sends_message", data)
	want := fmt.Sprintf(`{"sender":"Admin","content":%q}`, adminText(sender))
	for range 2 {
		e := c.expect("word of Admin", func(e event) bool { return e.name == "received_message" && e.fields().Sender == "Admin" })
		letter(c, "a message with a token that is not good", e.data, want)
	}
	letter(c, "the same with an ack", ack, `{"error":"Invalid JWT"}`)
}

// letter compares JSON that the server gave with what the protocol says.
func letter(c *client, what string, got json.RawMessage, want string) {
	c.t.Helper()
	var g, w any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !sameJSON(g, w) {
		c.t.Errorf("%s was answered with %s, want %s", what, got, want)
	}
}

// without is m without one key.
func without(m map[string]string, key string) map[string]string {
	out := maps.Clone(m)
	delete(out, key)
	return out
}

// tokens that open nothing, in every event and route that takes one; the connection stays as good as it was.
func tokens(e *env) {
	names := e.register("lisa", "avi")
	lisa, avi := e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, avi.user)
	signature := strings.LastIndexByte(lisa.jwt, '.')
	for what, jwt := range map[string]string{
		"blank": "", "nonsense": "nonsense", "space": " ", "cut": lisa.jwt[:signature], "of another": avi.jwt,
		"another's signature": lisa.jwt[:signature] + avi.jwt[strings.LastIndexByte(avi.jwt, '.'):],
	} {
		lisa.refused(lisa.user, jwt, room)
		letter(lisa, "a join, token "+what, lisa.ask("join", join(room, lisa.user, jwt)), `{"error":"Invalid JWT"}`)
		e.contactsAnswer(lisa.user, strings.TrimSpace(jwt)).is(e.t, "contacts, token "+what, `{"error":"Invalid JWT"}`)
	}
	// One's own token says nothing of others.
	lisa.refused(avi.user, lisa.jwt, room)
	e.contactsAnswer(avi.user, lisa.jwt).is(e.t, "contacts of another", `{"error":"Invalid JWT"}`)
	e.http("GET", "/get_contacts_list/"+avi.user, map[string]string{"username": lisa.user, "jwt": lisa.jwt}, nil).
		is(e.t, "the path of another", `{"error":"Invalid JWT"}`)
	letter(lisa, "joining as another", lisa.ask("join", join(room, avi.user, lisa.jwt)), `{"error":"Invalid JWT"}`)
	lisa.emit("client_disconnection", map[string]string{"client": avi.user, "jwt": lisa.jwt})
	lisa.emit("client_disconnection", map[string]string{"client": avi.user, "jwt": "nonsense"})

	// Fields that are missing are named, in this order.
	full := join(room, lisa.user, lisa.jwt)
	for _, f := range []string{"room", "client", "jwt"} {
		letter(lisa, "a join without "+f, lisa.ask("join", without(full, f)), fmt.Sprintf(`{"error":"Invalid request, missing required field: %s"}`, f))
	}
	letter(lisa, "an empty join", lisa.ask("join", map[string]string{}), `{"error":"Invalid request, missing required field: room"}`)
	letter(lisa, "a join with a token", lisa.ask("join", map[string]string{"jwt": "nonsense", "room": room}), `{"error":"Invalid request, missing required field: client"}`)
	letter(lisa, "a good join", lisa.ask("join", full), `{"result":"success"}`)
	for _, f := range []string{"sender", "content", "conversation_room", "jwt"} {
		lisa.emit("client_sends_message", without(lisa.data(room, "must not arrive"), f))
	}

	lisa.sure(room, "still good")
	avi.sure(room, "mine too")
	want := []string{"still good", "mine too"}
	avi.has(room, want)
	lisa.has(room, want)
	settle()
	avi.exactly(room, want)
	if n := avi.count("received_message"); n != 2 {
		e.t.Errorf("avi got %d messages, want 2", n)
	}
	if n := lisa.count("received_message"); n != 2+7*2 {
		e.t.Errorf("lisa got %d messages, of which 2 are real", n)
	}
}

// signingOut ends the token, at once and everywhere; logging in again works, on the same connection and on a new one.
func signingOut(e *env) {
	names := e.register("lisa", "avi")
	avi, lisa := e.signIn(names[1]), e.signIn(names[0])
	avi.online(lisa.user)
	room := roomOf(lisa.user, avi.user)
	old := lisa.jwt
	lisa.emit("client_disconnection", map[string]string{"client": lisa.user, "jwt": lisa.jwt})
	avi.offline(lisa.user)
	lisa.refused(lisa.user, old, room)
	letter(lisa, "a join after signing out", lisa.ask("join", join(room, lisa.user, old)), `{"error":"Invalid JWT"}`)
	e.contactsAnswer(lisa.user, old).is(e.t, "contacts after signing out", `{"error":"Invalid JWT"}`)
	avi.sure(room, "are you there?")

	// Another connection does not make the token better.
	other := e.connect(e.d, lisa.user, old)
	other.refused(lisa.user, old, room)
	letter(other, "a join on another connection", other.ask("join", join(room, lisa.user, old)), `{"error":"Invalid JWT"}`)
	other.do(command{Do: "disconnect"})

	// On the connection that is still open.
	lisa.jwt = e.login(lisa.user, harness.Password)
	e.joinAll(lisa)
	avi.online(lisa.user)
	lisa.has(room, []string{"are you there?"})
	lisa.sure(room, "yes")
	avi.has(room, []string{"are you there?", "yes"})
	lisa.emit("client_disconnection", map[string]string{"client": lisa.user, "jwt": lisa.jwt})
	avi.offline(lisa.user)
	lisa.do(command{Do: "disconnect"})

	// On a new one.
	again := e.signIn(names[0])
	avi.online(again.user)
	again.sure(room, "and again")
	avi.message("and again")
	avi.exactly(room, []string{"are you there?", "yes", "and again"})
	if got := avi.told(again.user); got != "+-+-+" {
		e.t.Errorf("avi was told %s", got)
	}
}

// routes: the answers of the HTTP routes, to the letter.
func routes(e *env) {
	e.http("POST", "/log_in", nil, map[string]string{"username": "Lisa", "password": "TestMe "}).is(e.t, "a wrong password", `{"result":"Invalid credentials"}`)
	e.http("POST", "/log_in", nil, map[string]string{"username": "nobody", "password": "TestMe"}).is(e.t, "an unknown user", `{"result":"Invalid credentials"}`)
	e.http("POST", "/log_in", nil, map[string]string{"username": "", "password": ""}).is(e.t, "empty fields", `{"result":"Invalid credentials"}`)
	for what, body := range map[string]any{
		"no password": map[string]string{"username": "Lisa"}, "no user": map[string]string{"password": "TestMe"}, "nothing": map[string]string{},
		"a list": []string{}, "no body": nil,
	} {
		e.http("POST", "/log_in", nil, body).is(e.t, what, `{"error":"Invalid Log In request"}`)
	}
	for name, password := range map[string]string{"Lisa": "TestMe", "Avi": "MoreMoreMore", "Era": "Come on", "Tsahi": "Virtual Environment", "Admin": "AdminPassword"} {
		e.login(name, password)
	}

	// Lisa's contacts: each other user with the room, names as they were registered.
	jwt := e.login("Lisa", "TestMe")
	list := e.contacts("Lisa", jwt)
	for name, room := range map[string]string{
		"Avi": "Avi&Lisa", "Era": "Era&Lisa", "Tsahi": "Lisa&Tsahi", "Admin": "Admin&Lisa", "Leonid": "Leonid&Lisa",
	} {
		if list.Contacts[name] != room || !slices.Contains(list.All, name) {
			e.t.Errorf("%s is not in the list as %s: %+v", name, room, list)
		}
	}
	if _, self := list.Contacts["Lisa"]; self || len(list.Contacts) < 5 {
		e.t.Errorf("Lisa's contacts are %+v", list.Contacts)
	}
	const headers = `{"error":"The 'get_contact_list' request headers must contain username and jwt fields"}`
	for what, h := range map[string]map[string]string{"no headers": nil, "no token": {"username": "Lisa"}, "no user": {"jwt": jwt}} {
		e.http("GET", "/get_contacts_list/Lisa", h, nil).is(e.t, "contacts, "+what, headers)
	}
	e.contactsAnswer("Lisa", "").is(e.t, "a blank token", `{"error":"Invalid JWT"}`)
	e.contactsAnswer("Lisa", "nonsense").is(e.t, "a wrong token", `{"error":"Invalid JWT"}`)

	// A peer who is online is in currently_online, one who is not is not.
	names := e.register("lisa", "avi")
	lisa := e.signIn(names[0])
	avi := &client{user: names[1], jwt: e.login(names[1], harness.Password)}
	e.sees(avi, lisa.user, true)
	list = e.contacts(avi.user, avi.jwt)
	if slices.Contains(list.Online, avi.user) || list.Contacts[lisa.user] != roomOf(lisa.user, avi.user) {
		e.t.Errorf("avi's contacts while lisa is online: %+v", list)
	}
	e.sees(lisa, avi.user, false)
}

// administrators may list who is online and end somebody's tokens; nobody else may.
func administrators(e *env) {
	names := e.register("lisa", "avi")
	lisa, avi := e.signIn(names[0]), e.signIn(names[1])
	room := roomOf(lisa.user, avi.user)
	avi.sure(room, "hello")
	lisa.message("hello")
	admin := map[string]string{"username": "Admin", "password": "AdminPassword"}
	with := func(m map[string]string, user string) map[string]string {
		out := maps.Clone(m)
		out["user_token_terminate"] = user
		return out
	}

	const denied = `{"error":"Admin access denied"}`
	for what, c := range map[string]map[string]string{
		"an ordinary user": {"username": avi.user, "password": harness.Password}, "a wrong password": {"username": avi.user, "password": "AdminPassword"},
		"nobody": {"username": "nobody-else", "password": "AdminPassword"}, "nothing": {}, "a bot": {"username": "Leonid", "password": ""},
		"no password": {"username": "Admin"}, "an ordinary demo user": {"username": "Lisa", "password": "TestMe"},
	} {
		e.http("POST", "/admin/get_info", nil, c).is(e.t, "get_info of "+what, denied)
		e.http("POST", "/admin/kill_token", nil, with(c, lisa.user)).is(e.t, "kill_token of "+what, denied)
	}

	online := func() []string {
		info := e.http("POST", "/admin/get_info", nil, admin)
		var got map[string][]string
		if err := json.Unmarshal([]byte(info.Text), &got); err != nil || info.Status != http.StatusOK || len(got) != 1 || got["online_clients_list"] == nil {
			e.t.Fatalf("get_info answers %d %s", info.Status, info.Text)
		}
		return got["online_clients_list"]
	}
	testx.Eventually(e.t, "both are in get_info", harness.Within, func() bool {
		list := online()
		return slices.Contains(list, lisa.user) && slices.Contains(list, avi.user)
	})

	e.http("POST", "/admin/kill_token", nil, with(admin, lisa.user)).is(e.t, "kill_token", `{"result":"success"}`)
	avi.offline(lisa.user)
	lisa.refused(lisa.user, lisa.jwt, room)
	letter(lisa, "a join after kill_token", lisa.ask("join", join(room, lisa.user, lisa.jwt)), `{"error":"Invalid JWT"}`)
	e.contactsAnswer(lisa.user, lisa.jwt).is(e.t, "contacts after kill_token", `{"error":"Invalid JWT"}`)
	e.http("POST", "/admin/kill_token", nil, with(admin, lisa.user)).is(e.t, "kill_token again", fmt.Sprintf(`{"error":"No JWT for user %s"}`, lisa.user))
	e.http("POST", "/admin/kill_token", nil, with(admin, "nobody-of-this-name")).is(e.t, "kill_token of nobody", `{"error":"No JWT for user nobody-of-this-name"}`)

	if list := online(); slices.Contains(list, lisa.user) || !slices.Contains(list, avi.user) {
		e.t.Errorf("after kill_token, get_info has %q", list)
	}
	avi.sure(room, "avi is not concerned")
	again := e.signIn(names[0])
	again.message("avi is not concerned")
	again.sure(room, "back")
	avi.message("back")
}
