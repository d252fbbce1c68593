package native

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest/doors"
)

func TestMain(m *testing.M) { testx.Main(m) }

type world struct {
	*doors.World
	url string
}

func newWorld(t *testing.T, change func(*session.Config)) *world {
	w := &world{World: doors.New(t, change)}
	srv := httptest.NewServer(New(w.Hub, w.Table, w.Budget))
	t.Cleanup(srv.Close)
	w.url = "ws" + strings.TrimPrefix(srv.URL, "http")
	return w
}

// dial opens a connection, without a token where user is "".
func (w *world) dial(user string) doors.Client {
	w.T.Helper()
	tok := ""
	if user != "" {
		tok = w.Token(user, token.ScopeNative)
	}
	return doors.Dial(w.T, w.url, tok)
}

// only is the session of the only connection.
func (w *world) only() *session.Session {
	for _, c := range w.Table.All() {
		return c.(*conn).session()
	}
	return nil
}

// withToken opens a connection and returns when it has its session.
func (w *world) withToken() (c doors.Client, tok string) {
	w.T.Helper()
	tok = w.Token("Lisa", token.ScopeNative)
	c = w.dial("")
	c.Say(wire.EvAuthenticate, wire.Authenticate{Token: tok})
	if event, code, _ := c.First(); event != wire.EvWelcome {
		w.T.Fatalf("got %s %s", event, code)
	}
	testx.Eventually(w.T, "its session is known", 20*time.Second, func() bool { return w.only() != nil })
	return c, tok
}

// tick looks at everybody as it will be done then.
func (w *world) tick(in time.Duration) {
	for _, c := range w.Table.All() {
		c.Tick(time.Now().Add(in))
	}
}

// closes makes a server end a connection, in each way that there is.
var closes = map[wire.Close]func(w *world) doors.Client{
	wire.CloseNormal: func(w *world) doors.Client {
		c, _ := w.withToken()
		c.Say(wire.EvDisconnection, nil)
		return c
	},
	wire.CloseProtocol: func(w *world) doors.Client {
		c := w.dial("")
		_, _ = c.UnderlyingConn().Write([]byte{0x81, 0}) // a frame without a mask
		return c
	},
	wire.CloseNotUTF8: func(w *world) doors.Client {
		c := w.dial("")
		_ = c.WriteMessage(websocket.TextMessage, []byte("\xff"))
		return c
	},
	wire.CloseTooLarge: func(w *world) doors.Client {
		c := w.dial("")
		_ = c.WriteMessage(websocket.TextMessage, make([]byte, w.Hub.FrameBytes+1))
		return c
	},
	wire.CloseTryLater: func(w *world) doors.Client {
		w.Mu.Lock()
		w.Away = true
		w.Mu.Unlock()
		return w.dial("Lisa")
	},
	wire.CloseSlow: func(w *world) doors.Client {
		c, _ := w.withToken()
		w.only().Send(wire.EvError, wire.E(wire.Internal, strings.Repeat("x", int(w.Budget.PerConn)+1)), "")
		return c
	},
	wire.CloseDraining: func(w *world) doors.Client {
		c, _ := w.withToken()
		go w.Table.Drain(context.Background(), time.Millisecond)
		return c
	},
	wire.CloseNoPong: func(w *world) doors.Client {
		c, _ := w.withToken()
		w.tick(2*w.Hub.Heartbeat + 2*time.Second)
		return c
	},
	wire.CloseRate: func(w *world) doors.Client {
		c, _ := w.withToken()
		for range 3 * w.Hub.FrameBurst() {
			_ = c.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Minute)) // it may have been closed by then
		}
		return c
	},
	wire.CloseTooMany: func(w *world) doors.Client {
		w.Table.PerAddress = 0
		return w.dial("Lisa")
	},
	wire.CloseNoAuth: func(w *world) doors.Client {
		c := w.dial("")
		c.Say(wire.EvAlive, nil)
		return c
	},
	wire.CloseTokenExpired: func(w *world) doors.Client {
		c, _ := w.withToken()
		w.tick(0)
		claims := w.only().Claims()
		claims.Expires = time.Now().Add(-time.Second)
		_ = w.only().Renew(claims)
		w.tick(0)
		return c
	},
	wire.CloseTokenRevoked: func(w *world) doors.Client {
		c, tok := w.withToken()
		w.Void(tok)
		return c
	},
	wire.CloseUserDisabled: func(w *world) doors.Client {
		w.Locked = true
		c, tok := w.withToken()
		w.Void(tok)
		return c
	},
	wire.CloseBadFrames: func(w *world) doors.Client {
		c, _ := w.withToken()
		for range 40 {
			_ = c.WriteMessage(websocket.TextMessage, []byte("{")) // it may have been closed by then
		}
		return c
	},
}

// TestClosesAreAllSent produces each way to end a connection that the protocol lists.
func TestClosesAreAllSent(t *testing.T) {
	for _, want := range wire.Closes {
		t.Run(want.Reason, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			produce, ok := closes[want]
			if !ok {
				t.Fatalf("nothing here produces %d", want.Code)
			}
			w := newWorld(t, nil)
			c := produce(w)
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			var err error
			for err == nil {
				_, _, err = c.ReadMessage()
			}
			var got *websocket.CloseError
			if !errors.As(err, &got) || got.Code != want.Code || got.Text != want.Reason {
				t.Fatalf("got %v", err)
			}
			testx.Eventually(t, "it is gone", 20*time.Second, func() bool { return w.Table.Len() == 0 })
		})
	}
}

// An idle link is asked first, once a heartbeat; one that says nothing for two of them is dead.
func TestClosesADeadLink(t *testing.T) {
	w := newWorld(t, nil)
	c, _ := w.withToken()
	pinged := make(chan string, 10)
	c.SetPingHandler(func(n string) error { pinged <- n; return nil }) // it does not answer
	end := c.Lives()
	w.tick(20 * time.Second)
	w.tick(40 * time.Second)
	w.tick(45 * time.Second)
	w.only().Send(wire.EvError, wire.E(wire.Internal, "still there"), "")
	if n := <-pinged; n != "\x00\x00\x00\x00" {
		t.Fatalf("asked with %q", n)
	}
	w.StillOpen(end)
	w.tick(51 * time.Second)
	var got *websocket.CloseError
	if err := <-end; !errors.As(err, &got) || got.Code != wire.CloseNoPong.Code {
		t.Fatalf("got %v", err)
	}
	if len(pinged) != 0 {
		t.Fatal("asked more than once a heartbeat")
	}
}
