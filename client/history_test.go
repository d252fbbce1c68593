package client_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"parley.example/client"
	"parley.example/client/wire"
)

// ids are those of a whole iterator, and its error.
func ids(seq iter.Seq2[wire.Message, error]) (string, error) {
	var out []string
	for m, err := range seq {
		if err != nil {
			return strings.Join(out, " "), err
		}
		out = append(out, m.ID)
	}
	return strings.Join(out, " "), nil
}

func TestHistoryBothWays(t *testing.T) {
	f := newFake(t)
	me := f.session("lisa")
	if got, err := ids(me.History(t.Context(), room, 0)); got != "" || err != nil {
		t.Errorf("an empty room has %q, %v", got, err)
	}
	for _, id := range []string{"a", "b", "c", "d", "e"} { // seqs 10 to 50
		f.post(id)
	}
	f.set(func() { f.tooFast = 2 })
	for _, tc := range []struct {
		name string
		seq  iter.Seq2[wire.Message, error]
		want string
	}{
		{"newest first", me.History(t.Context(), room, 0), "e d c b a"},
		{"before a seq", me.History(t.Context(), room, 40), "c b a"},
		{"oldest first", me.HistoryAfter(t.Context(), room, 0), "a b c d e"},
		{"after a seq", me.HistoryAfter(t.Context(), room, 20), "c d e"},
		{"after the last", me.HistoryAfter(t.Context(), room, 50), ""},
	} {
		if got, err := ids(tc.seq); got != tc.want || err != nil {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
	// Who stops early asks for no more pages, and may go on from there.
	last := int64(0)
	for m, err := range me.History(t.Context(), room, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if last = m.Seq; m.ID == "d" {
			break
		}
	}
	f.set(func() { f.pagesDown = true })
	var we *wire.Error
	if _, err := ids(me.History(t.Context(), room, last)); !errors.As(err, &we) || we.Code != wire.Unavailable {
		t.Errorf("without history: %v", err)
	}
	f.set(func() { f.pagesDown = false })
	if got, err := ids(me.History(t.Context(), room, last)); got != "c b a" || err != nil {
		t.Errorf("went on with %q, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ids(me.History(ended, room, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestEventsThatAreSmallHaveAContext(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{lisa.Typing(ended, room), lisa.Read(ended, room, 1), lisa.Watch(ended, nil)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}
