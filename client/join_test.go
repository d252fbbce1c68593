package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley.example/client"
	"parley.example/client/wire"
)

// One room that cannot be joined does not take the others away.
func TestGoesOnWithoutARoomThatCannotBeJoined(t *testing.T) {
	f := newFake(t)
	f.refuse = map[string]wire.Code{"lisa&gone": wire.UnknownUser}
	lisa := f.dial(client.Options{Session: f.session("lisa"), Rooms: []string{room, "lisa&gone"}})
	if no := next[client.NotJoined](t, lisa); no != (client.NotJoined{Room: "lisa&gone", Code: wire.UnknownUser}) {
		t.Errorf("told %+v", no)
	}
	f.post("a")
	wantIDs(t, lisa, "a")
	if err := lisa.Err(); err != nil {
		t.Error(err)
	}
}

// A list that does not fit into a frame goes in several, and tokens count when all of them have been joined.
func TestJoinsALongListInParts(t *testing.T) {
	f := newFake(t)
	f.frameBytes, f.begin = 1024, "1"
	var rooms []string
	for i := range 40 {
		rooms = append(rooms, fmt.Sprintf("lisa&%s%02d", strings.Repeat("ü", 30), i))
	}
	rooms = append(rooms, room)
	f.refuse = map[string]wire.Code{}
	for _, r := range rooms[:20] { // the whole first part, at least
		f.refuse[r] = wire.Forbidden
	}
	lisa := f.dial(client.Options{Session: f.session("lisa"), Rooms: rooms, Device: "d"})
	for _, r := range rooms[:20] {
		if no := next[client.NotJoined](t, lisa); no.Room != r {
			t.Errorf("told %+v, not %s", no, r)
		}
	}
	f.post("a")
	wantIDs(t, lisa, "a")
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	for _, j := range f.joins {
		got = append(got, j.Rooms.List...)
		if j.Device != "d" {
			t.Errorf("a part without its device: %+v", j)
		}
	}
	if !slices.Equal(got, rooms) || len(f.joins) < 3 {
		t.Errorf("%d rooms in %d frames", len(got), len(f.joins))
	}
}

// A list of names that the server would close the connection for is not sent.
func TestWatchRefusesWhatFitsIntoNoFrame(t *testing.T) {
	f := newFake(t)
	f.frameBytes = 1024
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	var we *wire.Error
	if err := lisa.Watch(t.Context(), []string{strings.Repeat("x", 2000)}); !errors.As(err, &we) || we.Code != wire.TooLarge {
		t.Errorf("got %v", err)
	}
	if err := lisa.Watch(t.Context(), []string{"avi"}); err != nil {
		t.Error(err)
	}
}

// A connection that breaks before caught_up goes on from where the catch-up began, whatever was confirmed meanwhile.
func TestGoesOnFromWhereACatchUpBegan(t *testing.T) {
	f := newFake(t)
	f.confirmed, f.slow, f.begin = map[int64]bool{}, true, "0"
	f.post("old")
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	f.post("live")
	wantIDs(t, lisa, "live")
	f.set(func() {
		f.slow, f.begin = false, ""
		f.confirmed[10], f.confirmed[20] = true, true // by another session
	})
	f.kick(0)
	if m := wantIDs(t, lisa, "old")[0]; !m.Late {
		t.Error("it is not marked as late")
	}
	next[client.CaughtUp](t, lisa)
	f.mu.Lock()
	defer f.mu.Unlock()
	if j := f.joins[1]; j.Resume != "0" || j.Since != nil {
		t.Errorf("joined again with %+v", j)
	}
}
