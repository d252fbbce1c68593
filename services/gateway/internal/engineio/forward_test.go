package engineio_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
)

// nodes are two servers that reach each other.
type nodes struct {
	a, b  *rig
	asked atomic.Int64
	done  atomic.Int64 // of these
	// lose makes the answer of the next requests get lost on the way, after they were done.
	lose chan struct{}
}

func newNodes(t *testing.T) *nodes {
	n := &nodes{lose: make(chan struct{}, 10)}
	at := map[string]**rig{"a": &n.a, "b": &n.b}
	forward := func(ctx context.Context, node string, req engineio.Request) (engineio.Response, error) {
		n.asked.Add(1)
		holder := at[node]
		if holder == nil {
			return engineio.Response{}, engineio.ErrNoNode
		}
		resp := (*holder).server.Exchange(ctx, req)
		n.done.Add(1)
		select {
		case <-n.lose:
			return engineio.Response{}, errors.New("the answer is lost")
		default:
			return resp, nil
		}
	}
	for name, r := range at {
		*r = newRig(t, enginetest.Still, func(c *engineio.Config) { c.Node, c.Forward = name, forward })
	}
	return n
}

func TestForwardedRequestsReachTheNodeOfTheSession(t *testing.T) {
	n := newNodes(t)
	at, p := n.a.poller(t)
	if !strings.HasPrefix(at.SID, "a.") || !n.a.server.Holds(at.SID) || n.b.server.Holds(at.SID) {
		t.Fatalf("session id %q", at.SID)
	}
	from := at.At(n.b.Site)
	if a := from.Post("4hello\x1ebAQI="); a.Status != http.StatusOK || a.Body != "ok" {
		t.Fatalf("got %+v", a)
	}
	if one, two := enginetest.Wait(t, p.got), enginetest.Wait(t, p.got); one != "hello" || two != "b\x01\x02" {
		t.Fatalf("got %q %q", one, two)
	}
	// Polls that wait, here and there in turn.
	for i, c := range []*enginetest.Poller{from, at, from} {
		poll := c.Go()
		p.SendText([]byte{'a' + byte(i)})
		if a := enginetest.Wait(t, poll); a.Status != http.StatusOK || a.Body != "4"+string(rune('a'+i)) {
			t.Fatalf("got %+v", a)
		}
	}
	// An upgrade at the wrong node is refused, and the session goes on.
	if ws, status := n.b.Dial("EIO=4&transport=websocket&sid="+at.SID, ""); ws != nil || status != http.StatusBadRequest {
		t.Fatalf("got %d", status)
	}
	p.SendText([]byte("on"))
	if a := from.Get(); a.Body != "4on" {
		t.Fatalf("got %+v", a)
	}
	if a := from.Post("junk"); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	if why := enginetest.Wait(t, p.closed); why != wire.CloseProtocol {
		t.Fatalf("got %v", why)
	}
	if a := from.Get(); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "Session ID unknown") {
		t.Fatalf("got %+v", a)
	}
	n.a.wantGone(t)
}

func TestForwardedToNobodyForASessionOfNoNode(t *testing.T) {
	n := newNodes(t)
	c := n.a.Open()
	for _, sid := range []string{
		"gone.abc",                             // a node that is gone
		"b.abc",                                // a session that is
		".abc", "nobody", "*.abc", "a.b.", ">", // nonsense
		strings.Repeat("x", 5000) + ".abc", "b." + strings.Repeat("x", 5000),
	} {
		c.SID = sid
		for _, a := range []enginetest.Answer{c.Get(), c.Post("4x")} {
			if a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "Session ID unknown") {
				t.Fatalf("%.10s: got %+v", sid, a)
			}
		}
	}
	if asked := n.asked.Load(); asked != 6 { // about the first two, and about "*", which the subject's name spells out
		t.Fatalf("asked %d times", asked)
	}
}

func TestForwardedPollCancelledEndsTheSession(t *testing.T) {
	n := newNodes(t)
	at, p := n.a.poller(t)
	ctx, cancel := context.WithCancel(context.Background())
	aborted := make(chan enginetest.Answer, 1)
	go func() { aborted <- at.At(n.b.Site).GetUntil(ctx) }()
	testx.Eventually(t, "the poll waits at its node", enginetest.Patience, func() bool { return n.asked.Load() == 1 })
	cancel()
	enginetest.Wait(t, aborted)
	if why := enginetest.Wait(t, p.closed); why.Code != 1006 {
		t.Fatalf("closed with %v", why)
	}
	for _, site := range []*enginetest.Site{n.a.Site, n.b.Site} {
		if a := at.At(site).Get(); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "Session ID unknown") {
			t.Fatalf("got %+v", a)
		}
	}
	n.a.wantGone(t)
}

func TestForwardedAnswerLostEndsTheSession(t *testing.T) {
	n := newNodes(t)
	at, p := n.a.poller(t)
	p.SendText([]byte("x"))
	n.lose <- struct{}{}
	if a := at.At(n.b.Site).Get(); a.Status != http.StatusServiceUnavailable {
		t.Fatalf("got %+v", a)
	}
	// "x" was taken and has not arrived: a pong to a later ping would say that it has.
	if why := enginetest.Wait(t, p.closed); why != wire.CloseProtocol {
		t.Fatalf("got %v", why)
	}
	if a := at.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	n.a.wantGone(t)
}

func TestSessionsWithACookieAreTheirClientsOnly(t *testing.T) {
	n := newNodes(t)
	for name, site := range map[string]*enginetest.Site{"here": n.a.Site, "at another node": n.b.Site} {
		t.Run(name, func(t *testing.T) {
			c, p := n.a.poller(t)
			if !strings.HasPrefix(c.Given, engineio.CookieName+"=") {
				t.Fatalf("got %q", c.Given)
			}
			c = c.At(site)
			// A client that keeps no cookies does without.
			if a := c.Post("4one"); a.Status != http.StatusOK {
				t.Fatalf("got %+v", a)
			}
			// One that does goes on so.
			c.Cookie = c.Given
			if a := c.Post("4two"); a.Status != http.StatusOK {
				t.Fatalf("got %+v", a)
			}
			for _, wrong := range []string{"", engineio.CookieName + "=", engineio.CookieName + "=" + strings.Repeat("x", 24)} {
				c.Cookie = wrong
				p.SendText([]byte("secret"))
				for _, a := range []enginetest.Answer{c.Get(), c.Post("4x"), c.Post("junk"), c.Post(""), c.Post(strings.Repeat("4", 2_000_000))} {
					if a.Status != http.StatusBadRequest && a.Status != http.StatusRequestEntityTooLarge || strings.Contains(a.Body, "secret") {
						t.Fatalf("%q: got %+v", wrong, a)
					}
				}
				if ws, status := n.a.Dial("EIO=4&transport=websocket&sid="+c.SID, wrong); ws != nil || status != http.StatusBadRequest {
					t.Fatalf("%q: got %d", wrong, status)
				}
			}
			c.Cookie = c.Given
			if a := c.Get(); a.Body != "4secret\x1e4secret\x1e4secret" {
				t.Fatalf("got %+v", a)
			}
			ws := c.At(n.a.Site).Upgrade()
			ws.Send("2probe")
			ws.Want("3probe")
			ws.Send("5", "4three")
			for _, want := range []string{"one", "two", "three"} {
				if got := enginetest.Wait(t, p.got); got != want {
					t.Fatalf("got %q", got)
				}
			}
		})
	}
	// Two pages of one browser share the cookie, not their sessions.
	c := n.a.Open()
	a := n.a.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", c.Given, nil)
	if a.Status != http.StatusOK || a.Cookie != "" {
		t.Fatalf("got %+v", a)
	}
}
