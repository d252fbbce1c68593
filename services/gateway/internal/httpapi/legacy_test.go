package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/gateway/apidocs"
	"parley.example/services/gateway/internal/legacy"
)

// TestLegacyAnswers has every answer that the old clients know, and those beyond, to the letter; each is held against the document, too.
func TestLegacyAnswers(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	const (
		cred    = `{"username":"Lisa","password":"p"}`
		admin   = `{"username":"Admin","password":"p"}`
		kill    = `{"username":"Admin","password":"p","user_token_terminate":"Avi"}`
		invalid = `{"error":"Invalid Log In request"}`
		jwt     = `{"error":"Invalid JWT"}`
		headers = `{"error":"The 'get_contact_list' request headers must contain username and jwt fields"}`
		denied  = `{"error":"Admin access denied"}`
		slower  = `{"result":"slower","error":"slower"}`
		away    = `{"result":"cannot be reached now; try again","error":"cannot be reached now; try again"}`
		list    = `{"contacts":{"Avi":"Avi&Lisa","Zoë":"Lisa&Zoë"},"currently_online":["Avi"],"all_existing_contacts":["Avi","Lisa","Zoë"]}`
		wrong   = `{"result":"Invalid credentials"}`
		in      = `{"result":"success","token":"a.b.c"}`
		foreign = `{"result":"pages of this origin may not use this server","error":"pages of this origin may not use this server"}`
		login   = "POST /log_in"
		contact = "GET /get_contacts_list/{username}"
		info    = "POST /admin/get_info"
		end     = "POST /admin/kill_token"
	)
	fail := func(method string, err error) func(*world) { return func(w *world) { w.fail[method] = err } }
	unavailable := wire.E(wire.Unavailable, "cannot be reached now; try again")
	limited := &wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1200}
	lisa := []string{"username: Lisa", "jwt: Lisa/seed"}
	const at = "/get_contacts_list/Lisa"
	for i, c := range []struct {
		route, target, body string
		headers             []string
		change              func(*world)
		status              int
		want                string // the body; "" where it is a problem
	}{
		{login, "", cred, nil, nil, 200, `{"result":"success","token":"a.b.c"}`},
		{login, "", cred, []string{"Content-Type: application/json; charset=utf-8"}, nil, 200, in},
		{login, "", cred, []string{"Content-Type: application/vnd.x+json"}, nil, 200, in},
		{login, "", cred, []string{"Content-Type: "}, nil, 200, in}, // nothing is said
		// What any page may send to any site.
		{login, "", cred, []string{"Content-Type: text/plain"}, nil, 200, invalid},
		{login, "", cred, []string{"Content-Type: text/plain; charset=application/json"}, nil, 200, invalid},
		{login, "", cred, []string{"Content-Type: application/x-www-form-urlencoded"}, nil, 200, invalid},
		{login, "", cred, []string{"Content-Type: multipart/form-data; boundary=x"}, nil, 200, invalid},
		{login, "", cred, []string{"Content-Type: ;application/json"}, nil, 200, invalid},
		{info, "", admin, []string{"Content-Type: text/plain"}, nil, 200, denied},
		{end, "", kill, []string{"Content-Type: text/plain"}, func(w *world) { w.ended = 2 }, 200, denied},
		// A page of another site, and a browser that names no origin.
		{login, "", cred, []string{"Origin: https://evil.example"}, nil, 403, foreign},
		{login, "", cred, []string{"Origin: null"}, nil, 403, foreign},
		{login, "", cred, []string{"Sec-Fetch-Site: cross-site"}, nil, 403, foreign},
		{login, "", cred, []string{"Sec-Fetch-Site: same-site"}, nil, 403, foreign},
		{contact, at, "", append([]string{"Origin: https://evil.example"}, lisa...), nil, 403, foreign},
		{info, "", admin, []string{"Origin: https://evil.example"}, nil, 403, foreign},
		{end, "", kill, []string{"Origin: https://evil.example"}, func(w *world) { w.ended = 2 }, 403, foreign},
		{end, "", kill, []string{"Sec-Fetch-Site: cross-site"}, func(w *world) { w.ended = 2 }, 403, foreign},
		// The server's own pages, an allowed origin, and a person's own hand.
		{login, "", cred, []string{"Origin: http://example.com", "Sec-Fetch-Site: same-origin"}, nil, 200, in},
		{login, "", cred, []string{"Origin: https://chat.example", "Sec-Fetch-Site: cross-site"}, nil, 200, in},
		{login, "", cred, []string{"Sec-Fetch-Site: none"}, nil, 200, in},
		{login, "", cred, nil, fail("login", wire.E(wire.Unauthenticated, "no")), 200, `{"result":"Invalid credentials"}`},
		{login, "", cred, nil, fail("login", wire.E(wire.Forbidden, "disabled")), 200, `{"result":"Invalid credentials"}`},
		{login, "", `{"username":"Lisa"}`, nil, nil, 200, invalid},
		{login, "", `{"password":"p"}`, nil, nil, 200, invalid},
		{login, "", `{"Username":"Lisa","password":"p"}`, nil, nil, 200, invalid}, // another key
		{login, "", `{"username":1,"password":"p"}`, nil, nil, 200, wrong},
		{login, "", `{"username":null,"password":"p"}`, nil, nil, 200, wrong},
		{login, "", `{"username":"","password":"p"}`, nil, nil, 200, wrong},
		{login, "", `{"username":["Lisa"],"password":"p"}`, nil, nil, 200, wrong},
		{login, "", `{"username":"Lisa","password":null}`, nil, nil, 200, wrong},
		{login, "", `{"username":"Lisa","password":""}`, nil, nil, 200, wrong},
		{login, "", `{"username":"Lisa","password":{"p":"p"}}`, nil, nil, 200, wrong},
		{login, "", `{"username":"Lisa","password":true}`, nil, nil, 200, wrong},
		{login, "", `null`, nil, nil, 200, invalid},
		{login, "", `["username","password"]`, nil, nil, 200, invalid},
		{login, "", "", nil, nil, 200, invalid},
		{login, "", `{"username":"` + strings.Repeat("a", maxBody) + `","password":"p"}`, nil, nil, 200, wrong},
		{login, "", cred, nil, fail("login", limited), 429, slower},
		{login, "", cred, nil, fail("login", unavailable), 503, away},
		{login, "", cred, nil, fail("login", http.ErrBodyNotAllowed), 500, ""},

		{contact, at, "", lisa, nil, 200, list},
		{contact, "/get_contacts_list/LISA", "", []string{"username: lisa", "jwt: Lisa/seed"}, nil, 200, list},
		{contact, at, "", []string{"username: Lisa", "jwt: Lisa"}, nil, 200, list}, // a native token
		{contact, at, "", []string{"username: Lisa", "jwt: Lisa/admin"}, nil, 200, jwt},
		{contact, at, "", []string{"username: Avi", "jwt: Lisa/seed"}, nil, 200, jwt},
		{contact, "/get_contacts_list/Avi", "", lisa, nil, 200, jwt},
		{contact, at, "", lisa, fail("verify", wire.E(wire.Unauthenticated, "revoked")), 200, jwt},
		{contact, at, "", lisa, fail("verify", token.ErrInvalid), 200, jwt},
		{contact, at, "", []string{"username: Lisa"}, nil, 200, headers},
		{contact, at, "", []string{"jwt: Lisa/seed"}, nil, 200, headers},
		{contact, at, "", lisa, func(w *world) { w.unknown = true }, 200, strings.Replace(list, `["Avi"]`, `[]`, 1)},
		{contact, at, "", lisa, func(w *world) { w.unknown, w.joined = true, "Lisa" }, 200, strings.Replace(list, `["Avi"]`, `["Lisa"]`, 1)},
		{contact, at, "", lisa, func(w *world) { w.unknown, w.online["Lisa"] = true, true }, 200, strings.Replace(list, `["Avi"]`, `["Lisa"]`, 1)},
		{contact, at, "", lisa, func(w *world) { w.contacts = api.ContactsPage{Usernames: []string{"Lisa"}} }, 200,
			`{"contacts":{},"currently_online":[],"all_existing_contacts":["Lisa"]}`},
		{contact, at, "", lisa, func(w *world) { w.joined = "Lisa" }, 200, strings.Replace(list, `["Avi"]`, `["Avi","Lisa"]`, 1)},
		{contact, at, "", lisa, func(w *world) { w.online["Lisa"] = true }, 200, strings.Replace(list, `["Avi"]`, `["Avi","Lisa"]`, 1)},
		{contact, at, "", lisa, func(w *world) { w.joined = "Avi" }, 200, list},
		{contact, "/get_contacts_list/Zo%C3%AB", "", []string{"username: Zoë", "jwt: Zoë/seed"}, nil, 200,
			`{"contacts":{"Avi":"Avi&Zoë","Lisa":"Lisa&Zoë"},"currently_online":["Avi"],"all_existing_contacts":["Avi","Lisa","Zoë"]}`},
		{contact, "/get_contacts_list/Zo%C3%AB", "", []string{"username: Zo\xeb", "jwt: Zoë/seed"}, nil, 200, // Latin-1, as Python has it
			`{"contacts":{"Avi":"Avi&Zoë","Lisa":"Lisa&Zoë"},"currently_online":["Avi"],"all_existing_contacts":["Avi","Lisa","Zoë"]}`},
		{contact, "/get_contacts_list/%D7%90%D7%91%D7%99", "", []string{"username: אבי", "jwt: אבי/seed"}, nil, 200,
			`{"contacts":{"Avi":"Avi&אבי","Lisa":"Lisa&אבי","Zoë":"Zoë&אבי"},"currently_online":["Avi"],"all_existing_contacts":["Avi","Lisa","Zoë","אבי"]}`},
		{contact, at, "", lisa, fail("contacts", wire.E(wire.UnknownUser, "erased")), 404, `{"result":"erased","error":"erased"}`},
		{contact, at, "", lisa, fail("verify", unavailable), 503, away},
		{contact, at, "", lisa, fail("contacts", unavailable), 503, away},
		{contact, at, "", lisa, fail("contacts", http.ErrBodyNotAllowed), 500, ""},

		{info, "", admin, nil, nil, 200, `{"online_clients_list":["Avi"]}`},
		{info, "", admin, nil, func(w *world) { w.online = nil }, 200, `{"online_clients_list":[]}`},
		{info, "", cred, nil, nil, 200, denied},
		{info, "", admin, nil, fail("check", wire.E(wire.Unauthenticated, "no")), 200, denied},
		{info, "", `{"username":"Admin"}`, nil, nil, 200, denied},
		{info, "", admin, nil, fail("check", limited), 429, slower},
		{info, "", admin, nil, fail("check", http.ErrBodyNotAllowed), 500, ""},
		{info, "", admin, nil, func(w *world) { w.unknown = true }, 503,
			`{"result":"it cannot be known now who is online","error":"it cannot be known now who is online"}`},

		{end, "", kill, nil, func(w *world) { w.ended = 2 }, 200, `{"result":"success"}`},
		{end, "", kill, nil, nil, 200, `{"error":"No JWT for user Avi"}`},
		{end, "", kill, nil, fail("end_logins", wire.E(wire.UnknownUser, "nobody")), 200, `{"error":"No JWT for user Avi"}`},
		{end, "", strings.Replace(kill, `Admin`, `Lisa`, 1), nil, nil, 200, denied},
		{end, "", admin, nil, nil, 200, `{"error":"Invalid request, missing required field: user_token_terminate"}`},
		{end, "", strings.Replace(kill, `"Avi"`, `null`, 1), nil, func(w *world) { w.ended = 2 }, 200, `{"error":"No JWT for user null"}`},
		{end, "", strings.Replace(kill, `"Avi"`, `7`, 1), nil, func(w *world) { w.ended = 2 }, 200, `{"error":"No JWT for user 7"}`},
		{end, "", strings.Replace(kill, `"Avi"`, `""`, 1), nil, func(w *world) { w.ended = 2 }, 200, `{"error":"No JWT for user "}`},
		{end, "", strings.Replace(kill, `"p"`, `null`, 1), nil, func(w *world) { w.ended = 2 }, 200, denied},
		{info, "", strings.Replace(admin, `"Admin"`, `["Admin"]`, 1), nil, nil, 200, denied},
		{end, "", kill, nil, fail("check", limited), 429, slower},
		{end, "", kill, nil, fail("end_logins", http.ErrBodyNotAllowed), 500, ""},
		{end, "", kill, nil, fail("end_logins", unavailable), 503, away},
	} {
		t.Run(strconv.Itoa(i)+" "+c.route, func(t *testing.T) {
			w := newWorld()
			w.contacts = api.ContactsPage{Usernames: []string{"Avi", "Lisa", "Zoë"}}
			w.online["Avi"] = true
			if c.change != nil {
				c.change(w)
			}
			path, method := operation(c.route)
			if c.target == "" {
				c.target = path
			}
			cfg := testConfig()
			cfg.AllowedOrigins = []string{"https://chat.example"}
			r := ask(w.handler(t, cfg), strings.ToUpper(method), c.target, "", c.body, c.headers...)
			if got := strings.TrimSpace(string(r.body)); r.StatusCode != c.status || c.want != "" && got != c.want {
				t.Fatalf("status %d: %s\nwant %d: %s", r.StatusCode, got, c.status, c.want)
			}
			if c.status == 429 && r.Header.Get("Retry-After") != "2" {
				t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
			}
			d.answers(t, path, method, r)
		})
	}
}

// TestLegacyAsks looks at what the services are asked.
func TestLegacyAsks(t *testing.T) {
	w := newWorld()
	w.contacts = api.ContactsPage{Usernames: []string{"Avi", "Lisa"}}
	w.online["Avi"] = true
	h := w.handler(t, testConfig())
	ask(h, "POST", "/log_in", "", `{"username":"Lisa","password":"p"}`)
	ask(h, "POST", "/admin/get_info", "", `{"username":"Admin","password":"q"}`)
	ask(h, "GET", "/get_contacts_list/lisa", "", "", "username: LISA", "jwt: Lisa/seed")
	if got := w.credentials[0]; got != (api.Credentials{Username: "Lisa", Password: "p", Address: "192.0.2.1", Scope: token.ScopeLegacy}) {
		t.Errorf("a login asked %+v", got)
	}
	if got := w.credentials[1]; got != (api.Credentials{Username: "Admin", Password: "q", Address: "192.0.2.1"}) {
		t.Errorf("an administrator's request asked %+v", got)
	}
	if len(w.served) != 1 || w.served[0] != "Lisa: Avi" {
		t.Errorf("lists served: %q", w.served)
	}
}

// TestLegacyContactsAreCapped: where there are too many, nobody who registers names in front of all others pushes off those whom one talks with, who
// are online, or the bots. Oneself takes no place.
func TestLegacyContactsAreCapped(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	names := func(prefix string, from, to int) (out []string) {
		for i := from; i < to; i++ {
			out = append(out, fmt.Sprintf("%s%04d", prefix, i))
		}
		return out
	}
	list := func(t *testing.T, w *world) legacy.ContactsList {
		t.Helper()
		r := ask(w.handler(t, testConfig()), "GET", "/get_contacts_list/Lisa", "", "", "username: Lisa", "jwt: Lisa/seed")
		d.answers(t, "/get_contacts_list/{username}", "get", r)
		var got legacy.ContactsList
		if err := json.Unmarshal(r.body, &got); err != nil {
			t.Fatal(err)
		}
		if _, self := got.Contacts["Lisa"]; self || !slices.Contains(got.All, "Lisa") || len(got.All) != len(got.Contacts)+1 {
			t.Errorf("%d contacts, %d names", len(got.Contacts), len(got.All))
		}
		return got
	}
	squatters := names("0000-", 0, 1000)
	w := newWorld()
	w.bots = []string{"Leonid"}
	w.contacts = api.ContactsPage{Usernames: squatters, Next: "more"}
	for _, peer := range names("peer-", 0, 300) {
		w.convs.Conversations = append(w.convs.Conversations, api.Conversation{Peer: peer})
	}
	for _, u := range names("there-", 0, 100) {
		w.online[u] = true
	}
	w.among = append(append(names("peer-", 0, 299), "Leonid"), names("there-", 0, 100)...) // the last peer is gone
	got := list(t, w)
	for _, name := range append(w.among, squatters[:600]...) {
		if got.Contacts[name] == "" || !slices.Contains(got.All, name) || slices.Contains(got.Online, name) != w.online[name] {
			t.Fatalf("%s is not in the list as it should be", name)
		}
	}
	if len(got.Contacts) != legacy.MaxContacts || got.Contacts["peer-0299"] != "" || got.Contacts[squatters[600]] != "" {
		t.Errorf("%d contacts", len(got.Contacts))
	}
	if !slices.IsSorted(got.All[:999]) || len(w.contactReqs) != 2 || len(w.contactReqs[1].Among) != 401 {
		t.Errorf("auth was asked %d times", len(w.contactReqs))
	}

	// Without history, and beside an auth that does not know the question.
	w.fail["conversations"], w.among, w.contactReqs = rpc.ErrUnavailable, nil, nil
	if got := list(t, w); len(got.Contacts) != legacy.MaxContacts || len(w.contactReqs[1].Among) != 101 {
		t.Errorf("%d contacts", len(got.Contacts))
	}

	// As many as fit, oneself among them, are one question.
	w = newWorld()
	w.contacts = api.ContactsPage{Usernames: append(names("u", 0, 999), "Lisa")}
	if got := list(t, w); len(got.Contacts) != 999 || len(w.contactReqs) != 1 {
		t.Errorf("%d contacts, auth was asked %d times", len(got.Contacts), len(w.contactReqs))
	}
}

// TestSocketIOAnswers holds what the transport answers against the document.
func TestSocketIOAnswers(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	const q = "/socket.io/?EIO=4&transport="
	refusedBy := func(err error) func(*world) *sink { return func(w *world) *sink { return w.engine(err) } }
	open := refusedBy(nil)
	for i, c := range []struct {
		method, target, body string // SID in target stands for a session that is open
		headers              []string
		world                func(*world) *sink
		status               int
		want                 string // in the body
	}{
		{"GET", q + "polling", "", nil, open, 200, `0{"sid":"here.`},
		{"GET", q + "polling&sid=SID", "", nil, open, 200, "4hello"},
		{"POST", q + "polling&sid=SID", "4x\x1e4y", nil, open, 200, "ok"},
		{"GET", "/socket.io/?EIO=3&transport=polling", "", nil, open, 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"GET", "/socket.io/?EIO=4", "", nil, open, 400, `{"code":0,"message":"Transport unknown"}`},
		{"GET", q + "polling&sid=x", "", nil, open, 400, `{"code":1,"message":"Session ID unknown"}`},
		{"GET", q + "polling&sid=gone.x", "", nil, open, 400, `{"code":1,"message":"Session ID unknown"}`},
		{"GET", q + "polling&sid=other.x", "", nil, open, 503, `{"code":3,"message":"The server that holds this session cannot be reached now"}`},
		{"POST", q + "polling&sid=other.x", "4x", nil, open, 503, `{"code":3,`},
		{"POST", q + "polling", "4x", nil, open, 400, `{"code":2,"message":"Bad handshake method"}`},
		{"POST", q + "polling&sid=SID", "x", nil, open, 400, `{"code":3,"message":"Bad request"}`},
		{"POST", q + "polling&sid=SID", "4" + strings.Repeat("x", 256), nil, open, 413, `{"code":3,"message":"Payload too large"}`},
		{"GET", q + "websocket", "", nil, open, 400, `{"code":3,"message":"Bad request"}`},
		{"GET", q + "websocket", "", upgrade[:3], open, 400, `{"code":3,"message":"Bad request"}`},
		{"GET", q + "websocket&sid=other.x", "", upgrade, open, 400, `{"code":1,"message":"Session ID unknown"}`},
		{"GET", q + "polling", "", []string{"Origin: https://evil.example"}, open, 403, `{"code":4,"message":"Forbidden"}`},
		{"POST", q + "polling&sid=SID", "4x", []string{"Origin: https://evil.example"}, open, 403, `{"code":4,"message":"Forbidden"}`},
		{"GET", q + "polling", "", nil, refusedBy(wire.E(wire.TooManyConnections, "full")), 429, `{"code":3,"message":"full"}`},
		{"GET", q + "polling", "", nil, refusedBy(wire.E(wire.Unavailable, "starting")), 503, `{"code":3,"message":"starting"}`},
	} {
		t.Run(strconv.Itoa(i)+" "+c.method, func(t *testing.T) {
			w := newWorld()
			s := c.world(w)
			h := w.handler(t, testConfig())
			if strings.Contains(c.target, "SID") {
				ask(h, "GET", q+"polling", "", "")
				s.conn.SendText([]byte("hello"))
				c.target = strings.Replace(c.target, "SID", s.conn.SID(), 1)
			}
			r := ask(h, c.method, c.target, "", c.body, c.headers...)
			if r.StatusCode != c.status || !strings.Contains(string(r.body), c.want) {
				t.Fatalf("status %d: %s\nwant %d: %s", r.StatusCode, r.body, c.status, c.want)
			}
			d.answers(t, "/socket.io/", strings.ToLower(c.method), r)
			if c.want == `0{"sid":"here.` && !strings.HasPrefix(r.Header.Get("Set-Cookie"), "parley_sio=") {
				t.Errorf("Set-Cookie %q", r.Header.Get("Set-Cookie"))
			}
		})
	}
}

// TestSocketIORate: what begins a session and what is no session's counts as a request of its address; requests of a session here do not.
func TestSocketIORate(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	w := newWorld()
	s := w.engine(nil)
	h := w.handler(t, Config{Rate: 1, Burst: 2})
	const q = "/socket.io/?EIO=4&transport=polling"
	ask(h, "GET", q, "", "")
	for range 5 {
		if r := ask(h, "POST", q+"&sid="+s.conn.SID(), "", "4x"); r.StatusCode != 200 {
			t.Fatalf("a request of the session: %d %s", r.StatusCode, r.body)
		}
	}
	ask(h, "GET", q+"&sid=x", "", "")
	// Of a session, polls only are the session's own business.
	for _, r := range []reply{ask(h, "DELETE", q+"&sid="+s.conn.SID(), "", ""), ask(h, "GET", strings.Replace(q, "polling", "websocket", 1)+"&sid="+s.conn.SID(), "", "", upgrade...)} {
		r.wants(t, 429, wire.RateLimited)
	}
	for method, target := range map[string]string{"GET": q, "POST": q + "&sid=other.x"} {
		r := ask(h, method, target, "", "")
		r.wants(t, 429, wire.RateLimited)
		d.answers(t, "/socket.io/", strings.ToLower(method), r)
	}
	for _, rt := range []struct{ method, target, path string }{
		{"POST", "/log_in", "/log_in"}, {"GET", "/get_contacts_list/a", "/get_contacts_list/{username}"},
		{"POST", "/admin/get_info", "/admin/get_info"}, {"POST", "/admin/kill_token", "/admin/kill_token"},
	} {
		r := ask(h, rt.method, rt.target, "", "")
		r.wants(t, 429, wire.RateLimited)
		d.answers(t, rt.path, strings.ToLower(rt.method), r)
	}
}

// TestSocketIOWebSocket goes through a socket: a recorder cannot be upgraded.
func TestSocketIOWebSocket(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	w := newWorld()
	s := w.engine(nil)
	srv := httptest.NewServer(w.handler(t, testConfig()))
	defer srv.Close()
	r, err := http.NewRequest("GET", srv.URL+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(name, v)
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", resp.StatusCode)
	}
	d.answers(t, "/socket.io/", "get", reply{resp, nil})
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-s.closed:
	case <-time.After(10 * time.Second):
		t.Error("the connection is still open")
	}
}
