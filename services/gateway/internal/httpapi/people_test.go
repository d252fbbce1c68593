package httpapi

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
)

func decode[T any](t *testing.T, r reply) T {
	t.Helper()
	var v T
	if r.StatusCode != 200 {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestContacts(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	w.contacts = api.ContactsPage{Usernames: []string{"Avi", "Dana", "Lisa", "noa"}, Next: "noa"}
	w.online["Lisa"] = true
	w.lastSeen["Dana"], w.lastSeen["Lisa"] = 1767225600123, 5
	r := ask(h, "GET", "/v1/contacts?prefix=a%26b&after=x&limit=7", "Avi", "")
	const want = `{"contacts":[{"username":"Dana","room":"Avi&Dana","online":false,"last_seen":"2026-01-01T00:00:00.123Z"},` +
		`{"username":"Lisa","room":"Avi&Lisa","online":true},{"username":"noa","room":"Avi&noa","online":false}],"next":"noa"}`
	if got := strings.TrimSpace(string(r.body)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !reflect.DeepEqual(w.contactReqs[0], api.ContactsRequest{Username: "Avi", Prefix: "a&b", After: "x", Limit: 7}) {
		t.Errorf("the service was asked %+v", w.contactReqs[0])
	}
	if got := w.seenReqs[0].Users; len(got) != 2 {
		t.Errorf("asked when these were seen: %v", got)
	}

	w.contacts = api.ContactsPage{}
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/contacts", "Avi", "").body)); got != `{"contacts":[]}` {
		t.Errorf("nobody: %s", got)
	}
	if len(w.seenReqs) != 1 {
		t.Error("asked when nobody was seen")
	}
}

func TestContactsWithoutPresence(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	w.contacts = api.ContactsPage{Usernames: []string{"Dana"}}
	w.unknown = true
	const unknown = `{"contacts":[{"username":"Dana","room":"Avi&Dana","online":null}]}`
	w.fail["last_seen"] = rpc.ErrUnavailable
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/contacts", "Avi", "").body)); got != unknown {
		t.Errorf("presence away: %s", got)
	}
	delete(w.fail, "last_seen")
	w.slowSeen = true
	start := time.Now()
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/contacts", "Avi", "").body)); got != unknown {
		t.Errorf("presence slow: %s", got)
	}
	if d := time.Since(start); d > 5*time.Second { // far above lastSeenPatience, far below a request's time
		t.Errorf("the list waited %s for presence", d)
	}
	w.fail["contacts"] = rpc.ErrUnavailable
	ask(h, "GET", "/v1/contacts", "Avi", "").wants(t, 503, wire.Unavailable)
}

func TestLimits(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	asked := map[string]func() int{
		"/v1/contacts":                func() int { return w.contactReqs[len(w.contactReqs)-1].Limit },
		"/v1/conversations":           func() int { return w.convReqs[len(w.convReqs)-1].Limit },
		"/v1/rooms/Avi&Lisa/messages": func() int { return w.pages[len(w.pages)-1].Limit },
	}
	for path, limit := range asked {
		most, def := historyMost, historyDefault
		if path == "/v1/contacts" {
			most, def = contactsMost, contactsDefault
		}
		for q, want := range map[string]int{"": def, "?limit=1": 1, "?limit=200": 200, "?limit=100000": most, "?limit=99999999999999999999999": most} {
			if r := ask(h, "GET", path+q, "Avi", ""); r.StatusCode != 200 {
				t.Fatalf("%s%s: %d", path, q, r.StatusCode)
			}
			if got := limit(); got != want {
				t.Errorf("%s%s: asked for %d, want %d", path, q, got, want)
			}
		}
		for _, q := range []string{"-1", "0", "x", "", "1.5", "0x10", "-99999999999999999999999", "١"} {
			ask(h, "GET", path+"?limit="+url.QueryEscape(q), "Avi", "").wants(t, 400, wire.InvalidArgument)
		}
	}
}

func TestPairs(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	for _, c := range []struct{ method, path, what string }{
		{"PUT", "/v1/contacts/", "put_contact"}, {"DELETE", "/v1/contacts/", "delete_contact"},
		{"PUT", "/v1/blocks/", "put_block"}, {"DELETE", "/v1/blocks/", "delete_block"},
	} {
		r := ask(h, c.method, c.path+"Ame%CC%81lie", "Avi", "")
		if r.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %d", c.method, c.path, r.StatusCode)
		}
		if got := w.pairs[c.what]; len(got) != 1 || got[0] != (api.PairRequest{Username: "Avi", Peer: "Amélie"}) {
			t.Errorf("%s: the service was asked %+v", c.what, got)
		}
		for _, bad := range []string{"*", "%3E", "a%26b", "a%20b", "a%2Fb", "%2E%2E%2Fx", "%F0%9F%98%80", strings.Repeat("a", 65), "a%00b", "%E2%80%AEx", "%ff"} {
			ask(h, c.method, c.path+bad, "Avi", "").wants(t, 400, wire.InvalidUsername)
		}
		ask(h, c.method, c.path+"AVI", "Avi", "").wants(t, 400, wire.InvalidArgument)
		ask(h, c.method, c.path+"lisa", "", "").wants(t, 401, wire.Unauthenticated)
		w.fail[c.what] = wire.E(wire.Forbidden, "no")
		ask(h, c.method, c.path+"lisa", "Avi", "").wants(t, 403, wire.Forbidden)
	}
	delete(w.fail, "put_contact")
	for state, want := range map[string]string{"requested": "requested", "contact": "contact", "": "contact"} {
		w.state = state
		if got := decode[wire.ContactState](t, ask(h, "PUT", "/v1/contacts/lisa", "Avi", "")); got.State != want {
			t.Errorf("state %q for %q", got.State, state)
		}
	}
}

func TestMessages(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	first := int64(0)
	w.page = api.PageResponse{More: true, Messages: []api.StoredMessage{
		{P: 3, Seq: 7, A: "Avi", B: "Lisa", Sender: "Lisa", ID: "m-1", Content: "<b>&\u2028", Prev: &first, SentAt: 1767225600123},
		{P: 3, Seq: 9, A: "Avi", B: "Lisa", Sender: "Avi", ID: "m-2", Content: "x", SentAt: 1767225600999},
	}}
	const want = `{"messages":[{"sender":"Lisa","content":"<b>&\u2028","conversation_room":"Avi&Lisa","id":"m-1","seq":7,"prev":0,"sent_at":"2026-01-01T00:00:00.123Z"},` +
		`{"sender":"Avi","content":"x","conversation_room":"Avi&Lisa","id":"m-2","seq":9,"sent_at":"2026-01-01T00:00:00.999Z"}],"more":true}`
	for _, path := range []string{"Avi&Lisa", "Lisa&Avi", "avi%26LISA", "lisa%26AVI", "L%69sa&Avi"} {
		r := ask(h, "GET", "/v1/rooms/"+path+"/messages", "Avi", "")
		if got := strings.TrimSpace(string(r.body)); got != want {
			t.Errorf("%s: %d\ngot  %s\nwant %s", path, r.StatusCode, got, want)
		}
		if got := w.pages[len(w.pages)-1]; got.A != "Avi" || got.B != "Lisa" {
			t.Errorf("%s: asked for %+v", path, got)
		}
	}

	after := func(n int64) *int64 { return &n }
	for q, want := range map[string]api.PageRequest{
		"":                 {A: "Avi", B: "Lisa", Limit: 50},
		"?before=7&limit=": {},
		"?before=7":        {A: "Avi", B: "Lisa", Limit: 50, Before: 7},
		"?after=0":         {A: "Avi", B: "Lisa", Limit: 50, After: after(0)},
		"?after=9&limit=2": {A: "Avi", B: "Lisa", Limit: 2, After: after(9)},
		"?before=0":        {}, "?before=-1": {}, "?after=-1": {}, "?after=x": {}, "?before=": {}, "?before=1&after=1": {}, "?before=1&after=": {},
	} {
		n := len(w.pages)
		r := ask(h, "GET", "/v1/rooms/Avi&Lisa/messages"+q, "Avi", "")
		if want.A == "" {
			r.wants(t, 400, wire.InvalidArgument)
			continue
		}
		if len(w.pages) != n+1 {
			t.Fatalf("%s: %d", q, r.StatusCode)
		}
		got := w.pages[n]
		if (got.After == nil) != (want.After == nil) || got.After != nil && *got.After != *want.After {
			t.Errorf("%s: after", q)
		}
		got.After, want.After = nil, nil
		want.MinApplied = []int64{7, 9}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: asked for %+v", q, got)
		}
	}
	w.page = api.PageResponse{More: true, Behind: true}
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/rooms/Avi&Lisa/messages?after=9", "Avi", "").body)); got != `{"messages":[],"more":true,"behind":true}` {
		t.Errorf("behind: %s", got)
	}
	w.convs = api.ConversationsPage{Behind: true}
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/conversations", "Avi", "").body)); got != `{"conversations":[],"behind":true}` {
		t.Errorf("behind: %s", got)
	}
	if got := w.convReqs[len(w.convReqs)-1]; !slices.Equal(got.MinApplied, []int64{7, 9}) {
		t.Errorf("conversations: asked for %+v", got)
	}
	w.fail["page"] = rpc.ErrUnavailable
	r := ask(h, "GET", "/v1/rooms/Avi&Lisa/messages", "Avi", "")
	r.wants(t, 503, wire.Unavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestRoomsOfOthers: nothing in the answer, or in what is asked inside, depends on whether such a room exists.
func TestRoomsOfOthers(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	var first string
	for _, other := range []string{"Dana&Lisa", "lisa&dana", "nobody&noone", "Dana&nobody"} {
		r := ask(h, "GET", "/v1/rooms/"+other+"/messages", "Avi", "")
		r.wants(t, 403, wire.Forbidden)
		if first == "" {
			first = string(r.body)
		}
		if string(r.body) != first {
			t.Errorf("%s: %s differs from %s", other, r.body, first)
		}
	}
	if len(w.resolved)+len(w.pages) > 0 {
		t.Errorf("a foreign room was looked up: %v %v", w.resolved, w.pages)
	}

	empty := string(ask(h, "GET", "/v1/rooms/avi&lisa/messages", "Avi", "").body)
	if got := string(ask(h, "GET", "/v1/rooms/avi&nobody/messages", "Avi", "").body); got != empty {
		t.Errorf("with a name that nobody has: %s; with one where nothing was said: %s", got, empty)
	}
	// A room of somebody who was erased is looked for under the registered name.
	w.erased = map[string]string{"mona": "Mona"}
	for _, name := range []string{"avi&mona", "MONA&avi"} {
		if got := string(ask(h, "GET", "/v1/rooms/"+name+"/messages", "Avi", "").body); got != empty {
			t.Errorf("with one who was erased: %s; with one where nothing was said: %s", got, empty)
		}
		if p := w.pages[len(w.pages)-1]; p.A != "Avi" || p.B != "Mona" {
			t.Errorf("%s is %s&%s", name, p.A, p.B)
		}
	}
	for _, bad := range []string{"avi", "avi&avi", "Avi&AVI", "avi&", "&lisa", "avi&lisa&dana", "avi&*", "avi&%3E", "avi&a%20b", "%ff&avi"} {
		ask(h, "GET", "/v1/rooms/"+bad+"/messages", "Avi", "").wants(t, 400, wire.InvalidArgument)
	}
	w.fail["resolve"] = rpc.ErrUnavailable
	ask(h, "GET", "/v1/rooms/avi&lisa/messages", "Avi", "").wants(t, 503, wire.Unavailable)
	w.fail["resolve"] = wire.E(wire.Forbidden, "no")
	ask(h, "GET", "/v1/rooms/avi&lisa/messages", "Avi", "").wants(t, 403, wire.Forbidden)
}

func TestConversations(t *testing.T) {
	w := newWorld()
	h := w.handler(t, testConfig())
	if got := strings.TrimSpace(string(ask(h, "GET", "/v1/conversations", "Avi", "").body)); got != `{"conversations":[]}` {
		t.Errorf("none: %s", got)
	}
	w.convs = api.ConversationsPage{Next: "n", Conversations: []api.Conversation{{
		Room: "Avi&Lisa", Peer: "Lisa", Unread: 2, ReadSeq: 3, DeliveredSeq: 4, PeerReadSeq: 5, PeerDeliveredSeq: 6,
		LastMessage: &api.StoredMessage{Seq: 7, A: "Avi", B: "Lisa", Sender: "Lisa", ID: "m", Content: "x", SentAt: 1767225600123},
	}}}
	const want = `{"conversations":[{"room":"Avi&Lisa","peer":"Lisa","last_message":{"sender":"Lisa","content":"x","conversation_room":"Avi&Lisa","id":"m","seq":7,` +
		`"sent_at":"2026-01-01T00:00:00.123Z"},"unread":2,"read_seq":3,"delivered_seq":4,"peer_read_seq":5,"peer_delivered_seq":6}],"next":"n"}`
	r := ask(h, "GET", "/v1/conversations?after=c1", "Avi", "")
	if got := strings.TrimSpace(string(r.body)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The markers of one whom the asker may not see tell when that one was there.
	w.unseen = "Lisa"
	if got := string(ask(h, "GET", "/v1/conversations?after=c1", "Avi", "").body); !strings.Contains(got, `"read_seq":3,"delivered_seq":4,"peer_read_seq":0,"peer_delivered_seq":0}`) {
		t.Errorf("unseen: %s", got)
	}
	if got := w.convReqs[1]; !reflect.DeepEqual(got, api.ConversationsRequest{Username: "Avi", After: "c1", Limit: 50, MinApplied: []int64{7, 9}}) {
		t.Errorf("asked for %+v", got)
	}
}
