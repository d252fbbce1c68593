package connections_test

import (
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
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/legacy"
	"parley.example/services/gateway/internal/native"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest/doors"
)

func TestMain(m *testing.M) { testx.Main(m) }

// world has both doors.
type world struct {
	*doors.World
	url  string
	site *enginetest.Site
}

func newWorld(t *testing.T, change func(*session.Config)) *world {
	w := &world{World: doors.New(t, change)}
	old := legacy.New(w.Hub, w.Table, legacy.Config{Delay: time.Hour, Alive: 18 * time.Second, Idle: time.Minute}, w.Services())
	server := engineio.New(engineio.Config{PingInterval: time.Hour, PingTimeout: time.Hour, MaxPayload: 65536, Budget: w.Budget, FramesPerSecond: 100, FrameBurst: 2000}, old.Accept)
	t.Cleanup(func() { // after the clients and the servers
		testx.Eventually(t, "every connection and its place is gone", 20*time.Second, func() bool { return w.Table.Len() == 0 && w.Table.Places() == 0 })
	})
	w.site = enginetest.Serve(t, "/socket.io/", server, server.Run)
	srv := httptest.NewServer(native.New(w.Hub, w.Table, w.Budget))
	t.Cleanup(srv.Close)
	w.url = "ws" + strings.TrimPrefix(srv.URL, "http")
	return w
}

// dial opens a native connection, without a token where user is "".
func (w *world) dial(user string) doors.Client {
	w.T.Helper()
	tok := ""
	if user != "" {
		tok = w.Token(user, token.ScopeNative)
	}
	return doors.Dial(w.T, w.url, tok)
}

// old opens a connection of an old client.
func (w *world) old() *enginetest.Socket {
	w.T.Helper()
	ws, _ := w.site.Socket()
	ws.Send("40")
	if m := ws.Next(); !strings.HasPrefix(m.Data, `40{"sid":`) {
		w.T.Fatalf("got %+v", m)
	}
	return ws
}

// join joins a room with Avi, which signs in.
func (w *world) join(ws *enginetest.Socket, user, room string) {
	w.T.Helper()
	ws.Send(`421["join",{"room":"` + room + `","client":"` + user + `","jwt":"` + w.Login(user) + `"}]`)
	if m := ws.Next(); m.Data != `431[{"result":"success"}]` {
		w.T.Fatalf("got %+v", m)
	}
}

func TestConnectionsDeadOnesOfAUserMakeRoom(t *testing.T) {
	for _, door := range []string{"native", "Socket.IO"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w := newWorld(t, func(c *session.Config) { c.UserConnections = 3 })
			w.dial("Lisa")  // reads nothing, so it answers nothing
			dead := w.old() // nor does this
			w.join(dead, "Lisa", "Avi&Lisa")
			lives := w.dial("Lisa")
			if event, _, _ := lives.First(); event != wire.EvWelcome {
				t.Fatalf("got %s", event)
			}
			end := lives.Lives()
			other := w.dial("Avi") // of somebody else, who is not asked
			w.Run()
			if door == "native" {
				if event, code, _ := w.dial("Lisa").First(); event != wire.EvWelcome {
					t.Fatalf("got %s %s", event, code)
				}
			} else {
				w.join(w.old(), "Lisa", "Avi&Lisa")
			}
			testx.Eventually(t, "the dead are gone", 20*time.Second, func() bool { return w.Table.PlacesOf("Lisa") == 2 })
			w.StillOpen(end)
			if event, _, _ := other.First(); event != wire.EvWelcome {
				t.Fatalf("got %s", event)
			}
		})
	}
}

func TestConnectionsLivingOnesOfAUserStay(t *testing.T) {
	t.Parallel() // most of it is waiting
	w := newWorld(t, func(c *session.Config) { c.UserConnections = 1 })
	end := w.dial("Lisa").Lives()
	testx.Eventually(t, "there is one", 20*time.Second, func() bool { return w.Table.Len() == 1 })
	w.Run()
	if event, code, close := w.dial("Lisa").First(); event != wire.EvError || code != wire.TooManyConnections || close != wire.CloseTooMany.Code {
		t.Fatalf("got %s %s %d", event, code, close)
	}
	w.StillOpen(end)
}

func TestConnectionsDeadOnesMakeRoomInTheOtherLimits(t *testing.T) {
	address := func(*http.Request) netip.Addr { return netip.MustParseAddr("2001:db8::1") }
	for name, limits := range map[string]connections.Limits{
		"of an address": {Total: 10, PerAddress: 3, PerUser: 10, Address: address},
		"in all":        {Total: 3, PerAddress: 10, PerUser: 10, Address: address},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w := newWorld(t, nil)
			w.Table.Limits = limits
			w.dial("")
			w.old()
			end := w.dial("Lisa").Lives()
			testx.Eventually(t, "all are there", 20*time.Second, func() bool { return w.Table.Len() == 3 })
			if event, code, close := w.dial("Avi").First(); event != wire.EvError || code != wire.TooManyConnections || close != wire.CloseTooMany.Code {
				t.Fatalf("got %s %s %d", event, code, close)
			}
			w.Run()
			testx.Eventually(t, "there is room", 20*time.Second, func() bool { event, _, _ := w.dial("Avi").First(); return event == wire.EvWelcome })
			w.StillOpen(end)
		})
	}
}

// A client that could not be heard, because nothing ran here, is given its time again.
func TestConnectionsOutliveAPauseOfTheProcess(t *testing.T) {
	const alive = 18 * time.Second
	w := newWorld(t, nil)
	withToken := w.dial("Lisa").Lives()
	silent := w.dial("").Lives()
	old := w.old()
	w.join(old, "Avi", "Avi&Lisa")
	quiet := w.old()
	testx.Eventually(t, "all are there", 20*time.Second, func() bool { return w.Table.Len() == 4 })
	now := time.Now()
	w.Table.Look(now)
	now = now.Add(time.Hour)
	w.Table.Look(now)
	for _, ws := range []*enginetest.Socket{old, quiet} { // what was sent before has come
		ws.Send(`429["connection_alive",{"client":"nobody"}]`)
		for m := ws.Next(); m.Data != `439[{"result":"success"}]`; m = ws.Next() {
			if m.Data != "2" {
				t.Fatalf("got %+v", m)
			}
		}
	}
	if n := w.Table.Len(); n != 4 || w.Table.PlacesOf("Avi") != 1 {
		t.Fatalf("%d are left", n)
	}
	w.StillOpen(withToken)
	w.StillOpen(silent)
	if len(w.Logouts) != 0 {
		t.Fatal("a login was ended")
	}
	// Then time goes on, and who says nothing goes.
	for range int(alive / time.Second) {
		now = now.Add(time.Second)
		w.Table.Look(now)
	}
	testx.Eventually(t, "who says nothing is signed out", 20*time.Second, func() bool { return len(w.Logouts) == 1 })
	if err := (<-silent).(*websocket.CloseError); err.Code != wire.CloseNoAuth.Code {
		t.Fatal(err)
	}
}
