package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew; look at what changed before you commit it")

func ptr(n int64) *int64 { return &n }

var at = Timestamp{time.Date(2026, 3, 1, 11, 30, 0, 123999999, time.FixedZone("", 2*3600))}

// full has everything that could need escaping.
func full() *Message {
	return &Message{
		Sender: "Avi", Content: "a\"b\\c/d <e> & \x00\x1f\x7f\b\f\n\r\t \u2028\u2029 שלום \U0001F600 \xff", Room: "Avi&Lisa",
		ID: "m-1:2.3_4", Seq: 1<<53 - 1, Prev: ptr(0), SentAt: at, Late: true,
	}
}

// frames are all that a server says, one example or more an event.
func frames() []struct {
	name, event string
	bytes       []byte
} {
	room := "Avi&Lisa"
	var out []struct {
		name, event string
		bytes       []byte
	}
	add := func(event, variant string, b []byte) {
		name := event
		if variant != "" {
			name += " " + variant
		}
		out = append(out, struct {
			name, event string
			bytes       []byte
		}{name, event, b})
	}
	add(EvWelcome, "", Encode(EvWelcome, Welcome{"Avi", "3f9c", at, 25, Limits{65536, 16384, 600}}, ""))
	add(EvWelcome, "after authenticate", Encode(EvWelcome, Welcome{Username: "Avi"}, "1"))
	add(EvAck, "", Encode(EvAck, Ack{}, "1"))
	add(EvAck, "of join", Encode(EvAck, Ack{Joined: []string{room, "Avi&<b>"}}, "a\"b"))
	add(EvAck, "of a join of which a part was refused", Encode(EvAck, Ack{Joined: []string{room}, Refused: []Refusal{{"Avi&Dana", Forbidden}}}, "1"))
	add(EvAck, "of connection_alive", Encode(EvAck, Ack{Resume: "AAEC"}, "1"))
	add(EvAccepted, "", AppendMessage(nil, full(), true, "7"))
	add(EvAccepted, "bare", AppendMessage(nil, &Message{ID: "m", Room: room, Seq: 1, SentAt: at}, true, ""))
	add(EvReceived, "", AppendMessage(nil, full(), false, ""))
	add(EvReceived, "bare", AppendMessage(nil, &Message{Sender: "Lisa", Content: "x", ID: "m", Room: room, Seq: 1, SentAt: at}, false, ""))
	add(EvReceived, "later", AppendMessage(nil, &Message{Sender: "Lisa", Content: "x", ID: "m", Room: room, Seq: 9, Prev: ptr(4), SentAt: at}, false, ""))
	add(EvPresence, "snapshot", Encode(EvPresence, Presence{Online: []string{"Avi"}, Offline: []Offline{{Username: "Dana"}, {"Noa", at}}, Snapshot: true}, ""))
	add(EvPresence, "unknown", Encode(EvPresence, Presence{Online: []string{}, Offline: []Offline{}, Unknown: true}, ""))
	add(EvTyping, "", Encode(EvTyping, Marker{Room: room, Username: "Avi"}, ""))
	add(EvRead, "", Encode(EvRead, Marker{Room: room, Username: "Avi", Seq: 7}, ""))
	add(EvDelivered, "", Encode(EvDelivered, Marker{Room: room, Username: "Avi", Seq: 7}, ""))
	add(EvContactAdded, "", Encode(EvContactAdded, Contact{"Lisa", room}, ""))
	add(EvContactRemoved, "", Encode(EvContactRemoved, Contact{"Lisa", room}, ""))
	add(EvGoingAway, "", Encode(EvGoingAway, GoingAway{0}, ""))
	add(EvCatchingUp, "", Encode(EvCatchingUp, CatchingUp{"AAEC"}, ""))
	add(EvCaughtUp, "", Encode(EvCaughtUp, CaughtUp{"AAEC"}, ""))
	for _, c := range Codes {
		add(EvError, string(c), EncodeError(E(c, "a sentence"), ""))
	}
	add(EvError, "with retry", EncodeError(&Error{RateLimited, "slower", 1500}, "1"))
	add(EvError, "from inside", EncodeError(fmt.Errorf("dial 10.1.2.3: %w", errors.New("refused")), "1"))
	add(EvError, "not encodable", Encode(EvAck, func() {}, "1"))
	return out
}

func TestFramesGolden(t *testing.T) {
	var got bytes.Buffer
	seen := map[string]bool{}
	for _, f := range frames() {
		seen[f.event] = true
		if !json.Valid(f.bytes) {
			t.Errorf("%s is not JSON: %s", f.name, f.bytes)
		}
		if back, err := DecodeFrame(f.bytes); err != nil || back.Event != f.event {
			t.Errorf("%s does not come back: %+v, %v", f.name, back, err)
		}
		fmt.Fprintf(&got, "%s\n%s\n", f.name, f.bytes)
	}
	for _, e := range ServerEvents {
		if !seen[e] {
			t.Errorf("there is no example of %s", e)
		}
	}
	golden(t, "server.golden", got.Bytes())
}

// TestFramesOfClientsGolden is what clients in Go send: the types of this package, encoded by encoding/json.
func TestFramesOfClientsGolden(t *testing.T) {
	room := "Avi&Lisa"
	var got bytes.Buffer
	seen := map[string]bool{}
	for _, f := range []struct {
		event string
		data  any
	}{
		{EvAuthenticate, Authenticate{"token"}},
		{EvRefreshToken, Authenticate{"token"}},
		{EvJoin, Join{Room: room}},
		{EvJoin, Join{Rooms: RoomList{All: true}, Resume: "AAEC"}},
		{EvJoin, Join{Rooms: RoomList{List: []string{room}}, Since: map[string]int64{room: 0}, Device: "phone"}},
		{EvJoin, Join{Rooms: RoomList{List: []string{}}}},
		{EvSend, Send{Room: room, Content: "x"}},
		{EvSend, Send{Room: room, Content: "x", ID: "m", Retry: true}},
		{EvTyping, Marker{Room: room}},
		{EvRead, Marker{Room: room, Seq: 7}},
		{EvWatch, Watch{[]string{"Avi"}}},
		{EvAlive, nil},
		{EvDisconnection, nil},
	} {
		seen[f.event] = true
		b := Encode(f.event, f.data, "")
		fmt.Fprintf(&got, "%s\n", b)
	}
	for _, e := range ClientEvents {
		if !seen[e] {
			t.Errorf("there is no example of %s", e)
		}
	}
	golden(t, "client.golden", got.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	w, g := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	for i := range max(len(w), len(g)) {
		var a, b []byte
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s line %d\nis     %s\nwas    %s", path, i+1, b, a)
		}
	}
}

func TestEventsAreListedOnce(t *testing.T) {
	for _, list := range [][]string{ClientEvents, ServerEvents} {
		sorted := slices.Clone(list)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(list) {
			t.Errorf("twice in %v", list)
		}
	}
}
