package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

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

func TestTwoChat(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	avi := f.dial(client.Options{Session: f.session("avi")})
	next[client.CaughtUp](t, avi)
	acc, err := lisa.Send(t.Context(), client.Room("lisa", "avi"), "hello")
	if err != nil || acc.Seq == 0 || acc.ID == "" || acc.Room != room {
		t.Fatalf("accepted %+v, %v", acc, err)
	}
	m := next[client.Message](t, avi)
	if m.Content != "hello" || m.Sender != "lisa" || m.Seq != acc.Seq || client.Peer(m.Room, "avi") != "lisa" {
		t.Errorf("got %+v", m)
	}
	f.announce(wire.EvTyping, wire.Marker{Room: room, Username: "avi"})
	if ty := next[client.Typing](t, lisa); ty.Username != "avi" {
		t.Errorf("got %+v", ty)
	}
	f.announce(wire.EvRead, wire.Marker{Room: room, Username: "avi", Seq: 10})
	if r := next[client.Read](t, lisa); r.Seq != 10 {
		t.Errorf("got %+v", r)
	}
	f.announce(wire.EvError, wire.E(wire.RateLimited, "too fast"))
	if r := next[client.Refused](t, lisa); r.Err.Code != wire.RateLimited {
		t.Errorf("got %+v", r)
	}
	for _, err := range []error{lisa.Typing(t.Context(), room), lisa.Read(t.Context(), room, m.Seq), lisa.Watch(t.Context(), []string{"avi"})} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestSendAgainAfterLostAcceptance(t *testing.T) {
	f := newFake(t)
	f.eatAccepted = 2
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	acc, err := lisa.SendMessage(t.Context(), client.Outgoing{Room: room, Content: "once", ID: "m1"})
	if err != nil || acc.ID != "m1" {
		t.Fatalf("accepted %+v, %v", acc, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.msgs) != 1 {
		t.Errorf("stored %d times", len(f.msgs))
	}
	for i, s := range f.sends {
		if s.ID != "m1" || s.Retry != (i > 0) {
			t.Errorf("send %d was %+v", i, s)
		}
	}
}

func TestSendThroughUnavailable(t *testing.T) {
	f := newFake(t)
	f.sayNo = []*wire.Error{wire.E(wire.Unavailable, "later"), {Code: wire.RateLimited, Message: "slowly", RetryAfterMS: 5}}
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	if _, err := lisa.Send(t.Context(), room, "persistent"); err != nil {
		t.Fatal(err)
	}
	// A first attempt that is refused was certainly not stored: the caller decides.
	for _, code := range []wire.Code{wire.RateLimited, wire.IDConflict, wire.TooLarge} {
		f.set(func() { f.sayNo = []*wire.Error{wire.E(code, "no")} })
		var we *wire.Error
		if _, err := lisa.Send(t.Context(), room, "x"); !errors.As(err, &we) || we.Code != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
}

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

// A network that goes away without a good-bye: a message finds out long before a ping of the server's is missed.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	f := newFake(t)
	f.silent = true
	lisa := f.dial(client.Options{Session: f.session("lisa"), AnswerTimeout: 300 * time.Millisecond})
	sent := make(chan error, 1)
	go func() {
		_, err := lisa.SendMessage(t.Context(), client.Outgoing{Room: room, Content: "x", ID: "m1"})
		sent <- err
	}()
	if d := next[client.Disconnected](t, lisa); d.Err == nil || !strings.Contains(d.Err.Error(), "does not answer") {
		t.Errorf("disconnected for %v", d.Err)
	}
	f.set(func() { f.silent = false })
	if err := <-sent; err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byID["lisam1"] != 0 || len(f.msgs) != 1 {
		t.Errorf("stored %+v", f.msgs)
	}
}

// A load balancer takes connections for a server that has just gone: another try is made long before a welcome would be late (10 s).
func TestDeadAddressIsGivenUp(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa"), MinBackoff: time.Millisecond})
	f.set(func() { f.dead = 1 })
	f.kick(0)
	next[client.Disconnected](t, lisa)
	gone := time.Now()
	next[client.Reconnected](t, lisa)
	if took := time.Since(gone); took > 8*time.Second {
		t.Errorf("reconnected after %v", took)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dials != 3 {
		t.Errorf("%d connections", f.dials)
	}
}

// A server that is slow with messages and says that it is there keeps its clients. It is asked once for all that wait: frames are limited.
func TestSlowServerKeepsItsClients(t *testing.T) {
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

func TestResumeDropsWhatWasSeen(t *testing.T) {
	f := newFake(t)
	f.post("old")
	lisa := f.dial(client.Options{Session: f.session("lisa"), Resume: "0"})
	wantIDs(t, lisa, "old")
	next[client.CaughtUp](t, lisa)
	f.post("a")
	wantIDs(t, lisa, "a")
	f.set(func() { f.hide[30] = true }) // sent while the socket is half dead
	f.post("b")
	f.kick(0)
	next[client.Disconnected](t, lisa)
	next[client.Reconnected](t, lisa)
	wantIDs(t, lisa, "b") // "a" comes again from the resume token, and is dropped
	if cu := next[client.CaughtUp](t, lisa); cu.Resume != "30" || lisa.Resume() != "30" {
		t.Errorf("resume %q, %q", cu.Resume, lisa.Resume())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.joins[1].Resume != "10" || !f.joins[1].Rooms.All {
		t.Errorf("joined again with %+v", f.joins[1])
	}
}

// A server that is another installation does not know the token: the client joins without one.
func TestRefusedResumeToken(t *testing.T) {
	f := newFake(t)
	f.badResume, f.confirmed = true, map[int64]bool{}
	if _, err := client.Dial(t.Context(), client.Options{Session: f.session("lisa"), Resume: "1"}); err == nil {
		t.Error("a bad token of the caller's was hidden")
	}
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	f.post("a")
	wantIDs(t, lisa, "a")
	f.set(func() { f.hide[20] = true })
	f.post("b")
	f.kick(0)
	next[client.Reconnected](t, lisa)
	wantIDs(t, lisa, "b")
	f.mu.Lock()
	defer f.mu.Unlock()
	if j := f.joins[len(f.joins)-1]; j.Resume != "" || j.Since != nil {
		t.Errorf("joined with %+v", j)
	}
}

// Before caught_up, what is live may overtake what was missed, also one's own. A gateway that dies then has lost nothing.
func TestOvertakenBeforeCaughtUp(t *testing.T) {
	f := newFake(t)
	f.confirmed, f.slow = map[int64]bool{}, true
	f.post("old")
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	f.post("live")
	wantIDs(t, lisa, "live")
	if _, err := lisa.Send(t.Context(), room, "mine"); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.slow = false })
	f.kick(0)
	next[client.Reconnected](t, lisa)
	if m := next[client.Message](t, lisa); m.ID != "old" {
		t.Errorf("%q came", m.ID)
	}
	next[client.CaughtUp](t, lisa)
	f.mu.Lock()
	defer f.mu.Unlock()
	if j := f.joins[1]; j.Resume != "" || j.Since != nil {
		t.Errorf("joined again with %+v", j)
	}
}

// What was dropped because nobody read must not be confirmed by a pong.
func TestNoPongWhileLagging(t *testing.T) {
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

// What was lost on its way comes late, and what came after it does not wait for it.
func TestLateIsHandedOnAtOnce(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	f.post("m1")
	f.set(func() { f.hide[20] = true })
	f.post("m2")
	f.post("m3")
	wantIDs(t, lisa, "m1", "m3")
	m2 := f.msgs[1]
	m2.Late = true
	f.announce(wire.EvReceived, m2)
	f.announce(wire.EvReceived, m2)
	f.post("m4")
	if got := wantIDs(t, lisa, "m2", "m4"); !got[0].Late || got[1].Late {
		t.Errorf("got %+v", got)
	}
}

// A bot that answers in its event loop must not lock itself out, however many messages come at once.
func TestEchoWithFullQueue(t *testing.T) {
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

func TestCloseCodes(t *testing.T) {
	for _, cl := range wire.Closes {
		t.Run(cl.Reason, func(t *testing.T) {
			f := newFake(t)
			lisa := f.dial(client.Options{Session: f.session("lisa")})
			next[client.CaughtUp](t, lisa)
			// A token that cannot be renewed is refused again.
			if cl == wire.CloseTokenExpired || cl == wire.CloseNoAuth {
				f.set(func() { delete(f.tokens, "tok-lisa") })
			}
			f.kick(cl.Code)
			if cl.Reconnect {
				next[client.Reconnected](t, lisa)
				return
			}
			for range lisa.Events() { //nolint:revive // until it ends
			}
			var ce *client.CloseError
			var we *wire.Error
			if err := lisa.Err(); !(errors.As(err, &ce) && ce.Code == cl.Code) && !(errors.As(err, &we) && we.Code == wire.Unauthenticated) {
				t.Errorf("ended with %v", err)
			}
			if _, err := lisa.Send(t.Context(), room, "x"); err == nil {
				t.Error("sent over an ended connection")
			}
		})
	}
}

func TestExpiredTokenIsRenewed(t *testing.T) {
	f := newFake(t)
	me, err := f.client().Login(t.Context(), "lisa", "secret")
	if err != nil {
		t.Fatal(err)
	}
	lisa := f.dial(client.Options{Session: me})
	next[client.CaughtUp](t, lisa)
	f.set(func() { delete(f.tokens, "tok-lisa") })
	f.kick(wire.CloseTokenExpired.Code)
	next[client.Reconnected](t, lisa)
	if tok := me.Tokens().AccessToken; tok != "fresh-1" {
		t.Errorf("token %q", tok)
	}
}

func TestTokenIsRenewedOnLiveSocket(t *testing.T) {
	f := newFake(t)
	f.expiresIn = 1
	me, err := f.client().Login(t.Context(), "lisa", "secret")
	if err != nil {
		t.Fatal(err)
	}
	f.dial(client.Options{Session: me})
	eventually(t, "refresh_token comes", 10*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Contains(f.said, wire.EvRefreshToken) && f.dials == 1
	})
}

func TestGoingAway(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa"), MinBackoff: time.Hour, MaxBackoff: time.Hour})
	next[client.CaughtUp](t, lisa)
	f.announce(wire.EvGoingAway, wire.GoingAway{ReconnectInMS: 20})
	next[client.Reconnected](t, lisa) // without the backoff
}

func TestDeadLinkIsNoticed(t *testing.T) {
	f := newFake(t)
	f.heartbeat = 1 // and the fake never pings
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	next[client.Disconnected](t, lisa)
	next[client.Reconnected](t, lisa)
}

func TestPingsAreAnswered(t *testing.T) {
	f := newFake(t)
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	pong := make(chan string, 1)
	f.set(func() {
		for c := range f.conns {
			c.ws.SetPongHandler(func(s string) error { pong <- s; return nil })
			_ = c.ws.WriteControl(websocket.PingMessage, []byte("p7"), time.Now().Add(time.Second))
		}
	})
	select {
	case s := <-pong:
		if s != "p7" {
			t.Errorf("pong %q", s)
		}
	case <-time.After(5 * time.Second):
		t.Error("no pong")
	}
}

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

func TestManySendersWhileTheServerFalls(t *testing.T) {
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

// A message that its sender gave up is stored all the same: it comes as an event, whether the acceptance came late or with the answer.
func TestAcceptedAfterGivingUp(t *testing.T) {
	f := newFake(t)
	f.mute = true
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := lisa.SendMessage(ctx, client.Outgoing{Room: "lisa&avi", Content: "hello", ID: "m1"})
		done <- err
	}()
	eventually(t, "the message is under way", 10*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.sends) == 1
	})
	cancel()
	var unknown *client.OutcomeUnknownError
	if err := <-done; !errors.As(err, &unknown) {
		t.Fatalf("got %v", err)
	}
	f.announce(wire.EvAccepted, wire.Message{Room: room, ID: "m1", Seq: 10, Prev: new(int64)})
	if m := next[client.Message](t, lisa); m.ID != "m1" || m.Content != "hello" || m.Sender != "lisa" {
		t.Errorf("got %+v", m)
	}
}

// An id that was used before, for another text: that message is not the answer to this one.
func TestAnswerOfAnotherText(t *testing.T) {
	f := newFake(t)
	f.mute = true
	lisa := f.dial(client.Options{Session: f.session("lisa")})
	next[client.CaughtUp](t, lisa)
	done := make(chan error, 1)
	go func() {
		_, err := lisa.SendMessage(t.Context(), client.Outgoing{Room: room, Content: "second", ID: "m1"})
		done <- err
	}()
	eventually(t, "the message is under way", 10*time.Second, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.sends) == 1
	})
	f.announce(wire.EvReceived, wire.Message{Sender: "lisa", Content: "first", Room: room, ID: "m1", Seq: 10, Prev: new(int64)})
	if m := next[client.Message](t, lisa); m.Content != "first" {
		t.Errorf("got %+v", m)
	}
	f.set(func() { f.sayNo = []*wire.Error{wire.E(wire.IDConflict, "another message")} })
	f.set(func() { f.mute = false })
	f.kick(0)
	var we *wire.Error
	if err := <-done; !errors.As(err, &we) || we.Code != wire.IDConflict {
		t.Errorf("got %v", err)
	}
}
