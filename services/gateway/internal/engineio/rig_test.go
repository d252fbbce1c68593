package engineio_test

import (
	"net/http"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/socketio/echo"
	"parley.example/services/gateway/internal/wsconn"
)

// program is a Handler that hands everything on, and the connection that it has.
type program struct {
	*engineio.Conn
	request *http.Request
	got     chan string // texts, and binary ones behind a "b"
	pongs   chan uint32
	closed  chan wire.Close
	text    func(b []byte) // called first, if any
}

func (p *program) Text(b []byte) {
	if p.text != nil {
		p.text(b)
	}
	p.got <- string(b)
}
func (p *program) Binary(b []byte)       { p.got <- "b" + string(b) }
func (p *program) Pong(n uint32)         { p.pongs <- n }
func (p *program) Closed(why wire.Close) { p.closed <- why }

// rig is a server whose programs tests can get at.
type rig struct {
	*enginetest.Site
	server   *engineio.Server
	budget   *wsconn.Budget
	programs chan *program
	onAccept func(*program) error
}

func newRig(t *testing.T, times enginetest.Times, change func(*engineio.Config)) *rig {
	t.Helper()
	cfg := echo.Engine()
	cfg.PingInterval, cfg.PingTimeout = times.Interval, times.Timeout
	if change != nil {
		change(&cfg)
	}
	r := &rig{budget: cfg.Budget, programs: make(chan *program, 100)}
	r.server = engineio.New(cfg, func(c *engineio.Conn, req *http.Request) (engineio.Handler, error) {
		p := &program{Conn: c, request: req, got: make(chan string, 1000), pongs: make(chan uint32, 100), closed: make(chan wire.Close, 10)}
		r.programs <- p
		if r.onAccept != nil {
			if err := r.onAccept(p); err != nil {
				return nil, err
			}
		}
		return p, nil
	})
	r.Site = enginetest.Serve(t, "/engine.io/", r.server, r.server.Run)
	return r
}

// poller opens a session on long-polling and gives both its ends.
func (r *rig) poller(t *testing.T) (*enginetest.Poller, *program) {
	t.Helper()
	return r.Open(), enginetest.Wait(t, r.programs)
}

// socket opens one on a WebSocket.
func (r *rig) socket(t *testing.T) (*enginetest.Socket, *program) {
	t.Helper()
	ws, _ := r.Socket()
	return ws, enginetest.Wait(t, r.programs)
}

// upgraded opens one on long-polling and upgrades it.
func (r *rig) upgraded(t *testing.T) (*enginetest.Socket, *program) {
	t.Helper()
	c, p := r.poller(t)
	ws := c.Upgrade()
	ws.Send("2probe")
	ws.Want("3probe")
	ws.Send("5", "4there")
	if got := enginetest.Wait(t, p.got); got != "there" {
		t.Fatalf("got %q", got)
	}
	return ws, p
}

// wantGone waits until the server has forgotten all connections and what they had queued.
func (r *rig) wantGone(t *testing.T) {
	t.Helper()
	testx.Eventually(t, "no connection is left", enginetest.Patience, func() bool { return r.server.Len() == 0 })
	wantBudget(t, r.budget)
}

func wantBudget(t *testing.T, b *wsconn.Budget) {
	t.Helper()
	testx.Eventually(t, "the budget is given back", enginetest.Patience, func() bool { return b.Used() == 0 })
}
