package enginetest

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Times of a server's heartbeats.
type Times struct{ Interval, Timeout time.Duration }

// The times that cases need.
var (
	Still  = Times{time.Hour, time.Hour}                         // no heartbeat
	Beats  = Times{20 * time.Millisecond, time.Hour}             // heartbeats that nobody misses
	Strict = Times{20 * time.Millisecond, 20 * time.Millisecond} // one that is missed soon
)

// Start makes a server with these times, and a function that reports how many connections it has.
type Start func(t *testing.T, times Times) (*Site, func() int)

// Case is one case of the suites that the authors of the protocol publish.
type Case func(t *testing.T, start Start)

func wantHello(t *testing.T, packet string, upgrades ...string) {
	t.Helper()
	h, err := ReadHello(packet)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(h.Upgrades, " ") != strings.Join(upgrades, " ") || h.PingInterval != int(Beats.Interval/time.Millisecond) ||
		h.PingTimeout != int(Beats.Timeout/time.Millisecond) || h.MaxPayload != 1_000_000 {
		t.Fatalf("got %+v", h)
	}
}

// PollingOpens is a handshake on long-polling.
func PollingOpens(t *testing.T, start Start) {
	s, _ := start(t, Beats)
	a := s.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", "", nil)
	if a.Status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	wantHello(t, a.Body, "websocket")
}

// refused checks requests that must be answered with 400 and one of the protocol's errors.
func refused(t *testing.T, start Start, code int, method string, queries ...string) {
	t.Helper()
	s, open := start(t, Still)
	for _, q := range queries {
		a := s.Do(context.Background(), method, q, "", nil)
		var e struct {
			Code    *int   `json:"code"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal([]byte(a.Body), &e); err != nil || a.Status != http.StatusBadRequest || e.Code == nil || *e.Code != code || e.Message == "" {
			t.Fatalf("%s %s: got %+v", method, q, a)
		}
	}
	if n := open(); n != 0 {
		t.Fatalf("%d connections are open", n)
	}
}

// PollingWantsEIO refuses other protocol versions.
func PollingWantsEIO(t *testing.T, start Start) {
	refused(t, start, 5, http.MethodGet, "transport=polling", "EIO=abc&transport=polling", "EIO=3&transport=polling")
}

// PollingWantsTransport refuses unknown transports.
func PollingWantsTransport(t *testing.T, start Start) {
	refused(t, start, 0, http.MethodGet, "EIO=4", "EIO=4&transport=abc")
}

// PollingWantsGet refuses a handshake by another method.
func PollingWantsGet(t *testing.T, start Start) {
	refused(t, start, 2, http.MethodPost, "EIO=4&transport=polling")
	refused(t, start, 2, http.MethodPut, "EIO=4&transport=polling")
}

// SocketOpens is a handshake on a WebSocket.
func SocketOpens(t *testing.T, start Start) {
	s, _ := start(t, Beats)
	ws, status := s.Dial("EIO=4&transport=websocket", "")
	if ws == nil {
		t.Fatalf("got %d", status)
	}
	wantHello(t, ws.Next().Data)
}

func socketRefused(t *testing.T, start Start, queries ...string) {
	t.Helper()
	s, open := start(t, Still)
	for _, q := range queries {
		if ws, status := s.Dial(q, ""); ws != nil || status != http.StatusBadRequest {
			t.Fatalf("%s: got %d", q, status)
		}
	}
	if n := open(); n != 0 {
		t.Fatalf("%d connections are open", n)
	}
}

// SocketWantsEIO refuses other protocol versions.
func SocketWantsEIO(t *testing.T, start Start) {
	socketRefused(t, start, "transport=websocket", "EIO=abc&transport=websocket", "EIO=3&transport=websocket")
}

// SocketWantsTransport refuses unknown transports.
func SocketWantsTransport(t *testing.T, start Start) {
	socketRefused(t, start, "EIO=4", "EIO=4&transport=abc")
}

// PollingBeats exchanges heartbeats.
func PollingBeats(t *testing.T, start Start) {
	s, _ := start(t, Beats)
	p := s.Open()
	for range 3 {
		a := p.Get()
		pings := strings.Split(a.Body, "\x1e") // more than one where this machine is slower than the heart
		for _, one := range pings {
			if a.Status != http.StatusOK || one != "2" {
				t.Fatalf("got %+v", a)
			}
		}
		if a := p.Post("3" + strings.Repeat("\x1e3", len(pings)-1)); a.Status != http.StatusOK {
			t.Fatalf("got %+v", a)
		}
	}
}

// PollingTimesOut is a client that answers no ping.
func PollingTimesOut(t *testing.T, start Start) {
	s, open := start(t, Strict)
	p := s.Open()
	wantNone(t, open)
	if a := p.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
}

func wantNone(t *testing.T, open func() int) {
	t.Helper()
	for until := time.Now().Add(Patience); open() > 0; {
		if time.Now().After(until) {
			t.Fatal("connections stay open")
		}
		time.Sleep(time.Millisecond) // polling interval
	}
}

// SocketBeats exchanges heartbeats.
func SocketBeats(t *testing.T, start Start) {
	s, _ := start(t, Beats)
	ws, _ := s.Socket()
	for range 3 {
		ws.Want("2")
		ws.Send("3")
	}
}

// SocketTimesOut is a client that answers no ping.
func SocketTimesOut(t *testing.T, start Start) {
	s, open := start(t, Strict)
	ws, _ := s.Socket()
	ws.Want("2")
	ws.WantClose(4002)
	wantNone(t, open)
}

// PollingCloses is a client that says good-bye; a poll that waits, or comes right then, ends in an orderly way.
func PollingCloses(t *testing.T, start Start) {
	s, open := start(t, Still)
	p := s.Open()
	poll := p.Go()
	if a := p.Post("1"); a.Status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	if a := Wait(t, poll); a.Status != http.StatusOK || a.Body != "6" {
		t.Fatalf("got %+v", a)
	}
	if a := p.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	wantNone(t, open)
}

// PollingCancelled is a client that gives its poll up, and asks again at once.
func PollingCancelled(t *testing.T, start Start) {
	s, open := start(t, Still)
	p := s.Open()
	p.GiveUp()
	a := p.Get()
	if a.Status == http.StatusOK && a.Body == "1" { // it overtook the first one, which ended both
		a = p.Get()
	}
	if a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	wantNone(t, open)
}

// SocketCloses is a client that says good-bye.
func SocketCloses(t *testing.T, start Start) {
	s, open := start(t, Still)
	ws, _ := s.Socket()
	ws.Send("1")
	ws.WantClose(1000)
	wantNone(t, open)
}

// Upgrades goes from long-polling to a WebSocket, a message by way of echo ("" for servers that send none back).
func Upgrades(echo string) Case {
	return func(t *testing.T, start Start) {
		s, open := start(t, Still)
		p := s.Open()
		ws := p.Upgrade()
		ws.Send("2probe")
		ws.Want("3probe")
		// The poll ends in an orderly way before the upgrade is complete.
		if a := p.Get(); a.Status != http.StatusOK || a.Body != "6" {
			t.Fatalf("got %+v", a)
		}
		ws.Send("5")
		alive(t, ws, echo)
		if open() != 1 {
			t.Fatal("the connection is gone")
		}
	}
}

// alive proves that ws is the transport.
func alive(t *testing.T, ws *Socket, echo string) {
	t.Helper()
	if echo != "" {
		ws.Send(echo)
		ws.Want(echo)
		return
	}
	ws.Send("40")
	if m := ws.Next(); !strings.HasPrefix(m.Data, `40{"sid":"`) {
		t.Fatalf("got %+v", m)
	}
}

// UpgradedIgnoresHTTP refuses polls of a session that has a WebSocket, which goes on.
func UpgradedIgnoresHTTP(echo string) Case {
	return func(t *testing.T, start Start) {
		s, _ := start(t, Still)
		p := s.Open()
		ws := p.Upgrade()
		ws.Send("2probe", "5")
		for range 2 { // the first one may come before the upgrade is complete
			if a := p.Get(); a.Status != http.StatusBadRequest {
				t.Fatalf("got %+v", a)
			}
		}
		ws.Want("3probe")
		alive(t, ws, echo)
		if a := p.Post("4x"); a.Status != http.StatusBadRequest {
			t.Fatalf("got %+v", a)
		}
		alive2(t, ws, echo)
	}
}

// alive2 proves it once more.
func alive2(t *testing.T, ws *Socket, echo string) {
	t.Helper()
	if echo != "" {
		alive(t, ws, echo)
	}
}

// UpgradedIgnoresSocket closes a second WebSocket of a session, which goes on.
func UpgradedIgnoresSocket(echo string) Case {
	return func(t *testing.T, start Start) {
		s, _ := start(t, Still)
		p := s.Open()
		ws := p.Upgrade()
		ws.Send("2probe", "5")
		p.Upgrade().WantClose(1002)
		ws.Want("3probe")
		alive(t, ws, echo)
	}
}
