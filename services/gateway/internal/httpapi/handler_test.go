package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/gateway/web"
)

func TestUnknownPathsAndMethods(t *testing.T) {
	h := newWorld().handler(t, testConfig())
	for _, p := range []string{"/nothing", "/v1", "/v1/contacts/", "/v1/contacts/a/b", "/v1/rooms/avi&lisa", "/index.html", "/v2/users"} {
		ask(h, "GET", p, "Avi", "").wants(t, 404, wire.NotFound)
	}
	for target, allow := range map[string]string{
		"/v1/users": "POST", "/v1/contacts/lisa": "DELETE, PUT", "/healthz": "GET, HEAD", "/v1/ws": "GET, HEAD", "/": "GET, HEAD",
	} {
		r := ask(h, "PATCH", target, "Avi", "{}")
		r.wants(t, 405, wire.InvalidArgument)
		if got := r.Header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow %q, want %q", target, got, allow)
		}
	}
	if r := ask(h, "HEAD", "/healthz", "", ""); r.StatusCode != 200 {
		t.Errorf("HEAD: %d", r.StatusCode)
	}
}

func TestTokens(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	const challenge = "WWW-Authenticate"
	for _, header := range []string{"", "Bearer", "Bearer ", "Basic YTpi", "Avi"} {
		r := ask(h, "GET", "/v1/contacts", "", "", "Authorization: "+header)
		r.wants(t, 401, wire.Unauthenticated)
		if got := r.Header.Get(challenge); got != `Bearer realm="parley"` {
			t.Errorf("%q: %s %q", header, challenge, got)
		}
	}
	ask(h, "GET", "/v1/contacts?access_token=Avi", "", "").wants(t, 401, wire.Unauthenticated)
	if r := ask(h, "GET", "/v1/contacts", "", "", "Authorization: bearer Avi"); r.StatusCode != 200 {
		t.Errorf("the scheme's case matters: %d", r.StatusCode)
	}
	for _, err := range []error{token.ErrInvalid, token.ErrKey, fmt.Errorf("check: %w", token.ErrExpired), wire.E(wire.Unauthenticated, "revoked")} {
		w.fail["verify"] = err
		r := ask(h, "GET", "/v1/contacts", "Avi", "")
		r.wants(t, 401, wire.Unauthenticated)
		if !strings.Contains(r.Header.Get(challenge), `error="invalid_token"`) {
			t.Errorf("%v: %q", err, r.Header.Get(challenge))
		}
		if errors.Is(err, token.ErrExpired) != strings.Contains(r.problem(t).Detail, "expired") {
			t.Errorf("%v: detail %q", err, r.problem(t).Detail)
		}
	}
	w.fail["verify"] = rpc.ErrUnavailable
	ask(h, "GET", "/v1/contacts", "Avi", "").wants(t, 503, wire.Unavailable)
	delete(w.fail, "verify")

	for scope, status := range map[string]int{"seed": 403, "admin": 403, "": 403, "nativex": 403, "native": 200, "admin native": 200, "native admin": 200} {
		if r := ask(h, "GET", "/v1/contacts", "Avi/"+scope, ""); r.StatusCode != status {
			t.Errorf("scope %q: %d", scope, r.StatusCode)
		}
	}
	if len(w.contactReqs) == 0 || w.contactReqs[0].Username != "Avi" {
		t.Errorf("asked for %+v", w.contactReqs)
	}
}

func TestBodies(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	for _, c := range []struct {
		body   string
		status int
		code   wire.Code
	}{
		{`{"username":"Avi","password":"p","extra":{"a":[1]}}`, 201, ""},
		{" \r\n\t" + `{"username":"Avi","password":"p"}` + "\n", 201, ""},
		{`{"username":"Avi","password":"p"}{}`, 400, wire.InvalidArgument},
		{`{"username":"Avi","password":"p"} x`, 400, wire.InvalidArgument},
		{`[{"username":"Avi","password":"p"}]`, 400, wire.InvalidArgument},
		{`null`, 400, wire.InvalidArgument},
		{`"x"`, 400, wire.InvalidArgument},
		{` `, 400, wire.InvalidArgument},
		{`{"username":1,"password":"p"}`, 400, wire.InvalidArgument},
		{`{"username":"Avi","password":`, 400, wire.InvalidArgument},
		{"{\"username\":\"Avi\",\"password\":\"\xff\"}", 400, wire.InvalidArgument},
		{`{"username":"Avi"}`, 400, wire.InvalidArgument},
		{`{"username":"Avi","password":""}`, 400, wire.InvalidArgument},
		{`{"password":"p"}`, 400, wire.InvalidUsername},
		{`{"username":"a&b","password":"p"}`, 400, wire.InvalidUsername},
		{`{"username":"` + strings.Repeat("a", 65) + `","password":"p"}`, 400, wire.InvalidUsername},
		{`{"username":"../x","password":"p"}`, 400, wire.InvalidUsername},
		{`{"username":">","password":"p"}`, 400, wire.InvalidUsername},
		{`{"username":"Avi","password":"` + strings.Repeat("p", maxBody-34) + `"}`, 201, ""},
		{`{"username":"Avi","password":"` + strings.Repeat("p", maxBody) + `"}`, 413, wire.TooLarge},
		{strings.Repeat("[", maxBody), 400, wire.InvalidArgument},
		{`{"username":` + strings.Repeat("[", 9000), 400, wire.InvalidArgument},
	} {
		for _, path := range []string{"/v1/users", "/v1/sessions"} {
			r := ask(h, "POST", path, "", c.body)
			if c.code != "" {
				r.wants(t, c.status, c.code)
			} else if r.StatusCode != c.status {
				t.Errorf("%.60s: %d %s", c.body, r.StatusCode, r.body)
			}
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";"} {
		ask(h, "POST", "/v1/sessions", "", `{"username":"Avi","password":"p"}`, "Content-Type: "+kind).wants(t, 415, wire.InvalidArgument)
	}
	if r := ask(h, "POST", "/v1/sessions", "", `{"username":"Avi","password":"p"}`, "Content-Type: Application/JSON; charset=utf-8"); r.StatusCode != 201 {
		t.Errorf("charset: %d", r.StatusCode)
	}
	ask(h, "POST", "/v1/sessions/refresh", "", `{}`).wants(t, 400, wire.InvalidArgument)
}

func TestLogins(t *testing.T) {
	w := newWorld()
	cfg := testConfig()
	cfg.TrustedProxies = []string{"192.0.2.0/24"} // httptest's peer is 192.0.2.1
	h := w.handler(t, cfg)
	r := ask(h, "POST", "/v1/sessions", "", "{\"username\":\"Ame\u0301lie\",\"password\":\"p\"}", "X-Forwarded-For: 9.9.9.9, 203.0.113.9")
	if r.StatusCode != 201 || !strings.Contains(string(r.body), `"refresh_token":"r"`) || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s %v", r.StatusCode, r.body, r.Header)
	}
	want := api.Credentials{Username: "Amélie", Password: "p", Address: "203.0.113.9", Scope: token.ScopeNative}
	if w.credentials[0] != want {
		t.Errorf("the service was asked %+v", w.credentials[0])
	}
	// Keyboards of phones add a blank; a name that is registered has none.
	if r := ask(h, "POST", "/v1/sessions", "", `{"username":" Avi ","password":" p "}`); r.StatusCode != 201 {
		t.Errorf("a blank after the name: %d %s", r.StatusCode, r.body)
	}
	if got := w.credentials[1]; got.Username != "Avi" || got.Password != " p " {
		t.Errorf("the service was asked %+v", got)
	}
	ask(h, "POST", "/v1/users", "", `{"username":"Avi ","password":"pppppppp"}`).wants(t, 400, wire.InvalidUsername)
	ask(h, "POST", "/v1/sessions/refresh", "", `{"refresh_token":"r1"}`)
	if w.refreshes[0] != (api.RefreshRequest{RefreshToken: "r1", Address: "192.0.2.1"}) {
		t.Errorf("the service was asked %+v", w.refreshes[0])
	}
	if r := ask(h, "DELETE", "/v1/sessions/current", "Avi", ""); r.StatusCode != 204 || len(r.body) > 0 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if w.logouts[0] != (api.LogoutRequest{Username: "Avi", SID: "sid-of-Avi"}) {
		t.Errorf("the service was asked %+v", w.logouts[0])
	}
}

func TestErrors(t *testing.T) {
	var logged bytes.Buffer
	w := newWorld()
	deps := w.deps(prometheus.NewRegistry(), testConfig())
	deps.Log = slog.New(slog.NewTextHandler(&logged, nil))
	h, err := New(testConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	login := func() reply {
		return ask(h, "POST", "/v1/sessions", "", `{"username":"Avi","password":"hunter2-secret"}`)
	}
	for _, c := range []struct {
		err        error
		status     int
		code       wire.Code
		retryAfter string
	}{
		{wire.E(wire.Unauthenticated, "no"), 401, wire.Unauthenticated, ""},
		{&wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1001}, 429, wire.RateLimited, "2"},
		{&wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1}, 429, wire.RateLimited, "1"},
		{&wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1 << 60}, 429, wire.RateLimited, "3600"},
		{rpc.ErrUnavailable, 503, wire.Unavailable, "2"},
		{fmt.Errorf("wrapped: %w", rpc.ErrUnavailable), 503, wire.Unavailable, "2"},
		{wire.E("from_the_future", "new"), 500, "from_the_future", ""},
	} {
		w.fail["login"] = c.err
		r := login()
		r.wants(t, c.status, c.code)
		if got := r.Header.Get("Retry-After"); got != c.retryAfter {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, c.retryAfter)
		}
		if strings.Contains(string(r.body), "hunter2") || strings.Contains(string(r.body), "10.1.2.3") {
			t.Errorf("%v: the answer tells what is inside: %s", c.err, r.body)
		}
	}
	w.fail["resolve"] = errors.New("dial 10.1.2.3: hunter2-secret")
	r := ask(h, "GET", "/v1/rooms/Avi%26Lisa/messages", "Avi", "")
	r.wants(t, 500, wire.Internal)
	if strings.Contains(string(r.body), "hunter2") || strings.Contains(string(r.body), "10.1.2.3") {
		t.Errorf("the answer tells what is inside: %s", r.body)
	}
	if !strings.Contains(logged.String(), "dial 10.1.2.3") {
		t.Error("an internal error was not logged")
	}
	logged.Reset()
	delete(w.fail, "login")
	login()
	ask(h, "POST", "/v1/sessions", "", `{"username":"Avi","password":"hunter2-secret"`)
	ask(h, "POST", "/v1/users", "", `{"username":"*","password":"hunter2-secret"}`)
	if logged.Len() > 0 {
		t.Errorf("logged: %s", logged.String())
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld()
	h := w.handler(t, Config{Rate: 2, Burst: 3})
	for range 3 {
		if r := ask(h, "GET", "/v1/contacts", "Avi", ""); r.StatusCode != 200 {
			t.Fatal(r.StatusCode)
		}
	}
	for _, target := range []string{"/v1/contacts", "/v1/ws", "/nothing", "/"} {
		r := ask(h, "GET", target, "Avi", "")
		r.wants(t, 429, wire.RateLimited)
		if r.Header.Get("Retry-After") != "1" || r.problem(t).RetryAfterMS != 500 {
			t.Errorf("Retry-After %q, %d ms", r.Header.Get("Retry-After"), r.problem(t).RetryAfterMS)
		}
	}
	if r := ask(h, "GET", "/readyz", "", ""); r.StatusCode != 200 { // probes are counted apart
		t.Fatal(r.StatusCode)
	}
	w.now = w.now.Add(500 * time.Millisecond)
	if r := ask(h, "GET", "/v1/contacts", "Avi", ""); r.StatusCode != 200 {
		t.Error("no token after half a second")
	}
}

// TestProbesHaveALimit: of each address, so that nobody is kept from asking by others; and what asks on this machine has none.
func TestProbesHaveALimit(t *testing.T) {
	w := newWorld()
	h := w.handler(t, Config{Rate: 1, Burst: 1, TrustedProxies: []string{"10.0.0.0/8"}})
	probe := func(path, peer, forwarded string) int {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = peer
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code
	}
	for i := range probeBurst {
		path := []string{"/healthz", "/readyz"}[i%2]
		if got := probe(path, "10.0.0.1:1", "192.0.2.7"); got != 200 {
			t.Fatalf("probe %d: %d", i, got)
		}
		if got := probe(path, "127.0.0.1:1", "192.0.2.7"); got != 200 {
			t.Fatalf("probe %d by an untrusted proxy: %d", i, got)
		}
	}
	for _, c := range []struct {
		peer, forwarded string
		want            int
	}{
		{"10.0.0.1:1", "192.0.2.7", 429}, {"127.0.0.1:1", "192.0.2.7", 429},
		{"10.0.0.1:1", "", 200}, {"127.0.0.1:1", "", 200}, {"192.0.2.8:1", "", 200},
	} {
		if got := probe("/healthz", c.peer, c.forwarded); got != c.want {
			t.Errorf("from %s for %q: %d, want %d", c.peer, c.forwarded, got, c.want)
		}
	}
	for range 3 * probeBurst {
		if got := probe("/healthz", "127.0.0.1:1", ""); got != 200 {
			t.Fatalf("on this machine: %d", got)
		}
	}
}

// TestRefusal: what a connection over the limits is told can be read, and is a problem as all others.
func TestRefusal(t *testing.T) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(Refusal())), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p wire.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || p.Status != 503 || p.Code != wire.Unavailable || resp.Header.Get("Retry-After") != "2" || !resp.Close {
		t.Errorf("%d %+v %v", resp.StatusCode, p, resp.Header)
	}
}

func TestReady(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	w.notReady = errors.New("nats at 10.1.2.3 is away")
	r := ask(h, "GET", "/readyz", "", "")
	r.wants(t, 503, wire.Unavailable)
	if strings.Contains(string(r.body), "10.1.2.3") {
		t.Errorf("the public answer names hosts: %s", r.body)
	}
	if r := ask(h, "GET", "/healthz", "", ""); r.StatusCode != 200 || string(r.body) != "ok\n" {
		t.Errorf("healthz: %d %q", r.StatusCode, r.body)
	}
}

// TestRegistrationOnAFullDisk: who is there logs in as before.
func TestRegistrationOnAFullDisk(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	w.full = &wire.Error{Code: wire.Unavailable, Message: "the disk is full", RetryAfterMS: 5000}
	const body = `{"username":"New","password":"correct horse"}`
	r := ask(h, "POST", "/v1/users", "", body)
	r.wants(t, 503, wire.Unavailable)
	if r.Header.Get("Retry-After") != "5" || !strings.Contains(string(r.body), "the disk is full") {
		t.Errorf("%v %s", r.Header, r.body)
	}
	if len(w.credentials) != 0 {
		t.Error("auth was asked")
	}
	if r := ask(h, "POST", "/v1/sessions", "", body); r.StatusCode != 201 {
		t.Errorf("log in: %d %s", r.StatusCode, r.body)
	}
}

func TestHeadersAndPage(t *testing.T) {
	h := newWorld().handler(t, testConfig())
	for _, target := range []string{"/", "/v1/contacts", "/nothing", "/openapi.yaml", "/v1/ws"} {
		r := ask(h, "GET", target, "Avi", "")
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(r.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", target, r.Header)
		}
		if strings.HasPrefix(target, "/v1/c") && r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", target)
		}
	}
	r := ask(h, "GET", "/", "", "")
	page := string(r.body)
	for _, bad := range []string{"<script>", "<style", " style=", "onclick", "http://", "https://"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if csp := r.Header.Get("Content-Security-Policy"); csp != web.Policy || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
		t.Errorf("policy %q", csp)
	}
	for target, status := range map[string]int{"/web/app.js": 200, "/web/js/index.js": 200, "/web/": 404, "/web/nothing.js": 404} {
		if r := ask(h, "GET", target, "", ""); r.StatusCode != status {
			t.Errorf("%s: %d", target, r.StatusCode)
		}
	}
}

func TestCORS(t *testing.T) {
	cfg := testConfig()
	cfg.AllowedOrigins = []string{"https://app.example"}
	h := newWorld().handler(t, cfg)
	const allow = "Access-Control-Allow-Origin"

	r := ask(h, "OPTIONS", "/v1/contacts", "", "", "Origin: https://app.example", "Access-Control-Request-Method: GET")
	if r.StatusCode != 204 || r.Header.Get(allow) != "https://app.example" || !strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "Authorization") ||
		!strings.Contains(r.Header.Get("Access-Control-Allow-Methods"), "DELETE") {
		t.Errorf("preflight: %d %v", r.StatusCode, r.Header)
	}
	r = ask(h, "GET", "/v1/contacts", "Avi", "", "Origin: https://app.example")
	if r.StatusCode != 200 || r.Header.Get(allow) != "https://app.example" || !strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), "Retry-After") {
		t.Errorf("allowed: %d %v", r.StatusCode, r.Header)
	}
	r = ask(h, "GET", "/v1/contacts", "", "", "Origin: https://app.example")
	if r.StatusCode != 401 || r.Header.Get(allow) == "" {
		t.Errorf("errors must be readable: %d %v", r.StatusCode, r.Header)
	}
	r = ask(h, "GET", "/v1/contacts", "Avi", "", "Origin: https://evil.example")
	if r.Header.Get(allow) != "" || r.Header.Get("Vary") != "Origin" {
		t.Errorf("foreign: %v", r.Header)
	}
	r = ask(h, "OPTIONS", "/v1/contacts", "", "", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
	r.wants(t, 403, wire.Forbidden)
	if r.Header.Get(allow) != "" {
		t.Errorf("foreign preflight: %v", r.Header)
	}
	if r := ask(h, "GET", "/v1/contacts", "Avi", "", "Origin: http://example.com"); r.Header.Get(allow) != "http://example.com" { // httptest's host
		t.Errorf("same origin: %v", r.Header)
	}
	ask(h, "OPTIONS", "/v1/contacts", "", "").wants(t, 405, wire.InvalidArgument)
	if r := ask(h, "GET", "/v1/contacts", "Avi", ""); r.Header.Get(allow) != "" {
		t.Errorf("without Origin: %v", r.Header)
	}
}

// TestCORSOfEveryAnswer: whatever goes wrong, on every kind of route, the page of an allowed origin can read why; and its preflights cost nothing.
func TestCORSOfEveryAnswer(t *testing.T) {
	w := newWorld()
	w.engine(nil)
	h := w.handler(t, Config{AllowedOrigins: []string{"https://app.example"}, Rate: 1, Burst: 14})
	const origin, engine = "Origin: https://app.example", "/socket.io/?EIO=4&transport=polling"
	targets := []string{"/v1/contacts", "/v1/sessions", "/nothing", "//v1/contacts", "/", engine, "/log_in", "/readyz"}
	for range 20 {
		for _, target := range targets {
			r := ask(h, "OPTIONS", target, "", "", origin, "Access-Control-Request-Method: POST")
			if r.StatusCode != 204 || r.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Fatalf("preflight of %s: %d %v", target, r.StatusCode, r.Header)
			}
		}
	}
	statuses := map[int]bool{}
	readable := func(method, target, tok, body string) {
		t.Helper()
		r := ask(h, method, target, tok, body, origin)
		statuses[r.StatusCode] = true
		if r.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), "Retry-After") {
			t.Errorf("%s %s: %d cannot be read: %v", method, target, r.StatusCode, r.Header)
		}
	}
	w.notReady = errors.New("starting")
	readable("GET", "/readyz", "", "")
	for _, target := range targets {
		readable("POST", target, "", strings.Repeat("x", maxBody+1))
	}
	readable("GET", "/v1/contacts?%zz", "Avi", "")
	readable("GET", "/v1/rooms/dana&lisa/messages", "Avi", "")
	for range 5 { // the rest of the burst
		readable("GET", engine+"&sid=other.x", "", "")
	}
	for _, target := range targets {
		readable("GET", target, "", "")
	}
	for _, status := range []int{400, 403, 404, 405, 413, 429, 503} {
		if !statuses[status] {
			t.Errorf("no answer had status %d: %v", status, statuses)
		}
	}
}

// TestRequestsAreNotSentOn: a path that is none is a problem, not HTML about another path that is encoded twice.
func TestRequestsAreNotSentOn(t *testing.T) {
	h := newWorld().handler(t, testConfig())
	for _, target := range []string{"//v1/rooms/Avi%26Lisa/messages", "/v1//contacts", "/v1/./contacts", "/v1/x/../contacts", "/v1/contacts/..", "//"} {
		r := ask(h, "GET", target, "Avi", "")
		r.wants(t, 404, wire.NotFound)
		if r.Header.Get("Location") != "" {
			t.Errorf("%s: %v", target, r.Header)
		}
	}
}

// TestRequestsThatAreRubbishAreNoFailure: what a client makes up in a path, a query or a body is its own mistake; nothing of it reaches a service, where a database that
// does not take it would look like one that is away.
func TestRequestsThatAreRubbishAreNoFailure(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	rubbish := []string{"%00", "a%00b", "%ff", "%ed%a0%80", "%c0%80", "%zz", "%", "a;b=c", strings.Repeat("a", 5000), "%F0%9F%98%80", "%E2%80%AE"}
	for _, path := range []string{"/v1/contacts?prefix=", "/v1/contacts?after=", "/v1/contacts?limit=", "/v1/conversations?after=", "/v1/conversations?limit=",
		"/v1/rooms/Avi&Lisa/messages?after=", "/v1/rooms/Avi&Lisa/messages?before=", "/v1/rooms/Avi&Lisa/messages?limit=", "/v1/contacts?nothing="} {
		for i, bad := range rubbish {
			if r := ask(h, "GET", path+bad, "Avi", ""); r.StatusCode >= 500 || i < 8 && r.StatusCode != 400 {
				t.Errorf("%s%.20s: %d %s", path, bad, r.StatusCode, r.body)
			}
		}
	}
	for _, path := range []string{"/v1/rooms/Avi&%s/messages", "/v1/rooms/%s/messages", "/get_contacts_list/%s"} {
		for _, bad := range rubbish[:5] {
			if r := ask(h, "GET", strings.Replace(path, "%s", bad, 1), "Avi", ""); r.StatusCode >= 500 {
				t.Errorf("%s with %s: %d %s", path, bad, r.StatusCode, r.body)
			}
		}
	}
	for _, asked := range w.contactReqs {
		if s := asked.Prefix + asked.After; strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			t.Errorf("auth was asked %+v", asked)
		}
	}
	for _, asked := range w.convReqs {
		if s := asked.After; strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			t.Errorf("history was asked %+v", asked)
		}
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld()
	reg := prometheus.NewRegistry()
	h, err := New(testConfig(), w.deps(reg, testConfig()))
	if err != nil {
		t.Fatal(err)
	}
	ask(h, "GET", "/v1/contacts", "Avi", "")
	ask(h, "GET", "/v1/contacts", "", "")
	ask(h, "GET", "/v1/rooms/avi&lisa/messages", "Avi", "")
	ask(h, "GET", "/secret/path", "", "")
	for labels, want := range map[[2]string]float64{
		{"GET /v1/contacts", "200"}: 1, {"GET /v1/contacts", "401"}: 1, {"GET /v1/contacts", "503"}: 0,
		{"GET /v1/rooms/{room}/messages", "200"}: 1, {noRoute, "404"}: 1,
	} {
		got := testutil.ToFloat64(h.(*handler).metrics.requests.WithLabelValues(labels[0], labels[1]))
		if got != want {
			t.Errorf("%v: %v, want %v", labels, got, want)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "parley_http_request_seconds"); err != nil || n == 0 {
		t.Errorf("histograms: %d, %v", n, err)
	}
	if _, err := New(testConfig(), w.deps(reg, testConfig())); err == nil {
		t.Error("two handlers share a registry without an error")
	}
}

func TestHandshake(t *testing.T) {
	cfg := testConfig()
	cfg.AllowedOrigins = []string{"https://app.example"}
	h := newWorld().handler(t, cfg)
	r := ask(h, "GET", "/v1/ws", "Avi", "")
	r.wants(t, 426, wire.InvalidArgument)
	if r.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%v", r.Header)
	}
	for line, status := range map[string]int{"Sec-WebSocket-Version: 8": 426, "Sec-WebSocket-Key: x": 400} {
		r := ask(h, "GET", "/v1/ws", "Avi", "", append(upgrade, line)...)
		r.wants(t, status, wire.InvalidArgument)
		if r.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%s: %v", line, r.Header)
		}
	}
	ask(h, "GET", "/v1/ws", "Avi", "", append(upgrade, "Origin: https://evil.example")...).wants(t, 403, wire.Forbidden)
	for _, origin := range []string{"https://app.example", "http://example.com", ""} { // the second is httptest's host
		if r := ask(h, "GET", "/v1/ws", "Avi", "", append(upgrade, "Origin: "+origin)...); r.StatusCode != 101 {
			t.Errorf("%q: %d", origin, r.StatusCode)
		}
	}
	ask(h, "HEAD", "/v1/ws", "Avi", "").wants(t, 426, wire.InvalidArgument)
}

// TestRealServer goes through a socket: what a recorder cannot show.
func TestRealServer(t *testing.T) {
	w := newWorld()
	deps := w.deps(prometheus.NewRegistry(), testConfig())
	deps.Now = nil
	deps.WebSocket = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
		_ = conn.Close()
	})
	h, err := New(testConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	addr := srv.Listener.Addr().String()

	exchange := func(request string) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		status, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(status)
	}
	const head = " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer Avi\r\nConnection: close\r\n"
	for request, want := range map[string]string{
		"GET /v1/ws" + strings.Replace(head, "close", strings.TrimPrefix(strings.Join(upgrade, "\r\n"), "Connection: "), 1) + "\r\n": "HTTP/1.1 101 Switching Protocols",
		"GET /v1/rooms/lisa&avi/messages" + head + "\r\n":                                                                            "HTTP/1.1 200 OK",
		"GET /v1/rooms/lisa%26avi/messages" + head + "\r\n":                                                                          "HTTP/1.1 200 OK",
		"GET /v1/rooms/%2e%2e%2f%2e%2e/messages" + head + "\r\n":                                                                     "HTTP/1.1 400 Bad Request",
		"POST /v1/users" + head + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n":         "HTTP/1.1 400 Bad Request",
		"POST /v1/users" + head + "Content-Type: application/json\r\nContent-Length: 99999\r\n\r\n" + strings.Repeat("x", maxBody+1): "HTTP/1.1 413 Request Entity Too Large",
	} {
		if got := exchange(request); got != want {
			t.Errorf("%.60q: %s, want %s", request, got, want)
		}
	}
}
