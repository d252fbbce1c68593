package wsconn

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// recorder is a Handler that hands everything to channels.
type recorder struct {
	conn   *Conn
	frames chan []byte
	binary chan struct{}
	pongs  chan uint32
	closed chan wire.Close
}

func (r *recorder) Frame(b []byte)        { r.frames <- bytes.Clone(b) }
func (r *recorder) Binary([]byte)         { r.binary <- struct{}{} }
func (r *recorder) Pong(n uint32)         { r.pongs <- n }
func (r *recorder) Closed(why wire.Close) { r.closed <- why }

// dial makes a connected pair: the server's side as a recorder, the client's as gorilla has it.
func dial(t *testing.T, cfg Config) (*recorder, *websocket.Conn) {
	t.Helper()
	return dialAs(t, cfg, func(r *recorder) Handler { return r })
}

// dialAs is dial with another Handler in front of the recorder.
func dialAs(t *testing.T, cfg Config, as func(*recorder) Handler) (*recorder, *websocket.Conn) {
	t.Helper()
	if cfg.Budget == nil {
		cfg.Budget = &Budget{PerConn: 1 << 20, Total: 1 << 30}
	}
	if cfg.FrameBytes == 0 {
		cfg.FrameBytes = 1000
	}
	u := NewUpgrader(cfg, "v1")
	got := make(chan *recorder, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := u.Upgrade(w, r)
		if c == nil {
			return
		}
		rec := &recorder{c, make(chan []byte, 16), make(chan struct{}, 16), make(chan uint32, 16), make(chan wire.Close, 1)}
		c.Start(as(rec))
		got <- rec
	}))
	t.Cleanup(srv.Close)
	ws, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	t.Cleanup(func() { ws.Close() })
	rec := <-got
	t.Cleanup(func() { rec.conn.Abort() })
	return rec, ws
}

func wait[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestConnBothWays(t *testing.T) {
	rec, ws := dial(t, Config{})
	if err := ws.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, rec.frames); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
	// All three lengths of the header, in order although many goroutines write.
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 200000} {
		rec.conn.SendText(bytes.Repeat([]byte("x"), n))
	}
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 200000} {
		kind, b, err := ws.ReadMessage()
		if err != nil || kind != websocket.TextMessage || len(b) != n {
			t.Fatalf("%d bytes: got %d %d %v", n, kind, len(b), err)
		}
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte{1}); err != nil {
		t.Fatal(err)
	}
	wait(t, rec.binary)
}

func TestConnOrderOfOneSenderAndSharedFrames(t *testing.T) {
	rec, ws := dial(t, Config{})
	const n = 2000
	go func() {
		for i := range n {
			rec.conn.SendFrame(Text(fmt.Appendf(nil, "%d", i)))
		}
	}()
	for i := range n {
		_, b, err := ws.ReadMessage()
		if err != nil || string(b) != fmt.Sprint(i) {
			t.Fatalf("%d: got %q %v", i, b, err)
		}
	}
}

func TestConnPingIsAnsweredInOrder(t *testing.T) {
	rec, ws := dial(t, Config{})
	rec.conn.SendText([]byte("before"))
	rec.conn.Ping(0xFFFFFFFE)
	go func() { // the client's library answers pings while it reads
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}()
	if n := wait(t, rec.pongs); n != 0xFFFFFFFE {
		t.Fatalf("pong %x", n)
	}
	// The client's own ping.
	pong := make(chan string, 1)
	ws.SetPongHandler(func(s string) error { pong <- s; return nil })
	if err := ws.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := wait(t, pong); s != "are you there" {
		t.Fatalf("pong %q", s)
	}
}

func TestConnClosedByTheServer(t *testing.T) {
	rec, ws := dial(t, Config{})
	rec.conn.SendText([]byte("last words"))
	rec.conn.Close(wire.CloseTokenRevoked)
	rec.conn.Close(wire.CloseNormal) // the first reason counts
	rec.conn.SendText([]byte("never"))
	if _, b, err := ws.ReadMessage(); err != nil || string(b) != "last words" {
		t.Fatalf("%q %v", b, err)
	}
	_, _, err := ws.ReadMessage()
	if !websocket.IsCloseError(err, 4502) {
		t.Fatalf("got %v", err)
	}
	if why := wait(t, rec.closed); why.Code != 4502 {
		t.Fatalf("closed with %v", why)
	}
}

func TestConnClosedByThePeer(t *testing.T) {
	rec, ws := dial(t, Config{})
	if err := ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, 1000) {
		t.Fatalf("got %v", err)
	}
	if why := wait(t, rec.closed); why.Code != 1000 {
		t.Fatalf("closed with %v", why)
	}
	rec2, ws2 := dial(t, Config{})
	ws2.NetConn().Close() // without a word
	if why := wait(t, rec2.closed); why.Code != 1006 || !why.Reconnect {
		t.Fatalf("closed with %v", why)
	}
}

func TestConnGarbageInsteadOfFrames(t *testing.T) {
	rec, ws := dial(t, Config{})
	if _, err := ws.NetConn().Write([]byte("\xff\xff\xff\xffGET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if why := wait(t, rec.closed); why.Code != 1002 {
		t.Fatalf("closed with %v", why)
	}
}

func TestOutboxOfASlowReaderIsClosedAndNobodyWaits(t *testing.T) {
	budget := &Budget{PerConn: 256 << 10, Total: 1 << 30}
	rec, ws := dial(t, Config{Budget: budget})
	block := Text(bytes.Repeat([]byte("x"), 32<<10))
	// The client reads nothing: the kernel's buffers fill, then the budget. Appending never blocks, so this loop ends.
	for i := 0; rec.conn.why.Load() == nil; i++ {
		rec.conn.SendFrame(block)
		if i > 100000 {
			t.Fatal("the budget was never reached")
		}
	}
	if why := wait(t, rec.closed); why.Code != 4000 {
		t.Fatalf("closed with %v", why)
	}
	if used := budget.Used(); used != 0 {
		t.Fatalf("%d bytes are still counted", used)
	}
	_ = ws
}

func TestOutboxTotalBudgetClosesTheLargest(t *testing.T) {
	budget := &Budget{PerConn: 1 << 20, Total: 1}
	budget.used.Add(2) // others hold it
	rec, _ := dial(t, Config{Budget: budget})
	rec.conn.SendText([]byte("small ones still pass"))
	if rec.conn.why.Load() != nil {
		t.Fatal("a small frame closed the connection")
	}
	rec.conn.SendText(bytes.Repeat([]byte("x"), 100<<10))
	if why := wait(t, rec.closed); why.Code != 4000 {
		t.Fatalf("closed with %v", why)
	}
}

func TestOutboxWaitReturnsWhenWritten(t *testing.T) {
	rec, ws := dial(t, Config{})
	for range 100 {
		rec.conn.SendText([]byte("x"))
	}
	if err := rec.conn.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, _, err := ws.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := rec.conn.Wait(ctx); err != nil {
		t.Fatal("an empty outbox makes nobody wait")
	}
}

func TestConnStressStartStop(t *testing.T) {
	var wg sync.WaitGroup
	for range 30 {
		rec, ws := dial(t, Config{})
		wg.Add(3)
		go func() {
			defer wg.Done()
			for range 200 {
				rec.conn.SendText([]byte("x"))
				rec.conn.Ping(1)
			}
		}()
		go func() { defer wg.Done(); rec.conn.Close(wire.CloseDraining) }()
		go func() {
			defer wg.Done()
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					ws.Close()
					return
				}
			}
		}()
		go func() {
			for range rec.pongs {
			}
		}()
		wait(t, rec.closed)
		close(rec.pongs)
	}
	wg.Wait()
}
