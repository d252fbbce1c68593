package socketio_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/socketio"
	"parley.example/services/gateway/internal/socketio/echo"
	"parley.example/services/gateway/internal/wsconn"
)

func TestMain(m *testing.M) { testx.Main(m) }

// serve runs the echo server that the suite expects, with other times.
func serve(t *testing.T, times enginetest.Times, change func(*socketio.Config)) (site *enginetest.Site, open func() int, budget *wsconn.Budget) {
	t.Helper()
	cfg, scfg := echo.Engine(), echo.SocketIO()
	cfg.PingInterval, cfg.PingTimeout = times.Interval, times.Timeout
	scfg.ConnectTimeout = time.Hour
	if change != nil {
		change(&scfg)
	}
	s := echo.NewSocketIO(cfg, scfg)
	t.Cleanup(func() {
		testx.Eventually(t, "the budget is given back", enginetest.Patience, func() bool { return cfg.Budget.Used() == 0 })
	})
	return enginetest.Serve(t, "/socket.io/", s, s.Run), s.Len, cfg.Budget
}

func start(t *testing.T, times enginetest.Times) (*enginetest.Site, func() int) {
	t.Helper()
	site, open, _ := serve(t, times, nil)
	return site, open
}

// connect enters a namespace ("" for the root) with a payload, if any.
func connect(t *testing.T, ws *enginetest.Socket, namespace, payload string) {
	t.Helper()
	prefix := ""
	if namespace != "" {
		prefix = namespace + ","
	}
	ws.Send("40" + prefix + payload)
	rest, ok := strings.CutPrefix(ws.Next().Data, "40"+prefix)
	var v map[string]string
	if !ok || json.Unmarshal([]byte(rest), &v) != nil || len(v) != 1 || v["sid"] == "" {
		t.Fatalf("got %q", rest)
	}
	if payload == "" {
		payload = "{}"
	}
	ws.Want("42" + prefix + `["auth",` + payload + "]")
}

// connected is a client in the root namespace.
func connected(t *testing.T, site *enginetest.Site) *enginetest.Socket {
	t.Helper()
	ws, _ := site.Socket()
	connect(t, ws, "", "")
	return ws
}

// TestConformance has the cases of the suite that the protocol's authors publish (.ci/conformance runs that one), by its names.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		run  enginetest.Case
	}{
		{"Engine.IO protocol/handshake/HTTP long-polling/should successfully open a session", enginetest.PollingOpens},
		{"Engine.IO protocol/handshake/HTTP long-polling/should fail with an invalid 'EIO' query parameter", enginetest.PollingWantsEIO},
		{"Engine.IO protocol/handshake/HTTP long-polling/should fail with an invalid 'transport' query parameter", enginetest.PollingWantsTransport},
		{"Engine.IO protocol/handshake/HTTP long-polling/should fail with an invalid request method", enginetest.PollingWantsGet},
		{"Engine.IO protocol/handshake/WebSocket/should successfully open a session", enginetest.SocketOpens},
		{"Engine.IO protocol/handshake/WebSocket/should fail with an invalid 'EIO' query parameter", enginetest.SocketWantsEIO},
		{"Engine.IO protocol/handshake/WebSocket/should fail with an invalid 'transport' query parameter", enginetest.SocketWantsTransport},
		{"Engine.IO protocol/heartbeat/HTTP long-polling/should send ping/pong packets", enginetest.PollingBeats},
		{"Engine.IO protocol/heartbeat/HTTP long-polling/should close the session upon ping timeout", enginetest.PollingTimesOut},
		{"Engine.IO protocol/heartbeat/WebSocket/should send ping/pong packets", enginetest.SocketBeats},
		{"Engine.IO protocol/heartbeat/WebSocket/should close the session upon ping timeout", enginetest.SocketTimesOut},
		{"Engine.IO protocol/close/HTTP long-polling/should forcefully close the session", enginetest.PollingCloses},
		{"Engine.IO protocol/close/WebSocket/should forcefully close the session", enginetest.SocketCloses},
		{"Engine.IO protocol/upgrade/should successfully upgrade from HTTP long-polling to WebSocket", enginetest.Upgrades("")},
		{"Engine.IO protocol/upgrade/should ignore HTTP requests with same sid after upgrade", enginetest.UpgradedIgnoresHTTP("")},
		{"Engine.IO protocol/upgrade/should ignore WebSocket connection with same sid after upgrade", enginetest.UpgradedIgnoresSocket("")},

		{"Socket.IO protocol/connect/should allow connection to the main namespace", connects("", "")},
		{"Socket.IO protocol/connect/should allow connection to the main namespace with a payload", connects("", `{"token":"123"}`)},
		{"Socket.IO protocol/connect/should allow connection to a custom namespace", connects("/custom", "")},
		{"Socket.IO protocol/connect/should allow connection to a custom namespace with a payload", connects("/custom", `{"token":"abc"}`)},
		{"Socket.IO protocol/connect/should disallow connection to an unknown namespace", func(t *testing.T, start enginetest.Start) {
			site, _ := start(t, enginetest.Still)
			ws, _ := site.Socket()
			ws.Send("40/random")
			ws.Want(`44/random,{"message":"Invalid namespace"}`)
			connect(t, ws, "", "") // another one is open to it
		}},
		{"Socket.IO protocol/connect/should disallow connection with an invalid handshake", func(t *testing.T, start enginetest.Start) {
			site, _ := start(t, enginetest.Still)
			ws, _ := site.Socket()
			ws.Send("4abc")
			ws.WantClose(wire.CloseProtocol.Code)
		}},
		{"Socket.IO protocol/connect/should close the connection if no handshake is received", func(t *testing.T, _ enginetest.Start) {
			site, open, _ := serve(t, enginetest.Still, func(c *socketio.Config) { c.ConnectTimeout = 20 * time.Millisecond })
			ws, _ := site.Socket()
			ws.WantClose(wire.CloseNoAuth.Code)
			testx.Eventually(t, "it is forgotten", enginetest.Patience, func() bool { return open() == 0 })
		}},

		{"Socket.IO protocol/disconnect/should disconnect from the main namespace", func(t *testing.T, start enginetest.Start) {
			site, _ := start(t, enginetest.Times{Interval: 300 * time.Millisecond, Timeout: time.Hour})
			ws := connected(t, site)
			ws.Send("41")
			ws.Want("2") // nothing more of the namespace, and the connection goes on
			ws.Send("3")
			connect(t, ws, "", "")
		}},
		{"Socket.IO protocol/disconnect/should connect then disconnect from a custom namespace", func(t *testing.T, start enginetest.Start) {
			site, _ := start(t, enginetest.Still)
			ws := connected(t, site)
			connect(t, ws, "/custom", "")
			ws.Send("41/custom", `42["message","message to main namespace"]`)
			ws.Want(`42["message-back","message to main namespace"]`)
		}},

		{"Socket.IO protocol/message/should send a plain-text packet", exchange([]string{`42["message",1,"2",{"3":[true]}]`}, `42["message-back",1,"2",{"3":[true]}]`)},
		{"Socket.IO protocol/message/should send a packet with binary attachments", exchange(
			[]string{`452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "b\x01\x02\x03", "b\x04\x05\x06"},
			`452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "b\x01\x02\x03", "b\x04\x05\x06")},
		{"Socket.IO protocol/message/should send a plain-text packet with an ack", exchange(
			[]string{`42456["message-with-ack",1,"2",{"3":[false]}]`}, `43456[1,"2",{"3":[false]}]`)},
		{"Socket.IO protocol/message/should send a packet with binary attachments and an ack", exchange(
			[]string{`452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "b\x01\x02\x03", "b\x04\x05\x06"},
			`462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "b\x01\x02\x03", "b\x04\x05\x06")},
		{"Socket.IO protocol/message/should close the connection upon invalid format (unknown packet type)", closes("4abc")},
		{"Socket.IO protocol/message/should close the connection upon invalid format (invalid payload format)", closes("42{}")},
		{"Socket.IO protocol/message/should close the connection upon invalid format (invalid ack id)", closes(`42abc["message-with-ack",1,"2",{"3":[false]}]`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, start)
		})
	}
}

func connects(namespace, payload string) enginetest.Case {
	return func(t *testing.T, start enginetest.Start) {
		site, _ := start(t, enginetest.Still)
		ws, _ := site.Socket()
		connect(t, ws, namespace, payload)
	}
}

// say sends packets; binary ones have a "b" in front.
func say(ws *enginetest.Socket, packets ...string) {
	for _, p := range packets {
		if b, ok := strings.CutPrefix(p, "b"); ok {
			ws.SendBinary([]byte(b)...)
		} else {
			ws.Send(p)
		}
	}
}

func exchange(packets []string, want ...string) enginetest.Case {
	return func(t *testing.T, start enginetest.Start) {
		site, _ := start(t, enginetest.Still)
		ws := connected(t, site)
		say(ws, packets...)
		ws.Want(want...)
	}
}

func closes(packet string) enginetest.Case {
	return func(t *testing.T, start enginetest.Start) {
		site, open := start(t, enginetest.Still)
		ws := connected(t, site)
		ws.Send(packet)
		ws.WantClose(wire.CloseProtocol.Code)
		testx.Eventually(t, "it is forgotten", enginetest.Patience, func() bool { return open() == 0 })
	}
}
