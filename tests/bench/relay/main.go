// Command relay is the yardstick of the benchmarks: a bare WebSocket server with core NATS between sender and
// recipient, as one would write it in ten minutes. It stores nothing, checks nobody and reads no frame.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats.go"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: relay ADDRESS NATS-URL")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(addr, url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	up := websocket.Upgrader{}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		defer ws.Close()
		serve(ws, nc, r.URL.Query().Get("user"), r.URL.Query().Get("peer"))
	})}
	return srv.Serve(ln)
}

// serve passes what this user writes to the peer, and what is for this user to the socket.
func serve(ws *websocket.Conn, nc *nats.Conn, user, peer string) {
	sub, err := nc.Subscribe("to."+user, func(m *nats.Msg) {
		if ws.WriteMessage(websocket.TextMessage, m.Data) != nil {
			ws.Close()
		}
	})
	if err != nil || nc.Flush() != nil {
		return
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is gone or it works
	// Tells the client that it can be reached. Nobody can have written to it before.
	if nc.Publish("to."+user, []byte(`{"event":"welcome"}`)) != nil {
		return
	}
	for {
		kind, b, err := ws.ReadMessage()
		if err != nil || kind != websocket.TextMessage || nc.Publish("to."+peer, b) != nil {
			return
		}
	}
}
