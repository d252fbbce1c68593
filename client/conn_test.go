package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
)

// next waits for an event of type T and skips others.
func next[T client.Event](t *testing.T, c *client.Conn) T {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case ev, ok := <-c.Events():
			if !ok {
				t.Fatalf("the connection ended: %v", c.Err())
			}
			if want, ok := ev.(T); ok {
				return want
			}
		case <-deadline:
			var want T
			t.Fatalf("no %T within 10 s", want)
		}
	}
}

func wantIDs(t *testing.T, c *client.Conn, ids ...string) []client.Message {
	t.Helper()
	var out []client.Message
	for _, id := range ids {
		m := next[client.Message](t, c)
		if m.ID != id {
			t.Fatalf("got message %q, want %q", m.ID, id)
		}
		out = append(out, m)
	}
	return out
}

// Rule 14: the reason of the caller is in the error.
func TestSendOutcomeUnknown(t *testing.T) {
	f := newFake(t)
	f.sayNo = slices.Repeat([]*wire.Error{{Code: wire.Unavailable, Message: "later", RetryAfterMS: 60_000}}, 1)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := lisa.SendMessage(ctx, client.Outgoing{Room: room, Content: "x", ID: "m9"})
	var ou *client.OutcomeUnknownError
	if !errors.As(err, &ou) || ou.ID != "m9" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := lisa.SendMessage(t.Context(), client.Outgoing{Room: room, Content: "x", ID: "bad id"}); err == nil {
		t.Error("a bad id was taken")
	}
}

// Rule 18: a server that is slow with messages and says that it is there keeps its clients. It is asked once for all that wait: frames are limited.
func TestConnectionSurvivesASlowServer(t *testing.T) {
	f := newFake(t)
	f.mute = true
	lisa := f.dial(client.Options{Session: f.session("lisa"), AnswerTimeout: 1500 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.set(func() { f.onSecondAlive = cancel })
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			_, err := lisa.SendMessage(ctx, client.Outgoing{Room: room, Content: "x"})
			var ou *client.OutcomeUnknownError
			if !errors.As(err, &ou) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dials != 1 || len(f.sends) != 100 {
		t.Errorf("%d connections, %d sends", f.dials, len(f.sends))
	}
	if f.alives > 4 {
		t.Errorf("asked %d times", f.alives)
	}
}

// Rules 11 and 20: what was dropped because nobody read must not be confirmed by a pong.
func TestPongIsNotSentWhileLagging(t *testing.T) {
	f := newFake(t)
	f.mute = true
	lisa := f.dial(client.Options{Session: f.session("lisa"), Buffer: 4, Resume: "0"})
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := lisa.Send(t.Context(), room, "waits"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the message is under way", 10*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.sends) == 1
	})
	var ids []string
	for i := range 10 {
		ids = append(ids, fmt.Sprintf("m%d", i))
		f.post(ids[i])
	}
	f.set(func() { f.mute = false })
	f.ping()
	f.announce(wire.EvGoingAway, wire.GoingAway{}) // read after the ping, and answered by a close frame after the pong
	eventually(t, "it comes back", 10*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.dials == 2 && len(f.conns) == 1
	})
	wantIDs(t, lisa, ids...)
	sending.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pongs != 0 {
		t.Errorf("%d pongs", f.pongs)
	}
}

// Rule 20: a bot that answers in its event loop must not lock itself out, however many messages come at once.
func TestSendEchoWithFullQueue(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa"), Buffer: 4, Resume: "0"})
	const n = 60
	var posting sync.WaitGroup
	posting.Go(func() {
		for i := range n {
			f.post(fmt.Sprintf("m%d", i))
		}
	})
	got := map[string]int{}
	for len(got) < n {
		m := next[client.Message](t, lisa)
		got[m.ID]++
		if len(got)%20 == 1 {
			// The answer lies behind messages that nobody reads now.
			posting.Wait()
			if _, err := lisa.Send(t.Context(), room, "echo of "+m.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s came %d times", id, times)
		}
	}
}

// Rule 21.
func TestClose(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	if err := lisa.Close(); err != nil {
		t.Fatal(err)
	}
	for range lisa.Events() { //nolint:revive // until it ends
	}
	if !errors.Is(lisa.Err(), client.ErrClosed) {
		t.Errorf("ended with %v", lisa.Err())
	}
	if _, err := lisa.Send(t.Context(), room, "x"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("send gave %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.said, wire.EvDisconnection) {
		t.Error("left without a good-bye")
	}
}

// Rule 5, and a mistake of the caller's is told by the call that made it.
func TestDialFailsAtOnce(t *testing.T) {
	f := newFake(t)
	for name, s := range map[string]*client.Session{"token": f.client().Session(client.Tokens{AccessToken: "wrong"}), "none": nil} {
		if _, err := client.Dial(t.Context(), client.Options{Session: s}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f.sayNo = []*wire.Error{wire.E(wire.Forbidden, "not your room")}
	var we *wire.Error
	if _, err := client.Dial(t.Context(), client.Options{Session: f.session("lisa"), Rooms: []string{"a&b"}}); !errors.As(err, &we) || we.Code != wire.Forbidden {
		t.Errorf("got %v", err)
	}
}

// Rule 14: however many send while the server falls, each message is stored once.
func TestSendByManyWhileTheServerFalls(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	go func() {
		for range lisa.Events() { //nolint:revive // nobody asks
		}
	}()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				if _, err := lisa.SendMessage(t.Context(), client.Outgoing{Room: room, Content: "x", ID: fmt.Sprintf("w%d-%d", w, i)}); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				if i%10 == 9 {
					f.kick(0)
				}
			}
		})
	}
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.msgs) != 200 {
		t.Errorf("%d messages are stored, want 200", len(f.msgs))
	}
}
