package engineio_test

import (
	"net/http"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/socketio/echo"
)

func TestMain(m *testing.M) { testx.Main(m) }

// start runs the echo server that the suite expects, with other times.
func start(t *testing.T, times enginetest.Times) (*enginetest.Site, func() int) {
	t.Helper()
	cfg := echo.Engine()
	cfg.PingInterval, cfg.PingTimeout = times.Interval, times.Timeout
	s := echo.NewEngine(cfg)
	t.Cleanup(func() { wantBudget(t, cfg.Budget) })
	return enginetest.Serve(t, "/engine.io/", s, s.Run), s.Len
}

// TestConformance has the cases of the suite that the protocol's authors publish (.ci/conformance runs that one), by its names.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		run  enginetest.Case
	}{
		{"handshake/HTTP long-polling/successfully opens a session", enginetest.PollingOpens},
		{"handshake/HTTP long-polling/fails with an invalid 'EIO' query parameter", enginetest.PollingWantsEIO},
		{"handshake/HTTP long-polling/fails with an invalid 'transport' query parameter", enginetest.PollingWantsTransport},
		{"handshake/HTTP long-polling/fails with an invalid request method", enginetest.PollingWantsGet},
		{"handshake/WebSocket/successfully opens a session", enginetest.SocketOpens},
		{"handshake/WebSocket/fails with an invalid 'EIO' query parameter", enginetest.SocketWantsEIO},
		{"handshake/WebSocket/fails with an invalid 'transport' query parameter", enginetest.SocketWantsTransport},

		{"message/HTTP long-polling/sends and receives a payload containing one plain text packet", echoed("4hello")},
		{"message/HTTP long-polling/sends and receives a payload containing several plain text packets", echoed("4test1\x1e4test2\x1e4test3")},
		{"message/HTTP long-polling/sends and receives a payload containing plain text and binary packets", echoed("4hello\x1ebAQIDBA==")},
		{"message/HTTP long-polling/closes the session upon invalid packet format", pollingInvalid},
		{"message/HTTP long-polling/closes the session upon duplicate poll requests", pollingTwice},
		{"message/HTTP long-polling/closes the session upon cancelled polling request", enginetest.PollingCancelled},
		{"message/WebSocket/sends and receives a plain text packet", func(t *testing.T, start enginetest.Start) {
			s, _ := start(t, enginetest.Still)
			ws, _ := s.Socket()
			ws.Send("4hello")
			ws.Want("4hello")
		}},
		{"message/WebSocket/sends and receives a binary packet", func(t *testing.T, start enginetest.Start) {
			s, _ := start(t, enginetest.Still)
			ws, _ := s.Socket()
			ws.SendBinary(1, 2, 3, 4)
			ws.Want("b\x01\x02\x03\x04")
		}},
		{"message/WebSocket/closes the session upon invalid packet format", func(t *testing.T, start enginetest.Start) {
			s, _ := start(t, enginetest.Still)
			ws, _ := s.Socket()
			ws.Send("abc")
			ws.WantClose(wire.CloseProtocol.Code)
		}},

		{"heartbeat/HTTP long-polling/sends ping/pong packets", enginetest.PollingBeats},
		{"heartbeat/HTTP long-polling/closes the session upon ping timeout", enginetest.PollingTimesOut},
		{"heartbeat/WebSocket/sends ping/pong packets", enginetest.SocketBeats},
		{"heartbeat/WebSocket/closes the session upon ping timeout", enginetest.SocketTimesOut},

		{"close/HTTP long-polling/forcefully closes the session", enginetest.PollingCloses},
		{"close/WebSocket/forcefully closes the session", enginetest.SocketCloses},

		{"upgrade/successfully upgrades from HTTP long-polling to WebSocket", enginetest.Upgrades("4hello")},
		{"upgrade/ignores HTTP requests with same sid after upgrade", enginetest.UpgradedIgnoresHTTP("4hello")},
		{"upgrade/ignores WebSocket connection with same sid after upgrade", enginetest.UpgradedIgnoresSocket("4hello")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, start)
		})
	}
}

func echoed(payload string) enginetest.Case {
	return func(t *testing.T, start enginetest.Start) {
		s, _ := start(t, enginetest.Still)
		p := s.Open()
		if a := p.Post(payload); a.Status != http.StatusOK || a.Body != "ok" {
			t.Fatalf("got %+v", a)
		}
		if a := p.Get(); a.Status != http.StatusOK || a.Body != payload {
			t.Fatalf("got %+v", a)
		}
	}
}

func pollingInvalid(t *testing.T, start enginetest.Start) {
	s, open := start(t, enginetest.Still)
	p := s.Open()
	if a := p.Post("abc"); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
	if a := p.Get(); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "Session ID unknown") || open() != 0 {
		t.Fatalf("got %+v", a)
	}
}

func pollingTwice(t *testing.T, start enginetest.Start) {
	s, open := start(t, enginetest.Still)
	p := s.Open()
	one, two := p.Go(), p.Go()
	a, b := enginetest.Wait(t, one), enginetest.Wait(t, two)
	if a.Status != http.StatusOK {
		a, b = b, a // which of them came first is open
	}
	if a.Status != http.StatusOK || a.Body != "1" || b.Status != http.StatusBadRequest {
		t.Fatalf("got %+v and %+v", a, b)
	}
	if a := p.Get(); a.Status != http.StatusBadRequest || open() != 0 {
		t.Fatalf("got %+v", a)
	}
}
