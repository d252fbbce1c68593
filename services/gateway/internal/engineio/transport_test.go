package engineio_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/wsconn"
)

const separator = "\x1e"

// numbered is the i-th of many messages: every third one is binary.
func numbered(i int) (text string, binary bool) { return fmt.Sprint("m", i), i%3 == 2 }

func send(p *program, i int) {
	if text, binary := numbered(i); binary {
		p.SendBinary([]byte(text))
	} else {
		p.SendText([]byte(text))
	}
}

// unpacked is a payload as messages, binary ones with a "b" in front.
func unpacked(t *testing.T, payload string) (out []string) {
	t.Helper()
	for _, p := range strings.Split(payload, separator) {
		if b, ok := strings.CutPrefix(p, "b"); ok {
			data, err := base64.StdEncoding.DecodeString(b)
			if err != nil {
				t.Fatalf("%q: %v", p, err)
			}
			p = "b" + string(data)
		}
		out = append(out, p)
	}
	return out
}

func TestUpgradeCrossedOnceAndInOrder(t *testing.T) {
	const all = 600
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	var got []string
	for i := range 100 { // queued before
		send(p, i)
	}
	got = append(got, unpacked(t, c.Get().Body)...)
	ws := c.Upgrade()
	sent := make(chan struct{})
	go func() { // and all the while
		defer close(sent)
		for i := 100; i < all; i++ {
			send(p, i)
		}
	}()
	ws.Send("2probe")
	ws.Want("3probe")
	// What a client does whose poll is still out: it ends with messages or with a noop, and then the upgrade is completed.
	if a := c.Get(); a.Body != "6" {
		got = append(got, unpacked(t, a.Body)...)
	}
	ws.Send("5")
	for len(got) < all {
		m := ws.Next()
		if m.Code != 0 {
			t.Fatalf("closed with %d after %d messages", m.Code, len(got))
		}
		if m.Binary {
			m.Data = "b" + m.Data
		}
		got = append(got, m.Data)
	}
	<-sent
	for i, m := range got {
		text, binary := numbered(i)
		if want := map[bool]string{false: "4" + text, true: "b" + text}[binary]; m != want {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	wantBudget(t, r.budget)
	ws.Send("4back")
	if s := enginetest.Wait(t, p.got); s != "back" {
		t.Fatalf("got %q", s)
	}
	p.SendText([]byte("end")) // nothing came twice
	ws.Want("4end")
}

func TestPollBringsSixteenPacketsAtMost(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	for i := range 40 {
		p.SendText(fmt.Append(nil, i))
	}
	for _, want := range []int{16, 16, 8} {
		if got := len(unpacked(t, c.Get().Body)); got != want {
			t.Fatalf("got %d packets, want %d", got, want)
		}
	}
	// Nor much more than 256 KiB, but for one message that is larger.
	for _, size := range []int{100 << 10, 100 << 10, 100 << 10, 400 << 10, 1} {
		p.SendText(make([]byte, size))
	}
	for _, want := range []int{2, 1, 1, 1} {
		if got := len(unpacked(t, c.Get().Body)); got != want {
			t.Fatalf("got %d packets, want %d", got, want)
		}
	}
	wantBudget(t, r.budget)
}

func TestPingsKeepTheirPlaceAndTheirNumbers(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	ping := func(want uint32) {
		t.Helper()
		if n := p.Ping(); n != want {
			t.Fatalf("ping %d, want %d", n, want)
		}
	}
	pong := func(want uint32) {
		t.Helper()
		if n := enginetest.Wait(t, p.pongs); n != want {
			t.Fatalf("pong %d, want %d", n, want)
		}
	}
	p.SendText([]byte("a"))
	ping(1)
	p.SendText([]byte("b"))
	ping(2)
	p.SendText([]byte("c"))
	if a := c.Get(); a.Body != "4a\x1e2\x1e4b\x1e2\x1e4c" {
		t.Fatalf("got %+v", a)
	}
	c.Post("3")
	pong(1)
	ping(3)
	ws := c.Upgrade()
	ws.Send("2probe")
	ws.Want("3probe")
	p.SendText([]byte("d"))
	ws.Send("5")
	ws.Want("2", "4d")
	ping(4)
	ws.Want("2")
	ws.Send("3", "3", "3")
	pong(2)
	pong(3)
	pong(4)
	// An answer to nothing is none, and what comes after it is answered as ever.
	ws.Send("3", "4x")
	enginetest.Wait(t, p.got)
	if len(p.pongs) != 0 {
		t.Fatal("a ping was answered twice")
	}
	ping(5)
	ws.Want("2")
	ws.Send("3")
	pong(5)
}

func TestPingsAreAnsweredOnce(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, enginetest.Still, nil)
			send, p := open(t, r)
			send("3", "4one") // to no ping at all
			enginetest.Wait(t, p.got)
			p.Ping()
			send("3", "3", "4two")
			enginetest.Wait(t, p.got)
			if n := enginetest.Wait(t, p.pongs); n != 1 || len(p.pongs) != 0 {
				t.Fatalf("pong %d, and %d more", n, len(p.pongs))
			}
		})
	}
}

// transports open a connection on each of them, and give what sends packets on it.
var transports = map[string]func(*testing.T, *rig) (send func(packets ...string), p *program){
	"polling": func(t *testing.T, r *rig) (func(...string), *program) {
		c, p := r.poller(t)
		return func(packets ...string) { c.Post(strings.Join(packets, separator)) }, p
	},
	"WebSocket": func(t *testing.T, r *rig) (func(...string), *program) {
		ws, p := r.socket(t)
		return ws.Send, p
	},
	"upgraded": func(t *testing.T, r *rig) (func(...string), *program) {
		ws, p := r.upgraded(t)
		return ws.Send, p
	},
}

func TestPingsThatAreNeverAnswered(t *testing.T) {
	times := enginetest.Times{Interval: enginetest.Strict.Interval, Timeout: enginetest.Strict.Timeout}
	wantClosed := func(t *testing.T, p *program) {
		t.Helper()
		if why := enginetest.Wait(t, p.closed); why != wire.CloseNoPong {
			t.Fatalf("got %v", why)
		}
	}
	t.Run("polling", func(t *testing.T) {
		r := newRig(t, times, nil)
		c, p := r.poller(t)
		last := ""
		for {
			a := c.Get()
			if a.Status != http.StatusOK {
				if a.Status != http.StatusBadRequest {
					t.Fatalf("got %+v", a)
				}
				break
			}
			last = a.Body
		}
		switch last {
		case "", "1", "2": // a poll that waits then is told; one that comes later is refused
		default:
			t.Fatalf("got %q", last)
		}
		wantClosed(t, p)
		r.wantGone(t)
	})
	t.Run("WebSocket", func(t *testing.T) {
		r := newRig(t, times, nil)
		ws, p := r.socket(t)
		ws.WantClose(wire.CloseNoPong.Code)
		wantClosed(t, p)
		r.wantGone(t)
	})
	t.Run("probing", func(t *testing.T) { // the WebSocket lives no longer than its session
		r := newRig(t, times, nil)
		c, p := r.poller(t)
		ws := c.Upgrade()
		ws.WantClose(wire.CloseNoPong.Code)
		wantClosed(t, p)
		r.wantGone(t)
	})
}

func TestCloseFromOutside(t *testing.T) {
	why := wire.CloseDraining
	closed := func(t *testing.T, r *rig, p *program) {
		t.Helper()
		p.Close(why)
		p.Close(wire.CloseSlow) // the first reason counts
		if got := enginetest.Wait(t, p.closed); got != why {
			t.Fatalf("got %v", got)
		}
		p.SendText([]byte("x")) // goes nowhere
		if n := p.Ping(); n != 0 {
			t.Fatalf("ping %d", n)
		}
	}
	t.Run("polling", func(t *testing.T) {
		r := newRig(t, enginetest.Still, nil)
		c, p := r.poller(t)
		p.SendText([]byte("never read"))
		closed(t, r, p)
		if a := c.Get(); a.Status != http.StatusBadRequest {
			t.Fatalf("got %+v", a)
		}
		if a := c.Post("4x"); a.Status != http.StatusBadRequest {
			t.Fatalf("got %+v", a)
		}
		r.wantGone(t)
	})
	t.Run("WebSocket", func(t *testing.T) {
		r := newRig(t, enginetest.Still, nil)
		ws, p := r.socket(t)
		p.SendText([]byte("last"))
		p.Close(why)
		ws.Want("4last")
		ws.WantClose(why.Code)
		closed(t, r, p)
		r.wantGone(t)
	})
	t.Run("probing", func(t *testing.T) {
		r := newRig(t, enginetest.Still, nil)
		c, p := r.poller(t)
		ws := c.Upgrade()
		ws.Send("2probe")
		ws.Want("3probe")
		closed(t, r, p)
		ws.WantClose(why.Code)
		if a := c.Get(); a.Status != http.StatusBadRequest {
			t.Fatalf("got %+v", a)
		}
		r.wantGone(t)
	})
	t.Run("upgraded", func(t *testing.T) {
		r := newRig(t, enginetest.Still, nil)
		ws, p := r.upgraded(t)
		closed(t, r, p)
		ws.WantClose(why.Code)
		r.wantGone(t)
	})
}

func TestWebSocketEndedByThePeer(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	ws, p := r.socket(t)
	ws.Close(1000)
	if why := enginetest.Wait(t, p.closed); why.Code != 1000 {
		t.Fatalf("got %v", why)
	}
	ws, p = r.upgraded(t)
	ws.Abort()
	if why := enginetest.Wait(t, p.closed); why.Code != 1006 {
		t.Fatalf("got %v", why)
	}
	r.wantGone(t)
}

func TestUpgradeFailedLeavesThePolling(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	for _, words := range [][]string{{"2probe", "2probe", "4x"}, {"5"}, {"4x"}, {"2"}, {""}} {
		ws := c.Upgrade()
		ws.Send(words...)
		ws.WantClose(wire.CloseProtocol.Code)
	}
	ws := c.Upgrade()
	ws.SendBinary(1)
	ws.WantClose(wire.CloseProtocol.Code)
	c.Upgrade().Abort()
	p.SendText([]byte("still here"))
	if a := c.Get(); a.Body != "4still here" {
		t.Fatalf("got %+v", a)
	}
	// The place of the probe is free again.
	testx.Eventually(t, "another probe is answered", enginetest.Patience, func() bool {
		ws := c.Upgrade()
		ws.Send("2probe")
		if m := ws.Next(); m.Data != "3probe" {
			return false
		}
		ws.Send("5", "4there")
		return enginetest.Wait(t, p.got) == "there"
	})
}

func TestCloseWhileBeingAccepted(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	r.onAccept = func(p *program) error {
		p.SendText([]byte("too early")) // does nothing
		p.SendBinary([]byte("too early"))
		if n := p.Ping(); n != 0 {
			t.Errorf("ping %d", n)
		}
		p.Close(wire.CloseDraining)
		return nil
	}
	c, p := r.poller(t)
	if a := c.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	why := enginetest.Wait(t, p.closed)
	ws, _ := r.Socket()
	ws.WantClose(wire.CloseDraining.Code)
	p = enginetest.Wait(t, r.programs)
	if also := enginetest.Wait(t, p.closed); why != wire.CloseDraining || also != why {
		t.Fatalf("got %v and %v", why, also)
	}
	r.wantGone(t)
	if len(p.closed) != 0 {
		t.Fatal("it was told twice")
	}
}

// TestCloseWaitsForWhatBeganWhileBeingAccepted: Closed is the last call, also here.
func TestCloseWaitsForWhatBeganWhileBeingAccepted(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	began, goOn := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	r.onAccept = func(p *program) error {
		go p.Do(func() {
			close(began)
			<-goOn
			ended.Store(true)
		})
		<-began
		p.Close(wire.CloseDraining)
		return nil
	}
	_, p := r.poller(t) // returns when the handshake is answered
	select {
	case <-p.closed:
		t.Fatal("Closed while Do ran")
	default:
	}
	close(goOn)
	enginetest.Wait(t, p.closed)
	if !ended.Load() {
		t.Fatal("Closed while Do ran")
	}
}

func TestHandshakeRefused(t *testing.T) {
	r := newRig(t, enginetest.Still, func(c *engineio.Config) {
		c.Origin = func(r *http.Request) bool { return r.URL.Query().Get("from") != "elsewhere" }
	})
	r.onAccept = func(*program) error {
		return &wire.Error{Code: wire.TooManyConnections, Message: "enough", RetryAfterMS: 1000}
	}
	a := r.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", "", nil)
	if a.Status != http.StatusTooManyRequests || a.Body != `{"code":3,"message":"enough"}` {
		t.Fatalf("got %+v", a)
	}
	if ws, status := r.Dial("EIO=4&transport=websocket", ""); ws != nil || status != http.StatusTooManyRequests {
		t.Fatalf("got %d", status)
	}
	r.onAccept = func(*program) error { return errors.New("a secret") }
	if a = r.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", "", nil); a.Status != 500 || strings.Contains(a.Body, "secret") {
		t.Fatalf("got %+v", a)
	}
	for _, transport := range []string{"polling", "websocket"} {
		if a = r.Do(context.Background(), http.MethodGet, "EIO=4&from=elsewhere&transport="+transport, "", nil); a.Status != http.StatusForbidden {
			t.Fatalf("got %+v", a)
		}
	}
	r.wantGone(t)
}

func TestBudgetOfASlowClientIsGivenBack(t *testing.T) {
	for _, name := range []string{"polling", "WebSocket"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, enginetest.Still, func(c *engineio.Config) { c.Budget = &wsconn.Budget{PerConn: 1 << 20, Total: 64 << 20} })
			_, p := transports[name](t, r)
			for range 1024 { // 64 MiB: kernels buffer a few of a WebSocket
				p.SendText(make([]byte, 64<<10))
				if used := r.budget.Used(); used > r.budget.PerConn {
					t.Fatalf("%d bytes are queued", used)
				}
			}
			if why := enginetest.Wait(t, p.closed); why != wire.CloseSlow {
				t.Fatalf("got %v", why)
			}
			r.wantGone(t)
		})
	}
}

func TestDoRunsAloneAndNotAfterClosed(t *testing.T) {
	r := newRig(t, enginetest.Still, nil)
	c, p := r.poller(t)
	var inside, wrong, ran, after atomic.Int32
	alone := func() {
		if inside.Add(1) != 1 {
			wrong.Add(1)
		}
		inside.Add(-1)
	}
	p.text = func([]byte) { alone() }
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				p.Do(func() { alone(); ran.Add(1) })
			}
		})
	}
	for range 10 {
		if a := c.Post("4" + strings.Repeat("x"+separator+"4", 80)); a.Status != http.StatusOK {
			t.Fatalf("got %+v", a)
		}
	}
	wg.Wait()
	if wrong.Load() != 0 || ran.Load() != 2000 {
		t.Fatalf("%d at once, %d ran", wrong.Load(), ran.Load())
	}
	p.Close(wire.CloseNormal)
	enginetest.Wait(t, p.closed)
	p.Do(func() { after.Add(1) })
	if after.Load() != 0 {
		t.Fatal("Do ran after Closed")
	}
}
