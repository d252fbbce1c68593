package chat

import (
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
)

func TestScreenIsNotDrivenByMessages(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, me: "Lisa"}
	s.message(wire.Message{Sender: "Avi", Room: "Avi&Lisa", Content: "a\x1b[2Jb\nLisa: fake\r\u202ec\u0007\tü", SentAt: wire.Timestamp{Time: time.Now()}})
	got := out.String()
	if strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\x1b\r\u202e\u0007\t") || !strings.Contains(got, "ü") {
		t.Errorf("printed %q", got)
	}
}

func TestScreenPresenceLines(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, me: "Lisa"}
	s.presence(wire.Presence{Snapshot: true, Online: []string{"Lisa", "Era", "Avi"}})
	s.presence(wire.Presence{Online: []string{"Avi"}, Offline: []wire.Offline{{Username: "Era"}, {Username: "Tsahi"}}})
	s.presence(wire.Presence{Unknown: true})
	s.presence(wire.Presence{Snapshot: true})
	want := "* online: Avi, Era\n* offline: Era\n* who is online is not known now\n* nobody else is online\n"
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

func TestScreenEnterDoesNotRepeat(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, me: "Lisa"}
	m := wire.Message{Sender: "Avi", Room: "Avi&Lisa", Content: "hi", Seq: 7}
	s.enter("Avi&Lisa", "Avi", []wire.Message{m})
	if !s.message(m) || strings.Count(out.String(), "hi") != 1 {
		t.Errorf("printed %q", out.String())
	}
	other := wire.Message{Sender: "Era", Room: "Era&Lisa", Content: "psst", Seq: 3}
	if s.message(other) || !strings.Contains(out.String(), "Era → Lisa: psst") {
		t.Errorf("printed %q", out.String())
	}
}
