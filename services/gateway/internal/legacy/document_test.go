package legacy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/token"
	"parley.example/services/gateway/apidocs"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest/doors"
	"parley.example/services/gateway/internal/wsconn"
)

// message is a message of the document's second channel.
type message struct {
	name     string
	payload  string // reference of the schema
	required []string
	ack      string           // the same of the acknowledgement; "" for none
	examples []map[string]any // payloads
}

type document struct {
	t        *testing.T
	root     map[string]any
	compiler *jsonschema.Compiler
}

func loadDocument(t *testing.T) *document {
	t.Helper()
	text, err := yaml.YAMLToJSON(apidocs.AsyncAPI)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("mem:///document", v); err != nil {
		t.Fatal(err)
	}
	return &document{t, v.(map[string]any), c}
}

func (d *document) object(ref string) map[string]any {
	d.t.Helper()
	m := d.root
	for _, p := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		next, ok := m[p].(map[string]any)
		if !ok {
			d.t.Fatalf("%s is no object", ref)
		}
		m = next
	}
	return m
}

func (d *document) messages(operation string) map[string]message {
	d.t.Helper()
	ref := func(v any) string { return v.(map[string]any)["$ref"].(string) }
	out := map[string]message{}
	for _, e := range d.object("#/operations/" + operation)["messages"].([]any) {
		m := d.object(ref(d.object(ref(e))))
		one := message{name: m["name"].(string), payload: ref(m["payload"])}
		if m["x-ack"] != nil {
			one.ack = ref(m["x-ack"])
		}
		for _, r := range d.object(one.payload)["required"].([]any) {
			one.required = append(one.required, r.(string))
		}
		for _, e := range m["examples"].([]any) {
			one.examples = append(one.examples, e.(map[string]any)["payload"].(map[string]any))
		}
		out[one.name] = one
	}
	return out
}

// check fails unless v is as the schema says and has no field beside.
func (d *document) check(ref string, v []byte) {
	d.t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(v))
	if err != nil {
		d.t.Fatalf("%s: %v", v, err)
	}
	s, err := d.compiler.Compile("mem:///document" + ref)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := s.Validate(value); err != nil {
		d.t.Errorf("%s\nis not as the document says: %v", v, err)
	}
	known := d.object(ref)["properties"].(map[string]any)
	for name := range value.(map[string]any) {
		if known[name] == nil {
			d.t.Errorf("%s has %q, which %s does not", v, name, ref)
		}
	}
}

// fields fails unless the schemas together have the JSON fields of the struct.
func (d *document) fields(v any, refs ...string) {
	d.t.Helper()
	documented := map[string]bool{}
	for _, ref := range refs {
		for name := range d.object(ref)["properties"].(map[string]any) {
			documented[name] = true
		}
	}
	typ := reflect.TypeOf(v)
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if !documented[name] {
			d.t.Errorf("%s: %q is in the code only", typ, name)
		}
		delete(documented, name)
	}
	for name := range documented {
		d.t.Errorf("%s: %q is in the document only", typ, name)
	}
}

// oneToken is a Verifier that knows the token of the document's examples.
type oneToken struct{}

func (oneToken) Verify(tok string, _ time.Time) (token.Claims, error) {
	if tok != "eyJhbGciOiJFZERTQSJ9.e30.c2ln" {
		return token.Claims{}, token.ErrInvalid
	}
	return token.Claims{Username: "Lisa", SID: "x", Scope: token.ScopeLegacy, Expires: time.Now().Add(time.Hour)}, nil
}
func (oneToken) Disabled(string) bool      { return false }
func (oneToken) Revoked(token.Claims) bool { return false }

// polling is a client that polls. It keeps all events, by name.
type polling struct {
	t      *testing.T
	url    string
	last   int // ack
	acks   map[string][]byte
	events map[string][][]byte
}

func (p *polling) request(method, body string) string {
	p.t.Helper()
	r, err := http.NewRequest(method, p.url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		p.t.Fatalf("%s: status %d, %s, %v", method, resp.StatusCode, b, err)
	}
	return string(b)
}

// poll takes what is there.
func (p *polling) poll() {
	p.t.Helper()
	for _, one := range strings.Split(p.request("GET", ""), "\x1e") {
		switch {
		case strings.HasPrefix(one, "42"):
			var ev []json.RawMessage
			var name string
			if json.Unmarshal([]byte(one[2:]), &ev) != nil || len(ev) != 2 || json.Unmarshal(ev[0], &name) != nil {
				p.t.Fatalf("an event has a name and one argument: %s", one)
			}
			p.events[name] = append(p.events[name], ev[1])
		case strings.HasPrefix(one, "43"):
			id, list, _ := strings.Cut(one[2:], "[")
			p.acks[id] = []byte(strings.TrimSuffix(list, "]"))
		}
	}
}

// emit sends an event and returns what its ack says.
func (p *polling) emit(name string, data any) []byte {
	p.t.Helper()
	p.last++
	id := fmt.Sprint(p.last)
	body, err := json.Marshal([]any{name, data})
	if err != nil {
		p.t.Fatal(err)
	}
	p.request("POST", "42"+id+string(body))
	return p.ack(id)
}

func (p *polling) ack(id string) []byte {
	p.t.Helper()
	for p.acks[id] == nil {
		p.poll()
	}
	return p.acks[id]
}

// TestDocument holds the second channel of asyncapi.yaml against what clients and this server really say.
func TestDocument(t *testing.T) {
	d := loadDocument(t)
	client, server := d.messages("fromSocketIOClient"), d.messages("toSocketIOClient")
	w := doors.New(t, nil)
	w.Hub.Verifier = oneToken{}
	legacy := New(w.Hub, w.Table, Config{Alive: time.Minute, Idle: time.Minute, Bots: []string{"Leonid"}}, w.Services())
	srv := httptest.NewServer(engineio.New(engineio.Config{PingInterval: time.Minute, PingTimeout: time.Minute, MaxPayload: 65536,
		Budget: &wsconn.Budget{PerConn: 1 << 20, Total: 1 << 20}}, legacy.Accept))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()

	p := &polling{t: t, url: srv.URL + "/?EIO=4&transport=polling", acks: map[string][]byte{}, events: map[string][][]byte{}}
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(p.request("GET", "")[1:]), &open); err != nil {
		t.Fatal(err)
	}
	p.url += "&sid=" + open.SID
	p.request("POST", "40")
	p.poll()
	old := w.Table.All()[0].(*conn)

	// What clients say. Every example is taken, and each required field is asked for.
	if ack := string(p.emit(wire.EvJoin, client[wire.EvJoin].examples[0])); ack != `{"result":"success"}` {
		t.Fatalf("join: %s", ack)
	}
	var payloads, acks []string
	for _, name := range append(slices.Sorted(maps.Keys(client)), wire.ClientEvents...) {
		m, documented := client[name]
		if !documented {
			if ack := string(p.emit(name, map[string]any{})); !strings.Contains(ack, "there is no event") {
				t.Errorf("%s is in the code only: %s", name, ack)
			}
			continue
		}
		payloads, acks = append(payloads, m.payload), append(acks, m.ack)
		for _, field := range m.required {
			if name == wire.EvAlive {
				continue // without a client it is no sign of life; nobody is told
			}
			less := map[string]any{}
			for k, v := range m.examples[0] {
				if k != field {
					less[k] = v
				}
			}
			ack := p.emit(name, less)
			if string(ack) != `{"error":"Invalid request, missing required field: `+field+`"}` {
				t.Errorf("%s without %s: %s", name, field, ack)
			}
			d.check(m.ack, ack)
		}
		if name == wire.EvSend || name == wire.EvDisconnection {
			continue // below
		}
		for _, e := range m.examples {
			ack := p.emit(name, e)
			if !strings.Contains(string(ack), "success") {
				t.Errorf("%s: the example is answered %s", name, ack)
			}
			d.check(m.ack, ack)
		}
	}
	d.fields(event{}, payloads...)
	d.fields(answer{}, acks...)

	// What the server says.
	prev := int64(0)
	s := old.session()
	s.Send(wire.EvAccepted, &session.Accepted{Sender: "Lisa", Content: "x", Room: "Avi&Lisa", ID: "m-1", Seq: 7, Prev: &prev, SentAt: wire.Millis(1767225600123)}, "1000/")
	d.check(client[wire.EvSend].ack, p.ack("1000"))
	refused := maps.Clone(client[wire.EvSend].examples[0])
	refused["jwt"] = "other"
	d.check(client[wire.EvSend].ack, p.emit(wire.EvSend, refused))
	for _, sender := range []string{"Avi", "Leonid"} {
		stored := &api.StoredMessage{Seq: 8, A: sender, B: "Lisa", Sender: sender, ID: "x", Content: "a < b & \"c\" שלום", Prev: &prev, SentAt: 1767225600123}
		old.SendMessage(router.FromStored(stored))
		late := router.FromStored(stored)
		late.Message.Late, late.Message.Prev = true, nil
		old.SendMessage(late)
	}
	old.presence(&wire.Presence{Online: []string{"Avi"}})
	old.presence(&wire.Presence{Offline: []wire.Offline{{Username: "Avi"}}})
	s.Send(wire.EvError, &wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 5}, "")
	p.request("POST", `42["no such event",{}]`)
	goodbye := client[wire.EvDisconnection]
	ack := p.emit(goodbye.name, goodbye.examples[0]) // the last answer: all before it has come
	d.check(goodbye.ack, ack)
	if !strings.Contains(string(ack), "success") {
		t.Errorf("good-bye: %s", ack)
	}

	said := slices.Sorted(maps.Keys(p.events))
	if want := slices.Sorted(maps.Keys(server)); !slices.Equal(said, want) {
		t.Errorf("the server said %q, the document has %q", said, want)
	}
	for name, list := range p.events {
		for _, e := range list {
			d.check(server[name].payload, e)
		}
	}
	if n := len(p.events[wire.EvReceived]); n != 3 { // Admin's, Avi's twice
		t.Errorf("%d messages: %s", n, p.events[wire.EvReceived])
	}
	p.request("POST", "1")
	for w.Table.Len() > 0 {
		time.Sleep(time.Millisecond) // the connection ends in a goroutine of its own, which tells nobody
	}
	w.Hub.Wait(context.Background())
}
