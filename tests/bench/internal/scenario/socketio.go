package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/proc"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	nativeName    = "native WebSocket"
	socketIOName  = "Socket.IO over WebSocket"
	pollingName   = "Socket.IO, long-polling"
	pollingFewer  = 5 // a polling client has two connections, and the load generator as many
	idleWatchFor  = 12 * time.Second
	idleWatchEach = 1000 // connections
)

// socketio measures what the clients of the older system cost beside native ones, on the same gateway.
func socketio(ctx context.Context, e *Env) error {
	if err := socketIOMemory(ctx, e); err != nil {
		return err
	}
	return socketIOMessages(ctx, e)
}

func socketIOMemory(ctx context.Context, e *Env) error {
	n := pick(e, 4000, idleClients)
	t := e.Report.Table(&report.Table{
		Title: "Socket.IO beside native: idle connections",
		Note: fmt.Sprintf("Each client has joined one room; those of Socket.IO with socketio-delay at 0s, and they send connection_alive every 6 s as that protocol asks. Resident size of the whole gateway process "+
			"%s after the last one came; a polling client is two TCP connections. CPU is that of the gateway over %s.", idleFor, idleWatchFor),
		Head: []string{"clients", "connections", "empty process", "full process", "full / N", "each further one", "× native", "opened in", "gateway CPU an opening",
			fmt.Sprintf("gateway CPU of %s idle ones", report.Count(idleWatchEach))},
	})
	var native float64
	for _, k := range []struct {
		name string
		n    int
		of   func(target.Target, string) target.Target
	}{{nativeName, n, target.OneRoom}, {socketIOName, n, target.SocketIO}, {pollingName, n / pollingFewer, target.Polling}} {
		p, err := e.parley(accounts, 1, services)
		if err != nil {
			return err
		}
		m, err := e.idle(ctx, k.of(p, k.name), k.n)
		e.StopAll()
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		further := float64(m.full-m.empty) / float64(k.n)
		if native == 0 {
			native = further
		}
		e.Log("%s: %s a connection, each further one %s", k.name, report.KB(float64(m.full)/float64(k.n)), report.KB(further))
		t.Row(k.name, report.Count(float64(k.n)), report.MB(m.empty), report.MB(m.full), report.KB(float64(m.full)/float64(k.n)), report.KB(further), report.Times(further, native),
			report.Seconds(m.took), report.Us(m.opening/time.Duration(k.n)), fmt.Sprintf("%.1f %% of a core", 100*float64(m.beats)/float64(idleWatchFor)*idleWatchEach/float64(k.n)))
	}
	return nil
}

type idleCost struct {
	empty, full    int64
	took           time.Duration
	opening, beats time.Duration // CPU of the gateway
}

// idle connects n clients through the first door, which then do nothing.
func (e *Env) idle(ctx context.Context, t target.Target, n int) (m idleCost, err error) {
	front := t.Front(0).Pid()
	empty, err := proc.Read(front)
	if err != nil {
		return m, err
	}
	began := time.Now()
	crowd, err := load.Gather(ctx, t, 0, 0, n)
	if err != nil {
		return m, err
	}
	defer crowd.Close()
	m.took = time.Since(began)
	opened, err := proc.Read(front)
	if err != nil {
		return m, err
	}
	time.Sleep(idleFor)
	full, err := proc.Read(front)
	if err != nil {
		return m, err
	}
	time.Sleep(idleWatchFor)
	end, err := proc.Read(front)
	if err != nil {
		return m, err
	}
	e.heap(t)
	if err := crowd.Lost(); err != nil {
		return m, fmt.Errorf("a connection was lost: %w", err)
	}
	if in, err := sessions(t); err != nil || in != n {
		return m, errors.Join(fmt.Errorf("%d of %d clients are signed in", in, n), err)
	}
	m.empty, m.full, m.opening, m.beats = empty.RSS, full.RSS, opened.CPU-empty.CPU, end.CPU-full.CPU
	return m, nil
}

// socketIOMessages compares chats on one gateway, in turn.
func socketIOMessages(ctx context.Context, e *Env) error {
	p, err := e.parley(accounts, 1, services)
	if err != nil {
		return err
	}
	targets := []target.Target{target.OneRoom(p, nativeName), target.SocketIO(p, socketIOName)}
	t := e.Report.Table(&report.Table{
		Title: "Socket.IO beside native: messages",
		Note: fmt.Sprintf("%d pairs of each kind on one gateway, in turn; messages of %d bytes with one recipient. Socket.IO's sender gets its own message back, where a native one gets message_accepted. "+
			"CPU is that of all server processes until history has stored the last message; medians of the rounds.", pairs, load.ContentBytes),
		Head: []string{"clients", "load", "delivered a second", "gateway CPU a message", "× native", "all servers", "× native", "p50", "p99"},
	})
	n := pick(e, 3, 7)
	for _, l := range []struct {
		name string
		run  func() ([][]load.Result, error)
	}{
		{report.Count(steadyRate) + " msg/s", func() ([][]load.Result, error) { return steady(ctx, e, targets, n, steadyRate) }},
		{"saturation", func() ([][]load.Result, error) { return saturate(ctx, e, targets, n) }},
	} {
		res, err := l.run()
		if err != nil {
			return err
		}
		for i, list := range res {
			front, all := median(list, gatewayEach), median(list, load.Result.CPUEach)
			t.Row(targets[i].Name(), l.name, report.Count(median(list, load.Result.Rate)), report.Us(front), report.Times(float64(front), float64(median(res[0], gatewayEach))),
				report.Us(all), report.Times(float64(all), float64(median(res[0], load.Result.CPUEach))), report.Ms(median(list, at(.5))), report.Ms(median(list, at(.99))))
		}
	}
	return nil
}

// gatewayEach is what a message cost the gateway.
func gatewayEach(r load.Result) time.Duration {
	return r.Parts["gateway-0"] / time.Duration(max(1, r.Sent))
}

// sessions is how many clients are signed in at the process behind the first door, as it says itself.
func sessions(t target.Target) (n int, err error) {
	addr := t.(target.Profiled).Admin()["gateway-0"]
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("read the gateway's metrics: %w", err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "parley_gateway_sessions "); ok {
			f, err := strconv.ParseFloat(value, 64)
			return int(f), err
		}
	}
	return 0, errors.New("the gateway's metrics say nothing of sessions")
}
