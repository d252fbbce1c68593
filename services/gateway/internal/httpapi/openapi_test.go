package httpapi

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi/datamodel"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/services/gateway/apidocs"
	"parley.example/services/gateway/internal/legacy"
)

// notOnHTTP are the codes that only frames can have.
var notOnHTTP = []wire.Code{wire.InvalidFrame, wire.UnknownEvent, wire.IDConflict, wire.TooManyConnections}

func TestOpenAPIIsValid(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(datamodel.OpenAPI31SchemaData))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///openapi-3.1", v); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///openapi-3.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(d.root); err != nil {
		t.Error(err)
	}
	ids := map[string]string{}
	d.walk("", d.root, func(at string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		if id, ok := m["operationId"].(string); ok {
			if ids[id] != "" {
				t.Errorf("operationId %s is at %s and %s", id, ids[id], at)
			}
			ids[id] = at
		}
	})
	for name := range d.object(t, "#/components/schemas") {
		if _, err := d.compiler.Compile(documentURL + "#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
}

func TestOpenAPIHasTheRoutes(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	var documented []string
	for path, item := range d.object(t, "#/paths") {
		for _, m := range methods {
			if op, ok := item.(map[string]any)[strings.ToLower(m)].(map[string]any); ok {
				documented = append(documented, m+" "+path)
				parametersExist(t, d, path, item.(map[string]any), op)
			}
		}
	}
	var registered []string
	// What Engine.IO does with other methods is a 400 of its own.
	mounted := []route{{pattern: WebSocketRoute}, {pattern: "GET " + SocketIORoute}, {pattern: "POST " + SocketIORoute}}
	for _, r := range append((&handler{Deps: Deps{Legacy: newWorld().legacy(&Edge{}).Routes()}}).routes(), mounted...) {
		path, method := operation(r.pattern)
		registered = append(registered, strings.ToUpper(method)+" "+path)
		op := d.object(t, "#/paths/"+strings.ReplaceAll(path, "/", "~1")+"/"+method)
		_, secured := op["security"]
		if r.private != nil != secured && r.pattern != WebSocketRoute {
			t.Errorf("%s: needs a token %v, documented %v", r.pattern, r.private != nil, secured)
		}
	}
	sameSet(t, "routes", documented, registered)
}

// parametersExist compares the {names} of a path with its parameters.
func parametersExist(t *testing.T, d *document, path string, item, op map[string]any) {
	t.Helper()
	var inPath, declared []string
	for _, part := range strings.Split(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			inPath = append(inPath, strings.TrimSuffix(name, "}"))
		}
	}
	for _, owner := range []map[string]any{item, op} {
		list, _ := owner["parameters"].([]any)
		for _, p := range list {
			m := p.(map[string]any)
			if ref, ok := m["$ref"].(string); ok {
				m = d.object(t, ref)
			}
			if m["in"] == "path" {
				declared = append(declared, m["name"].(string))
			}
		}
	}
	sameSet(t, "parameters of "+path, declared, inPath)
}

func TestOpenAPIHasTheCodes(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	var code []string
	for _, c := range wire.Codes {
		if !slices.Contains(notOnHTTP, c) {
			code = append(code, string(c))
		}
	}
	sameSet(t, "enum of codes", texts(t, d.object(t, "#/components/schemas/Problem/properties/code")["enum"]), code)
	var listed []string
	for _, e := range d.root["x-error-codes"].([]any) {
		m := e.(map[string]any)
		c := m["code"].(string)
		listed = append(listed, c)
		if got, want := number(t, m["status"]), wire.Code(c).HTTPStatus(); got != want {
			t.Errorf("%s: status %d in the document, %d in the code", c, got, want)
		}
	}
	sameSet(t, "x-error-codes", listed, code)
}

func number(t *testing.T, v any) int {
	t.Helper()
	n, err := strconv.Atoi(v.(interface{ String() string }).String())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// legacyCredentials are the keys that the routes of the old clients read by name.
type legacyCredentials struct {
	Username  string `json:"username"`
	Password  string `json:"password"`
	Terminate string `json:"user_token_terminate"`
}

func TestOpenAPIHasTheFields(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	types := map[string]struct {
		code any
		omit []string // fields that this use of the type does not have
	}{
		"Credentials": {code: wire.Credentials{}}, "RefreshToken": {code: wire.RefreshToken{}}, "User": {code: wire.User{}}, "Tokens": {code: wire.Tokens{}},
		"Contact": {code: wire.ContactInfo{}}, "ContactsPage": {code: wire.ContactsPage{}}, "ContactState": {code: wire.ContactState{}}, "Message": {code: wire.Message{}},
		"MessagesPage": {code: wire.MessagesPage{}}, "Conversation": {code: wire.Conversation{}}, "ConversationsPage": {code: wire.ConversationsPage{}}, "Problem": {code: wire.Problem{}},
		"LegacyCredentials": {legacyCredentials{}, []string{"user_token_terminate"}}, "LegacyKill": {code: legacyCredentials{}},
		"LegacyToken": {legacy.Result{}, []string{"error"}}, "LegacyRefusal": {legacy.Result{}, []string{"token", "error"}}, "LegacySuccess": {legacy.Result{}, []string{"token", "error"}},
		"LegacyError": {legacy.Result{}, []string{"result", "token"}}, "LegacyProblem": {legacy.Result{}, []string{"token"}}, "LegacyContactsList": {code: legacy.ContactsList{}},
		"LegacyOnline": {code: struct {
			Online []string `json:"online_clients_list"`
		}{}},
		"EngineError": {code: engineError{}},
	}
	var objects, known []string
	for name := range d.object(t, "#/components/schemas") {
		if d.object(t, "#/components/schemas/"+name)["type"] == "object" {
			objects = append(objects, name)
		}
	}
	for name, v := range types {
		known = append(known, name)
		d.matches(t, "#/components/schemas/"+name, reflect.TypeOf(v.code), v.omit...)
	}
	sameSet(t, "schemas", objects, known)
	for ref, want := range map[string]int{"LegacyContactsList/properties/contacts": legacy.MaxContacts, "LegacyContactsList/properties/currently_online": legacy.MaxContacts + 1,
		"LegacyContactsList/properties/all_existing_contacts": legacy.MaxContacts + 1, "LegacyOnline/properties/online_clients_list": legacy.MaxOnline} {
		m := d.object(t, "#/components/schemas/"+ref)
		most := m["maxItems"]
		if most == nil {
			most = m["maxProperties"]
		}
		if got := number(t, most); got != want {
			t.Errorf("%s: at most %d in the document, %d in the code", ref, got, want)
		}
	}
}

func TestOpenAPIExamples(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	n := 0
	d.walk("#", d.root, func(at string, v any) {
		m, ok := v.(map[string]any)
		if !ok || m["schema"] == nil {
			return
		}
		if m["example"] != nil {
			n++
			d.checkValue(t, escapedPath(at)+"/schema", m["example"])
		}
		several, _ := m["examples"].(map[string]any)
		for _, e := range several {
			n++
			d.checkValue(t, escapedPath(at)+"/schema", e.(map[string]any)["value"])
		}
	})
	if n < 35 {
		t.Errorf("only %d examples were found", n)
	}
	d.refuses(t, "#/components/schemas/Message", `{"sender":"Avi"}`)
	d.refuses(t, "#/components/schemas/Room", `"Avi"`)
	d.refuses(t, "#/components/schemas/Time", `"2026-03-01T09:30:00Z"`)
	d.refuses(t, "#/components/schemas/LegacyError", `{"result":"success"}`)
	d.refuses(t, "#/paths/~1log_in/post/responses/200/content/application~1json/schema", `{"error":"no"}`)
}

// escapedPath makes a JSON pointer of walk's path, in which keys with a slash (paths, media types) stand as they are.
func escapedPath(at string) string {
	for _, kind := range []string{"application/json", "application/problem+json", "text/plain"} {
		at = strings.ReplaceAll(at, kind, strings.ReplaceAll(kind, "/", "~1"))
	}
	rest, ok := strings.CutPrefix(at, "#/paths//")
	if !ok {
		return at
	}
	for _, m := range methods {
		if path, tail, ok := strings.Cut(rest, "/"+strings.ToLower(m)+"/"); ok {
			return "#/paths/~1" + strings.ReplaceAll(path, "/", "~1") + "/" + strings.ToLower(m) + "/" + tail
		}
	}
	return at
}

// TestOpenAPIAnswersAreAsDocumented makes real requests and holds each answer against the document: its status must be
// listed, its headers there, its body as the schema says.
func TestOpenAPIAnswersAreAsDocumented(t *testing.T) {
	d := load(t, apidocs.OpenAPI)
	prev := int64(0)
	stored := api.StoredMessage{P: 1, Seq: 7, A: "Avi", B: "Lisa", Sender: "Lisa", ID: "m-1", Content: "a < b & \"c\"", Prev: &prev, SentAt: 1767225600123}
	fresh := func() *world {
		w := newWorld()
		w.contacts = api.ContactsPage{Usernames: []string{"Avi", "Dana", "Lisa", "noa"}, Next: "noa"}
		w.online["Lisa"] = true
		w.lastSeen["Dana"] = 1767225600123
		w.page = api.PageResponse{Messages: []api.StoredMessage{stored, {Seq: 9, A: "Avi", B: "Lisa", Sender: "Avi", ID: "x", Content: "y", SentAt: 1}}, More: true}
		w.convs = api.ConversationsPage{Conversations: []api.Conversation{{Room: "Avi&Lisa", Peer: "Lisa", LastMessage: &stored, Unread: 1}, {Room: "Avi&Dana", Peer: "Dana"}}}
		return w
	}
	cred, refresh := `{"username":"Avi","password":"correct horse"}`, `{"refresh_token":"r1"}`
	fail := func(method string, err error) func(*world) {
		return func(w *world) { w.fail[method] = err }
	}
	limited := &wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1200}
	for _, c := range []struct {
		route, target, tok, body string
		change                   func(*world)
		status                   int
	}{
		{"POST /v1/users", "/v1/users", "", cred, nil, 201},
		{"POST /v1/users", "/v1/users", "", `{"username":"*","password":"x"}`, nil, 400},
		{"POST /v1/users", "/v1/users", "", cred, fail("register", wire.E(wire.UsernameTaken, "taken")), 409},
		{"POST /v1/users", "/v1/users", "", `{"username":"` + strings.Repeat("a", maxBody) + `"}`, nil, 413},
		{"POST /v1/users", "/v1/users", "", cred, fail("register", http.ErrBodyNotAllowed), 500},
		{"POST /v1/users", "/v1/users", "", cred, fail("register", rpc.ErrUnavailable), 503},
		{"POST /v1/sessions", "/v1/sessions", "", cred, nil, 201},
		{"POST /v1/sessions", "/v1/sessions", "", cred, fail("login", wire.E(wire.Unauthenticated, "no")), 401},
		{"POST /v1/sessions", "/v1/sessions", "", cred, fail("login", wire.E(wire.Forbidden, "disabled")), 403},
		{"POST /v1/sessions", "/v1/sessions", "", cred, fail("login", limited), 429},
		{"POST /v1/sessions/refresh", "/v1/sessions/refresh", "", refresh, nil, 201},
		{"POST /v1/sessions/refresh", "/v1/sessions/refresh", "", refresh, fail("refresh", wire.E(wire.Unauthenticated, "used")), 401},
		{"DELETE /v1/sessions/current", "/v1/sessions/current", "Avi", "", nil, 204},
		{"DELETE /v1/sessions/current", "/v1/sessions/current", "", "", nil, 401},
		{"DELETE /v1/sessions/current", "/v1/sessions/current", "Avi/seed", "", nil, 403},
		{"GET /v1/contacts", "/v1/contacts?prefix=a&limit=5", "Avi", "", nil, 200},
		{"GET /v1/contacts", "/v1/contacts", "Avi", "", func(w *world) { w.unknown = true; w.fail["last_seen"] = rpc.ErrUnavailable }, 200},
		{"GET /v1/contacts", "/v1/contacts?limit=x", "Avi", "", nil, 400},
		{"PUT /v1/contacts/{username}", "/v1/contacts/lisa", "Avi", "", func(w *world) { w.state = "requested" }, 200},
		{"PUT /v1/contacts/{username}", "/v1/contacts/lisa", "Avi", "", fail("put_contact", wire.E(wire.UnknownUser, "nobody")), 404},
		{"DELETE /v1/contacts/{username}", "/v1/contacts/lisa", "Avi", "", nil, 204},
		{"PUT /v1/blocks/{username}", "/v1/blocks/lisa", "Avi", "", nil, 204},
		{"DELETE /v1/blocks/{username}", "/v1/blocks/lisa", "Avi", "", nil, 204},
		{"DELETE /v1/blocks/{username}", "/v1/blocks/lisa", "Avi", "", fail("delete_block", rpc.ErrUnavailable), 503},
		{"GET /v1/conversations", "/v1/conversations", "Avi", "", nil, 200},
		{"GET /v1/conversations", "/v1/conversations", "Avi", "", fail("conversations", rpc.ErrUnavailable), 503},
		{"GET /v1/rooms/{room}/messages", "/v1/rooms/lisa&avi/messages", "Avi", "", nil, 200},
		{"GET /v1/rooms/{room}/messages", "/v1/rooms/dana&lisa/messages", "Avi", "", nil, 403},
		{"GET /v1/rooms/{room}/messages", "/v1/rooms/avi/messages", "Avi", "", nil, 400},
		{"GET /v1/ws", "/v1/ws", "Avi", "upgrade", nil, 101},
		{"GET /v1/ws", "/v1/ws", "Avi", "half an upgrade", nil, 400},
		{"GET /v1/ws", "/v1/ws", "Avi", "", nil, 426},
		{"GET /healthz", "/healthz", "", "", nil, 200},
		{"GET /readyz", "/readyz", "", "", nil, 200},
		{"GET /readyz", "/readyz", "", "", func(w *world) { w.notReady = http.ErrServerClosed }, 503},
		{"GET /openapi.yaml", "/openapi.yaml", "", "", nil, 200},
		{"GET /asyncapi.yaml", "/asyncapi.yaml", "", "", nil, 200},
		{"GET /{$}", "/", "", "", nil, 200},
	} {
		t.Run(c.route+" "+strconv.Itoa(c.status), func(t *testing.T) {
			w := fresh()
			if c.change != nil {
				c.change(w)
			}
			path, method := operation(c.route)
			var lines []string
			if c.body == "upgrade" {
				lines, c.body = upgrade, ""
			}
			if c.body == "half an upgrade" {
				lines, c.body = upgrade[:3], ""
			}
			r := ask(w.handler(t, testConfig()), strings.ToUpper(method), c.target, c.tok, c.body, lines...)
			if r.StatusCode != c.status {
				t.Fatalf("status %d: %s", r.StatusCode, r.body)
			}
			d.answers(t, path, method, r)
		})
	}
}

// answers holds an answer against the document.
func (d *document) answers(t *testing.T, path, method string, r reply) {
	t.Helper()
	ref := d.follow("#/paths/" + strings.ReplaceAll(path, "/", "~1") + "/" + method + "/responses/" + strconv.Itoa(r.StatusCode))
	doc := d.object(t, ref)
	headers, _ := doc["headers"].(map[string]any)
	for name := range headers {
		if d.object(t, ref+"/headers/"+name)["required"] == true && r.Header.Get(name) == "" {
			t.Errorf("header %s is documented and not there", name)
		}
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	content, _ := doc["content"].(map[string]any)
	switch {
	case content == nil && len(r.body) > 0:
		t.Errorf("a body where none is documented: %s", r.body)
	case content == nil:
	case content[kind] == nil:
		t.Fatalf("Content-Type %s is not documented", kind)
	case strings.HasSuffix(kind, "json"):
		d.check(t, ref+"/content/"+strings.ReplaceAll(kind, "/", "~1")+"/schema", r.body)
	}
}
