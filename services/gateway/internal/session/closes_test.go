package session

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
)

// lockedOut is a verifier for whom everybody is disabled.
type lockedOut struct{ *seedWorld }

func (lockedOut) Disabled(string) bool { return true }

// withToken opens a connection and returns when it has its session.
func (w *nativeWorld) withToken() (*websocket.Conn, string) {
	w.t.Helper()
	tok := w.token("Lisa", token.ScopeNative)
	ws := w.dial("")
	w.say(ws, wire.EvAuthenticate, wire.Authenticate{Token: tok})
	if event, code, _ := w.first(ws); event != wire.EvWelcome {
		w.t.Fatalf("got %s %s", event, code)
	}
	testx.Eventually(w.t, "its session is known", 20*time.Second, func() bool { return w.hub.connections()[0].session() != nil })
	return ws, tok
}

func (w *nativeWorld) say(ws *websocket.Conn, event string, data any) {
	w.t.Helper()
	b, err := json.Marshal(map[string]any{"event": event, "data": data})
	if err == nil {
		err = ws.WriteMessage(websocket.TextMessage, b)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// tick looks at everybody as it will be done then.
func (w *nativeWorld) tick(in time.Duration) {
	for _, c := range w.hub.connections() {
		c.tick(time.Now().Add(in))
	}
}

// closes makes a server end a connection, in each way that there is.
var closes = map[wire.Close]func(w *nativeWorld) *websocket.Conn{
	wire.CloseNormal: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		w.say(ws, wire.EvDisconnection, nil)
		return ws
	},
	wire.CloseProtocol: func(w *nativeWorld) *websocket.Conn {
		ws := w.dial("")
		_, _ = ws.UnderlyingConn().Write([]byte{0x81, 0}) // a frame without a mask
		return ws
	},
	wire.CloseNotUTF8: func(w *nativeWorld) *websocket.Conn {
		ws := w.dial("")
		_ = ws.WriteMessage(websocket.TextMessage, []byte("\xff"))
		return ws
	},
	wire.CloseTooLarge: func(w *nativeWorld) *websocket.Conn {
		ws := w.dial("")
		_ = ws.WriteMessage(websocket.TextMessage, make([]byte, w.hub.cfg.FrameBytes+1))
		return ws
	},
	wire.CloseTryLater: func(w *nativeWorld) *websocket.Conn {
		w.mu.Lock()
		w.away = true
		w.mu.Unlock()
		return w.dial("Lisa")
	},
	wire.CloseSlow: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		for _, c := range w.hub.connections() {
			c.session().send(wire.EvError, wire.E(wire.Internal, strings.Repeat("x", int(w.budget.PerConn)+1)), "")
		}
		return ws
	},
	wire.CloseDraining: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		go w.hub.Drain(context.Background(), time.Millisecond)
		return ws
	},
	wire.CloseNoPong: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		w.tick(2*w.hub.cfg.Heartbeat + 2*time.Second)
		return ws
	},
	wire.CloseRate: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		for range 3 * frameBurst * w.hub.cfg.FramesPerSecond {
			_ = ws.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Minute)) // it may have been closed by then
		}
		return ws
	},
	wire.CloseTooMany: func(w *nativeWorld) *websocket.Conn {
		w.hub.Places.PerAddress = 0
		return w.dial("Lisa")
	},
	wire.CloseNoAuth: func(w *nativeWorld) *websocket.Conn {
		ws := w.dial("")
		w.say(ws, wire.EvAlive, nil)
		return ws
	},
	wire.CloseTokenExpired: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		w.tick(0)
		for _, c := range w.hub.connections() {
			s := c.session()
			s.mu.Lock()
			s.claims.Expires = time.Now().Add(-time.Second)
			s.mu.Unlock()
		}
		w.tick(0)
		return ws
	},
	wire.CloseTokenRevoked: func(w *nativeWorld) *websocket.Conn {
		ws, tok := w.withToken()
		w.revoke(tok)
		return ws
	},
	wire.CloseUserDisabled: func(w *nativeWorld) *websocket.Conn {
		w.hub.Verifier = lockedOut{w.seedWorld}
		ws, tok := w.withToken()
		w.revoke(tok)
		return ws
	},
	wire.CloseBadFrames: func(w *nativeWorld) *websocket.Conn {
		ws, _ := w.withToken()
		for range 40 {
			_ = ws.WriteMessage(websocket.TextMessage, []byte("{")) // it may have been closed by then
		}
		return ws
	},
}

// TestEveryCloseIsSent produces each way to end a connection that the protocol lists.
func TestEveryCloseIsSent(t *testing.T) {
	for _, want := range wire.Closes {
		t.Run(want.Reason, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			produce, ok := closes[want]
			if !ok {
				t.Fatalf("nothing here produces %d", want.Code)
			}
			w := newNativeWorld(t, func(*Config) {})
			ws := produce(w)
			_ = ws.SetReadDeadline(time.Now().Add(30 * time.Second))
			var err error
			for err == nil {
				_, _, err = ws.ReadMessage()
			}
			var got *websocket.CloseError
			if !errors.As(err, &got) || got.Code != want.Code || got.Text != want.Reason {
				t.Fatalf("got %v", err)
			}
			testx.Eventually(t, "it is gone", 20*time.Second, func() bool { return w.hub.Connections() == 0 })
		})
	}
}
