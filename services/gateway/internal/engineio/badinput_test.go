package engineio_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/socketio/echo"
)

// witness is a connection that must not notice what others do.
func witness(t *testing.T, r *rig) (check func()) {
	t.Helper()
	ws, p := r.socket(t)
	return func() {
		t.Helper()
		ws.Send("4there?")
		if got := enginetest.Wait(t, p.got); got != "there?" {
			t.Fatalf("got %q", got)
		}
		p.SendText([]byte("yes"))
		ws.Want("4yes")
	}
}

func TestPayloadsBad(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	others := witness(t, r)
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"nothing", "", 400},
		{"a separator only", "\x1e", 400},
		{"a truncated payload", "4a\x1e", 400},
		{"an empty packet between", "4a\x1e\x1e4b", 400},
		{"an unknown type", "7", 400},
		{"a type that is no digit", "hello", 400},
		{"a bad packet behind good ones", strings.Repeat("4x\x1e", 50) + "8", 400},
		{"base64 rubbish", "b!!!!", 400},
		{"base64 without padding", "bAQI", 400},
		{"base64 that ends early", "bAQ=", 400},
		{"base64 with something behind it", "bAQI=AQI=", 400},
		{"no UTF-8", "4\xff\xfe", 400},
		{"no UTF-8 behind good packets", "4a\x1e4\xc3", 400},
		{"more than the largest payload", "4" + strings.Repeat("x", echo.MaxPayload), 413},
		// Packets of the server's: the payload is well-formed, the session ends all the same.
		{"an open packet", `0{"sid":"x"}`, 200},
		{"a ping", "2", 200},
		{"an upgrade", "5", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			poller, p := r.poller(t)
			if a := poller.Post(c.body); a.Status != c.status {
				t.Fatalf("got %+v", a)
			}
			if why := enginetest.Wait(t, p.closed); why != wire.CloseProtocol {
				t.Fatalf("got %v", why)
			}
			if len(p.got) > 0 {
				t.Fatalf("%q was taken", <-p.got) // a payload is taken whole or not at all
			}
			if a := poller.Get(); a.Status != http.StatusBadRequest || r.server.Holds(poller.SID) {
				t.Fatalf("got %+v", a)
			}
			others()
		})
	}
}

func TestPayloadsThatBreakOffEndTheSession(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	poller, p := r.poller(t)
	body, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, "4half of a pay") // the request may have ended by then
		w.CloseWithError(errors.New("the line is cut"))
	}()
	if a := poller.PostFrom(body); a.Status != 0 {
		t.Fatalf("got %+v", a)
	}
	if why := enginetest.Wait(t, p.closed); why != wire.CloseProtocol || len(p.got) != 0 {
		t.Fatalf("got %v", why)
	}
	r.wantGone(t)
}

func TestWebSocketBadMessages(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	others := witness(t, r)
	large := strings.Repeat("x", echo.MaxPayload)
	for _, c := range []struct {
		name, text string
		why        wire.Close
	}{
		{"nothing", "", wire.CloseProtocol},
		{"an unknown type", "7", wire.CloseProtocol},
		{"a payload of long-polling", "bAQI=", wire.CloseProtocol},
		{"an open packet", `0{"sid":"x"}`, wire.CloseProtocol},
		{"a ping", "2", wire.CloseProtocol},
		{"a probe", "2probe", wire.CloseProtocol},
		{"an upgrade", "5", wire.CloseProtocol},
		{"no UTF-8", "4\xff\xfe", wire.CloseNotUTF8},
		{"more than the largest payload", "4" + large, wire.CloseTooLarge},
	} {
		for name, open := range map[string]func(*testing.T) (*enginetest.Socket, *program){"direct": r.socket, "upgraded": r.upgraded} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				ws, p := open(t)
				ws.Send(c.text)
				ws.WantClose(c.why.Code)
				if why := enginetest.Wait(t, p.closed); why != c.why || len(p.got) != 0 {
					t.Fatalf("got %v", why)
				}
				others()
			})
		}
	}
	ws, p := r.socket(t)
	ws.SendBinary([]byte(large + "x")...)
	ws.WantClose(wire.CloseTooLarge.Code)
	enginetest.Wait(t, p.closed)
	others()
}

// TestPacketsAllCount: none stands outside the limit, whatever it is and whatever brings it; and nobody needs two probes.
func TestPacketsAllCount(t *testing.T) {
	const burst = 20
	r := newRig(t, enginetest.Still, func(c *engineio.Config) { c.FramesPerSecond, c.FrameBurst = 1, burst })
	for name, packet := range map[string]string{"messages": "4x", "empty messages": "4", "binary messages": "bAQI=", "pongs": "3", "noops": "6"} {
		t.Run(name, func(t *testing.T) {
			c, p := r.poller(t)
			// All in one payload, and in payloads of their own.
			if a := c.Post(strings.Repeat(packet+"\x1e", burst/2-1) + packet); a.Status != http.StatusOK {
				t.Fatalf("got %+v", a)
			}
			for range burst {
				c.Post(packet)
			}
			if why := enginetest.Wait(t, p.closed); why != wire.CloseRate || len(p.got) > burst {
				t.Fatalf("ended with %v after %d", why, len(p.got))
			}
			if a := c.Get(); a.Status != http.StatusBadRequest {
				t.Fatalf("got %+v", a)
			}
			for _, open := range []func(*testing.T) (*enginetest.Socket, *program){r.socket, r.upgraded} {
				ws, p := open(t)
				for range 2 * burst {
					if packet[0] == 'b' {
						ws.SendBinary(1, 2)
					} else {
						ws.Send(packet)
					}
				}
				ws.WantClose(wire.CloseRate.Code)
				if why := enginetest.Wait(t, p.closed); why != wire.CloseRate || len(p.got) > burst {
					t.Fatalf("ended with %v after %d", why, len(p.got))
				}
			}
		})
	}
	t.Run("once", func(t *testing.T) { // a WebSocket counts its frames, which are not counted again with what was posted before
		c, p := r.poller(t)
		if a := c.Post(strings.Repeat("6\x1e", burst-1) + "6"); a.Status != http.StatusOK {
			t.Fatalf("got %+v", a)
		}
		ws := c.Upgrade()
		ws.Send("2probe")
		ws.Want("3probe")
		ws.Send("5")
		for range burst - 2 {
			ws.Send("4x")
		}
		for range burst - 2 {
			enginetest.Wait(t, p.got)
		}
		ws.Send("1")
	})
	t.Run("probes", func(t *testing.T) {
		c, p := r.poller(t)
		ws := c.Upgrade()
		ws.Send("2probe", "2probe")
		ws.WantClose(wire.CloseProtocol.Code)
		p.SendText([]byte("x")) // the session goes on polling
		if a := c.Get(); a.Body != "4x" {
			t.Fatalf("got %+v", a)
		}
		c.Post("1")
	})
	r.wantGone(t)
}

func TestPacketsTiny(t *testing.T) {
	const n = 30_000
	s, _ := start(t, enginetest.Still)
	c := s.Open()
	if a := c.Post(strings.Repeat("4\x1e", n-1) + "4"); a.Status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	if got := len(strings.Split(c.Get().Body, separator)); got != 16 {
		t.Fatalf("got %d packets", got)
	}
	ws := c.Upgrade()
	ws.Send("2probe")
	ws.Want("3probe")
	ws.Send("5")
	for range n - 16 {
		ws.Want("4")
	}
	ws.Send("4end")
	ws.Want("4end")
}

func TestSessionsOfSomebodyElse(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	others := witness(t, r)
	ended, p := r.poller(t)
	p.Close(wire.CloseDraining)
	enginetest.Wait(t, p.closed)
	upgraded, p := r.poller(t)
	ws := upgraded.Upgrade()
	ws.Send("2probe", "5", "4there")
	ws.Want("3probe")
	enginetest.Wait(t, p.got)
	for name, sid := range map[string]string{"unknown": "AAAAAAAAAAAAAAAAAAAAAAAA", "closed": ended.SID, "upgraded": upgraded.SID, "another node's": "x.y"} {
		t.Run(name, func(t *testing.T) {
			c := ended.At(r.Site)
			c.SID = sid
			for _, a := range []enginetest.Answer{c.Get(), c.Post("4x"), c.Post("junk"), c.Post("")} {
				if a.Status != http.StatusBadRequest {
					t.Fatalf("got %+v", a)
				}
			}
			if ws, status := r.Dial("EIO=4&transport=websocket&sid="+sid, ""); ws != nil {
				ws.WantClose(wire.CloseProtocol.Code) // of a session that has its WebSocket
			} else if status != http.StatusBadRequest || name == "upgraded" {
				t.Fatalf("got %d", status)
			}
			others()
		})
	}
	ws.Send("4still there")
	if got := enginetest.Wait(t, p.got); got != "still there" {
		t.Fatalf("got %q", got)
	}
}

func TestPollingAndWebSocketAtOnce(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	ws := c.Upgrade()
	c.Upgrade().WantClose(wire.CloseProtocol.Code) // there is one already
	ws.Send("2probe")
	ws.Want("3probe")
	// Until the upgrade is complete, polling is the transport.
	if a := c.Post("4by polling"); a.Status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	p.SendText([]byte("to polling"))
	if a := c.Get(); a.Body != "4to polling" {
		t.Fatalf("got %+v", a)
	}
	poll := c.Go() // waits while the upgrade is completed; the time that a probe gives it may have ended it before
	ws.Send("5", "4by WebSocket")
	if a := enginetest.Wait(t, poll); a.Status != http.StatusBadRequest && a.Body != "6" {
		t.Fatalf("got %+v", a)
	}
	p.SendText([]byte("to WebSocket"))
	ws.Want("4to WebSocket")
	if a := c.Post("4by polling"); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	for _, want := range []string{"by polling", "by WebSocket"} {
		if got := enginetest.Wait(t, p.got); got != want {
			t.Fatalf("got %q", got)
		}
	}
	if len(p.got) != 0 {
		t.Fatal("a post of an upgraded session was taken")
	}
}

func TestTwoPostsAtOnce(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	others := witness(t, r)
	began, goOn := make(chan struct{}), make(chan struct{})
	r.onAccept = func(p *program) error {
		p.text = func([]byte) { close(began); <-goOn }
		return nil
	}
	c, p := r.poller(t)
	first := make(chan enginetest.Answer, 1)
	go func() { first <- c.Post("4slow\x1e4next") }()
	<-began
	if a := c.Post("4overtakes"); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	close(goOn)
	if why := enginetest.Wait(t, p.closed); why != wire.CloseProtocol {
		t.Fatalf("got %v", why)
	}
	enginetest.Wait(t, first)
	if got := enginetest.Wait(t, p.got); got != "slow" || len(p.got) != 0 {
		t.Fatalf("got %q", got)
	}
	if a := c.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	others()
}
