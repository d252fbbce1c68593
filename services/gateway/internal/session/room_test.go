package session

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/wsconn"
)

// nativeWorld has the native door beside that of the old clients, and is looked at every second when it runs.
type nativeWorld struct {
	*seedWorld
	url string
}

func newNativeWorld(t *testing.T, change func(*Config)) *nativeWorld {
	w := &nativeWorld{seedWorld: newSeedWorld(t, func(c *Config, _ *SeedConfig) { change(c) })}
	srv := httptest.NewServer(NewNative(w.hub, wsconn.Config{Budget: w.budget}))
	t.Cleanup(srv.Close)
	w.url = "ws" + strings.TrimPrefix(srv.URL, "http")
	return w
}

func (w *nativeWorld) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.hub.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

// dial opens a native connection, without a token where user is "". It answers pings only while somebody reads it.
func (w *nativeWorld) dial(user string) *websocket.Conn {
	w.t.Helper()
	h := http.Header{}
	if user != "" {
		h.Set("Authorization", "Bearer "+w.token(user, token.ScopeNative))
	}
	ws, _, err := websocket.DefaultDialer.Dial(w.url, h)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = ws.Close() })
	return ws
}

// living reads a connection, which is open until it ends with the code that the result gives.
func living(ws *websocket.Conn) (ended <-chan error) {
	end := make(chan error, 1)
	go func() {
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

// first reads the first frame of a connection and, when that is an error, how it ends.
func (w *nativeWorld) first(ws *websocket.Conn) (event string, code wire.Code, end int) {
	w.t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(30 * time.Second))
	var f struct {
		Event string
		Data  wire.Error
	}
	_, b, err := ws.ReadMessage()
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if f.Event != wire.EvError {
		return f.Event, "", 0
	}
	_, _, err = ws.ReadMessage()
	ce, ok := err.(*websocket.CloseError)
	if !ok {
		w.t.Fatalf("got %v", err)
	}
	return f.Event, f.Data.Code, ce.Code
}

func (w *nativeWorld) stillOpen(end <-chan error) {
	w.t.Helper()
	select {
	case err := <-end:
		w.t.Errorf("one that lives was ended: %v", err)
	default:
	}
}

func TestDeadConnectionsOfAUserMakeRoom(t *testing.T) {
	for _, door := range []string{"native", "Socket.IO"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w := newNativeWorld(t, func(c *Config) { c.UserConnections = 3 })
			w.dial("Lisa")     // reads nothing, so it answers nothing
			dead := w.client() // nor does this
			dead.mustJoin(w.login("Lisa"), "Lisa", "Avi&Lisa")
			lives := w.dial("Lisa")
			if event, _, _ := w.first(lives); event != wire.EvWelcome {
				t.Fatalf("got %s", event)
			}
			_ = lives.SetReadDeadline(time.Time{})
			end := living(lives)
			other := w.dial("Avi") // of somebody else, who is not asked
			w.run()
			if door == "native" {
				if event, code, _ := w.first(w.dial("Lisa")); event != wire.EvWelcome {
					t.Fatalf("got %s %s", event, code)
				}
			} else {
				w.client().mustJoin(w.login("Lisa"), "Lisa", "Avi&Lisa")
			}
			testx.Eventually(t, "the dead are gone", 20*time.Second, func() bool {
				w.hub.mu.Lock()
				defer w.hub.mu.Unlock()
				return w.hub.accounts["Lisa"].sessions == 2
			})
			w.stillOpen(end)
			if event, _, _ := w.first(other); event != wire.EvWelcome {
				t.Fatalf("got %s", event)
			}
		})
	}
}

func TestLivingConnectionsOfAUserStay(t *testing.T) {
	t.Parallel() // most of it is waiting
	w := newNativeWorld(t, func(c *Config) { c.UserConnections = 1 })
	end := living(w.dial("Lisa"))
	testx.Eventually(t, "there is one", 20*time.Second, func() bool { return w.hub.Connections() == 1 })
	w.run()
	if event, code, close := w.first(w.dial("Lisa")); event != wire.EvError || code != wire.TooManyConnections || close != wire.CloseTooMany.Code {
		t.Fatalf("got %s %s %d", event, code, close)
	}
	w.stillOpen(end)
}

func TestDeadConnectionsMakeRoomInTheOtherLimits(t *testing.T) {
	address := func(*http.Request) netip.Addr { return netip.MustParseAddr("2001:db8::1") }
	for name, places := range map[string]Places{
		"of an address": {Total: 10, PerAddress: 3, Address: address},
		"in all":        {Total: 3, PerAddress: 10, Address: address},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w := newNativeWorld(t, func(*Config) {})
			w.hub.Places = places
			w.dial("")
			w.client()
			end := living(w.dial("Lisa"))
			testx.Eventually(t, "all are there", 20*time.Second, func() bool { return w.hub.Connections() == 3 })
			if event, code, close := w.first(w.dial("Avi")); event != wire.EvError || code != wire.TooManyConnections || close != wire.CloseTooMany.Code {
				t.Fatalf("got %s %s %d", event, code, close)
			}
			w.run()
			testx.Eventually(t, "there is room", 20*time.Second, func() bool { event, _, _ := w.first(w.dial("Avi")); return event == wire.EvWelcome })
			w.stillOpen(end)
		})
	}
}

// A client that could not be heard, because nothing ran here, is given its time again.
func TestAPauseOfTheProcessIsNoSilenceOfClients(t *testing.T) {
	const alive = 18 * time.Second
	w := newNativeWorld(t, func(*Config) {})
	w.seed.cfg.Alive = alive
	token := living(w.dial("Lisa"))
	silent := living(w.dial(""))
	old := w.client()
	old.mustJoin(w.login("Avi"), "Avi", "Avi&Lisa")
	quiet := w.client()
	testx.Eventually(t, "all are there", 20*time.Second, func() bool { return w.hub.Connections() == 4 })
	now := time.Now()
	w.hub.look(now)
	now = now.Add(time.Hour)
	w.hub.look(now)
	old.barrier()
	quiet.barrier()
	if n := w.hub.Connections(); n != 4 || old.conn.session() == nil {
		t.Fatalf("%d are left", n)
	}
	w.stillOpen(token)
	w.stillOpen(silent)
	if len(w.logouts) != 0 {
		t.Fatal("a login was ended")
	}
	// Then time goes on, and who says nothing goes.
	for range int(alive / time.Second) {
		now = now.Add(time.Second)
		w.hub.look(now)
	}
	testx.Eventually(t, "who says nothing is signed out", 20*time.Second, func() bool { return len(w.logouts) == 1 })
	if err := (<-silent).(*websocket.CloseError); err.Code != wire.CloseNoAuth.Code {
		t.Fatal(err)
	}
}
