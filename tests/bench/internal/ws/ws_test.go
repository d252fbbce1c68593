package ws

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// serve starts a server that runs f on each connection.
func serve(t *testing.T, f func(*websocket.Conn)) string {
	t.Helper()
	up := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r, nil); err == nil {
			defer c.Close()
			f(c)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestTextOfAllLengths(t *testing.T) {
	addr := serve(t, func(c *websocket.Conn) {
		for {
			kind, b, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, b) != nil {
				return
			}
		}
	})
	c, err := Dial(context.Background(), addr, nil, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64)
	for _, n := range []int{0, 1, 125, 126, 127, 5000, 65535, 65536, 100_000} {
		want := bytes.Repeat([]byte{'x'}, n)
		if err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(buf); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}

func TestPingsAreAnsweredAndClosesNamed(t *testing.T) {
	pong := make(chan string, 1)
	addr := serve(t, func(c *websocket.Conn) {
		c.SetPongHandler(func(s string) error { pong <- s; return nil })
		_ = c.WriteControl(websocket.PingMessage, []byte("p7"), time.Now().Add(time.Second))                              // the client reports it
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4503, "no"), time.Now().Add(time.Second)) // so here
		_, _, _ = c.ReadMessage()                                                                                         // runs the handler
	})
	c, err := Dial(context.Background(), addr, nil, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(nil)
	var closed *Closed
	if !errors.As(err, &closed) || closed.Code != 4503 || closed.Reason != "no" {
		t.Fatalf("got %v", err)
	}
	if got := <-pong; got != "p7" {
		t.Fatalf("pong %q", got)
	}
}

func TestRefusedHandshakeSaysWhy(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, err := Dial(context.Background(), strings.TrimPrefix(s.URL, "http://"), nil, "/", nil)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("got %v", err)
	}
}
