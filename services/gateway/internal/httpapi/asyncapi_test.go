package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/services/gateway/apidocs"
)

// httpOnly are the codes that no frame has.
var httpOnly = []wire.Code{wire.UsernameTaken, wire.NotFound}

// payloads of the events. omit names fields of the Go type that this event does not have.
type payload struct {
	data   any
	omit   []string
	frames [][]byte // as the code encodes them
}

func encode(event string, re string, data ...any) (out [][]byte) {
	for _, d := range data {
		out = append(out, wire.Encode(event, d, re))
	}
	return out
}

func clientFrame(event string, data ...any) (out [][]byte) {
	for _, d := range data {
		raw, err := json.Marshal(d)
		if err != nil {
			panic(err)
		}
		f, err := json.Marshal(wire.Frame{Event: event, Data: raw, ID: "7"})
		if err != nil {
			panic(err)
		}
		out = append(out, f)
	}
	return out
}

func clientPayloads() map[string]payload {
	room := "Avi&Lisa"
	return map[string]payload{
		wire.EvAuthenticate: {wire.Authenticate{}, nil, clientFrame(wire.EvAuthenticate, wire.Authenticate{Token: "t"})},
		wire.EvRefreshToken: {wire.Authenticate{}, nil, clientFrame(wire.EvRefreshToken, wire.Authenticate{Token: "t"})},
		wire.EvJoin: {wire.Join{}, nil, clientFrame(wire.EvJoin, wire.Join{Room: room}, wire.Join{Rooms: wire.RoomList{All: true}, Resume: "x", Device: "d"},
			wire.Join{Rooms: wire.RoomList{List: []string{room}}, Since: map[string]int64{room: 0}})},
		wire.EvSend:          {wire.Send{}, nil, clientFrame(wire.EvSend, wire.Send{Room: room, Content: "x"}, wire.Send{Room: room, Content: "x", ID: "a.b:c-d_e", Retry: true})},
		wire.EvTyping:        {wire.Marker{}, []string{"username", "seq"}, clientFrame(wire.EvTyping, wire.Marker{Room: room})},
		wire.EvRead:          {wire.Marker{}, []string{"username"}, clientFrame(wire.EvRead, wire.Marker{Room: room, Seq: 3})},
		wire.EvWatch:         {wire.Watch{}, nil, clientFrame(wire.EvWatch, wire.Watch{Usernames: []string{"Avi"}}, wire.Watch{Usernames: []string{}})},
		wire.EvAlive:         {nil, nil, clientFrame(wire.EvAlive, nil)},
		wire.EvDisconnection: {nil, nil, clientFrame(wire.EvDisconnection, nil)},
	}
}

func serverPayloads() map[string]payload {
	room, prev, at := "Avi&Lisa", int64(0), wire.Millis(1767225600123)
	m := &wire.Message{Sender: "Avi", Content: "a < b & \"c\"\n\x01 שלום", Room: room, ID: "m-1", Seq: 7, Prev: &prev, SentAt: at, Late: true}
	bare := &wire.Message{Sender: "Avi", Content: "x", Room: room, ID: "m-1", Seq: 7, SentAt: at}
	return map[string]payload{
		wire.EvWelcome: {wire.Welcome{}, nil, encode(wire.EvWelcome, "1", wire.Welcome{Username: "Avi", Session: "s", ServerTime: at, HeartbeatS: 25,
			Limits: wire.Limits{FrameBytes: 65536, ContentBytes: 16384, MessagesPerMinute: 600}})},
		wire.EvAck:            {wire.Ack{}, nil, encode(wire.EvAck, "1", wire.Ack{}, wire.Ack{Joined: []string{"*"}}, wire.Ack{Joined: []string{room}, Refused: []wire.Refusal{{Room: "a", Code: wire.InvalidArgument}}}, wire.Ack{Resume: "x"})},
		wire.EvAccepted:       {wire.Message{}, []string{"sender", "content", "late"}, [][]byte{wire.AppendMessage(nil, m, true, "1"), wire.AppendMessage(nil, bare, true, "")}},
		wire.EvReceived:       {wire.Message{}, nil, [][]byte{wire.AppendMessage(nil, m, false, ""), wire.AppendMessage(nil, bare, false, "")}},
		wire.EvPresence:       {wire.Presence{}, nil, encode(wire.EvPresence, "", wire.Presence{Online: []string{"Avi"}, Offline: []wire.Offline{{Username: "Dana"}, {Username: "Noa", LastSeen: at}}, Snapshot: true, Unknown: true}, wire.Presence{Online: []string{}, Offline: []wire.Offline{}})},
		wire.EvTyping:         {wire.Marker{}, []string{"seq"}, encode(wire.EvTyping, "", wire.Marker{Room: room, Username: "Avi"})},
		wire.EvRead:           {wire.Marker{}, nil, encode(wire.EvRead, "", wire.Marker{Room: room, Username: "Avi", Seq: 7})},
		wire.EvDelivered:      {wire.Marker{}, nil, encode(wire.EvDelivered, "", wire.Marker{Room: room, Username: "Avi", Seq: 7})},
		wire.EvContactAdded:   {wire.Contact{}, nil, encode(wire.EvContactAdded, "", wire.Contact{Username: "Avi", Room: room})},
		wire.EvContactRemoved: {wire.Contact{}, nil, encode(wire.EvContactRemoved, "", wire.Contact{Username: "Avi", Room: room})},
		wire.EvGoingAway:      {wire.GoingAway{}, nil, encode(wire.EvGoingAway, "", wire.GoingAway{ReconnectInMS: 0})},
		wire.EvCatchingUp:     {wire.CatchingUp{}, nil, encode(wire.EvCatchingUp, "", wire.CatchingUp{Resume: "x"})},
		wire.EvCaughtUp:       {wire.CaughtUp{}, nil, encode(wire.EvCaughtUp, "", wire.CaughtUp{Resume: "x"})},
		wire.EvError: {wire.Error{}, nil, [][]byte{wire.EncodeError(wire.E(wire.Forbidden, "no"), "1"),
			wire.EncodeError(errors.New("inside"), ""), wire.EncodeError(&wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 5}, "")}},
	}
}

// events are the messages of an operation: event name to the reference of its message.
func events(t *testing.T, d *document, op string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, m := range d.object(t, "#/operations/"+op)["messages"].([]any) {
		ref := d.follow(m.(map[string]any)["$ref"].(string))
		out[d.object(t, ref)["name"].(string)] = ref
	}
	return out
}

func TestAsyncAPIHasTheEvents(t *testing.T) {
	d := load(t, apidocs.AsyncAPI)
	used := 0
	for _, side := range []struct {
		op       string
		code     []string
		payloads map[string]payload
		extra    []string // fields of the frame that this side may send beside event and data
	}{
		{"fromClient", wire.ClientEvents, clientPayloads(), []string{"id"}},
		{"toClient", wire.ServerEvents, serverPayloads(), []string{"re"}},
	} {
		t.Run(side.op, func(t *testing.T) {
			documented := events(t, d, side.op)
			used += len(documented)
			var names, known []string
			for n := range documented {
				names = append(names, n)
			}
			for n := range side.payloads {
				known = append(known, n)
			}
			sameSet(t, "events", names, side.code)
			sameSet(t, "events of this test", known, side.code)
			for event, ref := range documented {
				t.Run(event, func(t *testing.T) { checkEvent(t, d, ref+"/payload", event, side.payloads[event], side.extra) })
			}
		})
	}
	if n := len(d.object(t, "#/channels/socket/messages")); n != used {
		t.Errorf("%d messages in the channel, %d in its operations", n, used)
	}
}

// TestAsyncAPIHasTheOldClientsEvents covers what the document says of itself; TestDocument of package legacy holds it against the code.
func TestAsyncAPIHasTheOldClientsEvents(t *testing.T) {
	d := load(t, apidocs.AsyncAPI)
	used := 0
	for _, op := range []string{"fromSocketIOClient", "toSocketIOClient"} {
		for event, ref := range events(t, d, op) {
			used++
			m := d.object(t, ref)
			if _, acked := m["x-ack"]; acked != (op == "fromSocketIOClient") {
				t.Errorf("%s: x-ack is %v", event, m["x-ack"])
			}
			examples, _ := m["examples"].([]any)
			if len(examples) == 0 {
				t.Errorf("%s has no example", event)
			}
			for _, e := range examples {
				d.checkValue(t, ref+"/payload", e.(map[string]any)["payload"])
			}
		}
	}
	here, there, all := len(d.object(t, "#/channels/socketio/messages")), len(d.object(t, "#/channels/socket/messages")), len(d.object(t, "#/components/messages"))
	if here != used || here+there != all {
		t.Errorf("%d messages in components, %d and %d in the channels, %d in operations of the second", all, there, here, used)
	}
	d.matches(t, "#/components/schemas/LegacyMessage", reflect.TypeFor[wire.Message]())
	if got, want := d.object(t, "#/channels/socketio")["address"], SocketIORoute; got != want {
		t.Errorf("address %v, want %s", got, want)
	}
	d.refuses(t, "#/components/schemas/LegacyAck", `{}`)
	d.refuses(t, "#/components/schemas/LegacySent", `{"result":"success"}`)
	d.refuses(t, "#/components/schemas/LegacyMessage", `{"sender":"Avi"}`)
}

func checkEvent(t *testing.T, d *document, ref, event string, p payload, extra []string) {
	t.Helper()
	props := d.object(t, ref+"/properties")
	if got := d.object(t, ref+"/properties/event")["const"]; got != event {
		t.Errorf("the event of the payload is %v", got)
	}
	allowed := append([]string{"event", "data"}, extra...)
	for name := range props {
		if !slices.Contains(allowed, name) {
			t.Errorf("a frame of this side has no %q", name)
		}
	}
	if p.data != nil {
		data := d.follow(ref + "/properties/data")
		d.matches(t, data, reflect.TypeOf(p.data), p.omit...)
		required(t, d, data, reflect.TypeOf(p.data))
	} else if props["data"] != nil {
		t.Error("this event has no data")
	}
	for _, f := range p.frames {
		d.check(t, ref, f)
		var got map[string]any
		if err := json.Unmarshal(f, &got); err != nil {
			t.Fatal(err)
		}
		for name := range got {
			if props[name] == nil && !(name == "data" && p.data == nil) {
				t.Errorf("the frame %s has %q, which is not documented", f, name)
			}
		}
	}
	d.refuses(t, ref, `{"event":"`+event+`x","data":{}}`)
	examples, _ := d.object(t, strings.TrimSuffix(ref, "/payload"))["examples"].([]any)
	if len(examples) == 0 {
		t.Error("there is no example")
	}
	for _, e := range examples {
		d.checkValue(t, ref, e.(map[string]any)["payload"])
	}
}

// required fails when a field that the code always writes is documented as optional.
func required(t *testing.T, d *document, ref string, typ reflect.Type) {
	t.Helper()
	list, _ := d.object(t, ref)["required"].([]any)
	props := d.object(t, ref+"/properties")
	for i := range typ.NumField() {
		name, opts, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(opts, "omit") && props[name] != nil && !slices.Contains(list, any(name)) {
			t.Errorf("%s: %s is always there, and not required", ref, name)
		}
	}
}

func TestAsyncAPIHasTheFields(t *testing.T) {
	d := load(t, apidocs.AsyncAPI)
	d.matches(t, "#/components/schemas/Limits", reflect.TypeFor[wire.Limits]())
	d.matches(t, "#/components/schemas/Offline", reflect.TypeFor[wire.Offline]())
	d.matches(t, "#/components/schemas/Refusal", reflect.TypeFor[wire.Refusal]())
	// Every object is one of these three, or the data or ack of an event, which other tests compare.
	seen := map[string]bool{"#/components/schemas/Limits": true, "#/components/schemas/Offline": true, "#/components/schemas/Refusal": true}
	for name := range d.object(t, "#/components/messages") {
		at := "#/components/messages/" + name
		for _, part := range []string{"/payload", "/payload/properties/data", "/x-ack"} {
			seen[d.follow(at+part)] = true
		}
	}
	for name := range d.object(t, "#/components/schemas") {
		if ref := "#/components/schemas/" + name; d.object(t, ref)["type"] == "object" && !seen[ref] {
			t.Errorf("%s belongs to no event", ref)
		}
	}
	for _, l := range []struct {
		ref, key string
		want     int
	}{
		{"#/components/schemas/FrameID", "maxLength", wire.MaxIDChars},
		{"#/components/schemas/Join/properties/device", "maxLength", wire.MaxIDChars},
		{"#/components/schemas/Join/properties/since", "maxProperties", wire.MaxSinceRooms},
		{"#/components/schemas/Watch/properties/usernames", "maxItems", wire.MaxWatchedUsers},
	} {
		if got := number(t, d.object(t, l.ref)[l.key]); got != l.want {
			t.Errorf("%s of %s: %d in the document, %d in the code", l.key, l.ref, got, l.want)
		}
	}
}

func TestAsyncAPIHasTheCodes(t *testing.T) {
	d := load(t, apidocs.AsyncAPI)
	var code []string
	for _, c := range wire.Codes {
		if !slices.Contains(httpOnly, c) {
			code = append(code, string(c))
		}
	}
	sameSet(t, "enum of codes", texts(t, d.object(t, "#/components/schemas/Error/properties/code")["enum"]), code)
	var listed []string
	for _, e := range d.root["x-error-codes"].([]any) {
		listed = append(listed, e.(map[string]any)["code"].(string))
	}
	sameSet(t, "x-error-codes", listed, code)
}

func TestAsyncAPIHasTheCloses(t *testing.T) {
	d := load(t, apidocs.AsyncAPI)
	var documented, code []string
	for _, e := range d.root["x-close-codes"].([]any) {
		m := e.(map[string]any)
		documented = append(documented, fmt.Sprint(m["code"], " ", m["reason"], " ", m["reconnect"]))
	}
	for _, c := range wire.Closes {
		code = append(code, fmt.Sprint(c.Code, " ", c.Reason, " ", c.Reconnect))
	}
	sameSet(t, "closes", documented, code)
}
