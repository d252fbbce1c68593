// Package doors is the world around the rooms of the protocols: a hub and the table of connections, and clients of the native protocol.
package doors

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest"
	"parley.example/services/gateway/internal/wsconn"
)

// World has all that a room needs.
type World struct {
	*sessiontest.World
	Hub    *session.Hub
	Table  *connections.Table
	Budget *wsconn.Budget
}

// New makes a world, which ends with the test. Change may be nil.
func New(t *testing.T, change func(*session.Config)) *World {
	t.Helper()
	c := session.Config{FrameBytes: 65536, ContentBytes: 16384, MessagesPerMinute: 600, MessageBurst: 300, FramesPerSecond: 100, Heartbeat: 25 * time.Second,
		AuthTimeout: 10 * time.Second, UserConnections: 1000, CatchUpPatience: 20 * time.Second, TokenGrace: time.Hour}
	if change != nil {
		change(&c)
	}
	w := &World{World: sessiontest.New(t), Budget: &wsconn.Budget{PerConn: 1 << 20, Total: 1 << 30}}
	w.Hub = session.NewHub(c, session.Deps{
		Log: testx.Logger(t), Registry: w.Registry, Router: w.Router, Publisher: w, CatchUps: w.CatchUps, Confirmer: w.Confirmer, Bus: w, Directory: w,
		Presence: w, Verifier: w, Services: w.Services(),
	})
	w.Table = connections.New(connections.Limits{
		Total: 1000, PerAddress: 1000, PerUser: c.UserConnections, Address: func(*http.Request) netip.Addr { return netip.Addr{} },
	}, w.Hub.Ready, testx.Logger(t), w.Registry)
	t.Cleanup(func() { w.Hub.Wait(context.Background()) })
	return w
}

// Void revokes a token, as auth and the gateway's verifier do.
func (w *World) Void(tok string) {
	w.Revoke(tok)
	w.Hub.Revoke(w.Revoked)
}

// Run looks at the connections once a second until the test ends.
func (w *World) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Table.Run(ctx) }()
	w.T.Cleanup(func() { cancel(); <-done })
}

// Client is a client of the native protocol. It answers pings only while somebody reads it.
type Client struct {
	*websocket.Conn
	T *testing.T
}

// Dial opens a connection, without a token where tok is "".
func Dial(t *testing.T, url, tok string) Client {
	t.Helper()
	h := http.Header{}
	if tok != "" {
		h.Set("Authorization", "Bearer "+tok)
	}
	ws, _, err := websocket.DefaultDialer.Dial(url, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return Client{ws, t}
}

// Say sends a frame.
func (c Client) Say(event string, data any) {
	c.T.Helper()
	b, err := json.Marshal(map[string]any{"event": event, "data": data})
	if err == nil {
		err = c.WriteMessage(websocket.TextMessage, b)
	}
	if err != nil {
		c.T.Fatal(err)
	}
}

// First reads the first frame and, when that is an error, how the connection ends.
func (c Client) First() (event string, code wire.Code, end int) {
	c.T.Helper()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	var f struct {
		Event string
		Data  wire.Error
	}
	_, b, err := c.ReadMessage()
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		c.T.Fatal(err)
	}
	if f.Event != wire.EvError {
		return f.Event, "", 0
	}
	_, _, err = c.ReadMessage()
	ce, ok := err.(*websocket.CloseError)
	if !ok {
		c.T.Fatalf("got %v", err)
	}
	return f.Event, f.Data.Code, ce.Code
}

// Lives reads the connection, which is open until it ends with the error that the result gives.
func (c Client) Lives() (ended <-chan error) {
	_ = c.SetReadDeadline(time.Time{})
	end := make(chan error, 1)
	go func() {
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

// StillOpen fails the test when a connection that lives was ended.
func (w *World) StillOpen(end <-chan error) {
	w.T.Helper()
	select {
	case err := <-end:
		w.T.Errorf("one that lives was ended: %v", err)
	default:
	}
}
