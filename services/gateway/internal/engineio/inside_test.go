package engineio

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/wsconn"
)

// These tests hold a connection at a moment that no client can hold it at.

type nothing struct{}

func (nothing) Text([]byte)       {}
func (nothing) Binary([]byte)     {}
func (nothing) Pong(uint32)       {}
func (nothing) Closed(wire.Close) {}

// polled makes a server without Run and a connection that polls.
func polled() (*Server, *Conn) {
	s := New(Config{PingInterval: time.Minute, PingTimeout: time.Minute, MaxPayload: 1000, Budget: &wsconn.Budget{PerConn: 1 << 20, Total: 1 << 30}},
		func(*Conn, *http.Request) (Handler, error) { return nothing{}, nil })
	c := newConn(s, s.newSID())
	c.begin(nothing{}, nil)
	return s, c
}

type polledAnswer struct {
	body string
	fail *failure
}

// wait begins a poll and returns when it waits.
func wait(t *testing.T, c *Conn) <-chan polledAnswer {
	t.Helper()
	got := make(chan polledAnswer, 1)
	go func() {
		b, f := c.poll(context.Background())
		got <- polledAnswer{string(b), f}
	}()
	testx.Eventually(t, "the poll waits", 20*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.polling.waiting != nil
	})
	return got
}

// A program says why and closes. What it said must not be lost because the poll that it woke had not taken it yet.
func TestPollThatWaitedGetsWhatWasSentBeforeTheClose(t *testing.T) {
	for _, n := range []int{1, 40} {
		s, c := polled()
		got := wait(t, c)
		frame := Frame([]byte("why"))
		c.mu.Lock()
		for range n {
			c.sendFrame(frame)
		}
		c.endLocked(wire.CloseBadFrames, false)
		c.mu.Unlock()
		a := <-got
		all := strings.Split(a.body, "\x1e")
		if a.fail != nil || all[0] != "4why" || all[len(all)-1] != "1" || len(all) != min(n+1, pollPackets) {
			t.Fatalf("got %+v", a)
		}
		if s.Len() != 0 || s.cfg.Budget.Used() != 0 {
			t.Fatal("something is left")
		}
	}
}

func TestPollASecondOneAlsoWhenTheFirstWasWoken(t *testing.T) {
	_, c := polled()
	got := wait(t, c)
	c.mu.Lock()
	c.polling.wake()
	c.mu.Unlock()
	// Whether the first one waits again by now or not, there are two.
	if _, f := c.poll(context.Background()); f != failRequest {
		t.Fatalf("got %+v", f)
	}
	if a := <-got; a.fail != nil || a.body != "1" {
		t.Fatalf("got %+v", a)
	}
}

func TestPollWokenAndAGoodBye(t *testing.T) {
	_, c := polled()
	got := wait(t, c)
	c.mu.Lock()
	c.ping(time.Now().UnixNano())
	c.endLocked(wire.CloseNormal, true)
	c.mu.Unlock()
	if a := <-got; a.fail != nil || a.body != "6" {
		t.Fatalf("got %+v", a)
	}
}

func TestPollCancelledEndsTheSession(t *testing.T) {
	for name, cancelled := range map[string]func(cancel func(), c *Conn){
		"before it waits":         func(cancel func(), _ *Conn) { cancel() },
		"while it waits":          func(cancel func(), _ *Conn) { time.AfterFunc(time.Millisecond, cancel) },
		"when there is something": func(cancel func(), c *Conn) { cancel(); c.SendText([]byte("x")) },
		"when a heartbeat is due": func(cancel func(), c *Conn) { c.Ping(); cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := polled()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cancelled(cancel, c)
			if _, f := c.poll(ctx); f != failRequest {
				t.Fatalf("got %+v", f)
			}
			if _, f := c.poll(context.Background()); f != failSession || s.Len() != 0 {
				t.Fatalf("got %+v", f)
			}
		})
	}
}

func TestPauseOfTheProcessEndsNoConnection(t *testing.T) {
	s, c := polled()
	hour := time.Hour
	c.Ping()
	c.beat(time.Now().Add(hour), hour)
	if s.Len() != 1 {
		t.Fatal("ended although nothing could be read for an hour")
	}
	// Nor by a request that is served before Run has noticed.
	_, c = polled()
	c.Ping()
	c.mu.Lock()
	c.late = time.Now().Add(-time.Second).UnixNano()
	c.mu.Unlock()
	c.srv.round.Store(time.Now().Add(-hour).UnixNano())
	if b, f := c.poll(context.Background()); f != nil || string(b) != "2" {
		t.Fatalf("got %q %+v", b, f)
	}
	c.pong()
	c.beat(time.Now(), hour)
	if c.srv.Len() != 1 {
		t.Fatal("ended although it has answered")
	}
	// Without a pause it is over.
	c.Ping()
	c.beat(time.Now().Add(hour), 0)
	if c.srv.Len() != 0 {
		t.Fatal("still there")
	}
}

// While a machine is suspended, Linux' monotonic clock stands still and the one on the wall goes on, which the heartbeats go by.
func TestPauseOfTheMachineEndsNoConnection(t *testing.T) {
	s, c := polled()
	now := time.Now()
	s.look(now, nil)
	c.Ping()
	now = now.Round(0).Add(time.Hour) // by the wall only
	s.look(now, nil)
	if s.Len() != 1 {
		t.Fatal("ended although nothing could be read for an hour")
	}
	for range int((s.cfg.PingTimeout + time.Second) / s.every()) {
		now = now.Add(s.every())
		s.look(now, nil)
	}
	if s.Len() != 0 {
		t.Fatal("still there, though it could have answered since")
	}
}

func TestPollIsTooLateByTheProtocolsClock(t *testing.T) {
	_, c := polled()
	c.Ping()
	c.mu.Lock()
	c.late = time.Now().UnixNano()
	c.mu.Unlock()
	c.srv.round.Store(time.Now().UnixNano())
	if _, f := c.poll(context.Background()); f != failSession {
		t.Fatalf("got %+v", f)
	}
}
