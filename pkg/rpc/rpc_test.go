package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"parley.example/client/wire"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

type question struct {
	N int `json:"n"`
}

type answer struct {
	N int `json:"n"`
}

func serve(t *testing.T, nc *nats.Conn, concurrency int, handlers ...rpc.Handler) *rpc.Service {
	t.Helper()
	s, err := rpc.Serve(nc, "test", "1.0.0", concurrency, testx.Quiet(), handlers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantCode(t *testing.T, err error, code wire.Code) *wire.Error {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return e
}

// test is an endpoint of the tests' service.
func test(method string) rpc.Endpoint[question, answer] {
	return rpc.Endpoint[question, answer]{Subject: "svc.test." + method}
}

// loose takes requests that a service does not expect.
func loose(method string) rpc.Endpoint[any, answer] {
	return rpc.Endpoint[any, answer]{Subject: test(method).Subject}
}

var double = test("double")

func twice(_ context.Context, q question) (answer, error) { return answer{2 * q.N}, nil }

// over asks over a connection, for as long as the context says.
func over(nc *nats.Conn) rpc.Caller { return rpc.Caller{Conn: nc, Timeout: time.Hour} }

func TestCall(t *testing.T) {
	nc := testx.NatsServer(t).Connect()
	serve(t, nc, 4,
		double.Handle(twice),
		rpc.Handler{Subject: "svc.test.named", Answer: func(context.Context, []byte) (any, error) {
			return nil, fmt.Errorf("wrapped: %w", &wire.Error{Code: wire.RateLimited, Message: "slower \"please\"", RetryAfterMS: 7})
		}},
		rpc.Handler{Subject: "svc.test.silent", Answer: func(context.Context, []byte) (any, error) { return nil, &wire.Error{Code: wire.Forbidden} }},
		rpc.Handler{Subject: "svc.test.inside", Answer: func(context.Context, []byte) (any, error) { return nil, errors.New("dial 10.1.2.3") }},
		rpc.Handler{Subject: "svc.test.wrong", Answer: func(context.Context, []byte) (any, error) { return []string{"x"}, nil }},
	)
	got, err := test("double").Call(within(t, 5*time.Second), over(nc), question{21})
	if err != nil || got.N != 42 {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = loose("double").Call(within(t, 5*time.Second), over(nc), "text")
	wantCode(t, err, wire.InvalidArgument)
	_, err = test("named").Call(within(t, 5*time.Second), over(nc), question{})
	if e := wantCode(t, err, wire.RateLimited); e.Message != "slower \"please\"" || e.RetryAfterMS != 7 {
		t.Errorf("%+v", e)
	}
	_, err = test("silent").Call(within(t, 5*time.Second), over(nc), question{})
	wantCode(t, err, wire.Forbidden)
	_, err = test("inside").Call(within(t, 5*time.Second), over(nc), question{})
	if e := wantCode(t, err, wire.Internal); strings.Contains(e.Message, "10.1.2.3") {
		t.Errorf("the error tells what is inside: %v", e)
	}
	// Every failure has a code, also one that only a mistake of ours can cause.
	if _, err := test("wrong").Call(within(t, 5*time.Second), over(nc), question{}); err == nil || wire.AsError(err).Code != wire.Internal {
		t.Errorf("a list for an object: %v", err)
	}
	if _, err := loose("double").Call(within(t, 5*time.Second), over(nc), func() {}); err == nil {
		t.Error("a function was encoded")
	}
	// Nobody there: at once.
	_, err = test("nobody").Call(within(t, time.Hour), over(nc), question{})
	wantCode(t, err, wire.Unavailable)
}

func TestCallWaitsNoLongerThanAsked(t *testing.T) {
	nc := testx.NatsServer(t).Connect()
	release := make(chan struct{})
	serve(t, nc, 4,
		rpc.Handler{Subject: "svc.test.slow", Answer: func(context.Context, []byte) (any, error) { <-release; return answer{}, nil }},
	)
	defer close(release)
	_, err := test("slow").Call(within(t, 50*time.Millisecond), over(nc), question{})
	wantCode(t, err, wire.Unavailable)
	ctx, cancel := context.WithCancel(within(t, time.Hour))
	cancel()
	_, err = test("slow").Call(ctx, over(nc), question{})
	wantCode(t, err, wire.Unavailable)
	nc.Close()
	_, err = test("slow").Call(within(t, time.Hour), over(nc), question{})
	wantCode(t, err, wire.Unavailable)
}

// TestCallWhileBusy: one request more than there is room for is refused at once, and the room is given back.
func TestCallWhileBusy(t *testing.T) {
	nc := testx.NatsServer(t).Connect()
	const room = 3
	running, release := make(chan struct{}, room), make(chan struct{})
	serve(t, nc, room,
		rpc.Handler{Subject: "svc.test.slow", Answer: func(context.Context, []byte) (any, error) { running <- struct{}{}; <-release; return answer{}, nil }},
		double.Handle(twice),
	)
	var wg sync.WaitGroup
	var failed atomic.Int32
	ctx := within(t, 20*time.Second)
	for range room {
		wg.Go(func() {
			if _, err := test("slow").Call(ctx, over(nc), question{}); err != nil {
				failed.Add(1)
			}
		})
	}
	for range room {
		<-running
	}
	_, err := test("double").Call(ctx, over(nc), question{1})
	wantCode(t, err, wire.Unavailable)
	close(release)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of the first %d failed", failed.Load(), room)
	}
	testx.Eventually(t, "there is room again", 5*time.Second, func() bool {
		_, err := test("double").Call(ctx, over(nc), question{1})
		return err == nil
	})
}

// TestCallReplicas: two processes share the work, and when one stops the other has it all. No request is lost.
func TestCallReplicas(t *testing.T) {
	srv := testx.NatsServer(t)
	var served [2]atomic.Int32
	var services [2]*rpc.Service
	for i := range services {
		services[i] = serve(t, srv.Connect(), 64,
			rpc.Handler{Subject: "svc.test.count", Answer: func(context.Context, []byte) (any, error) { served[i].Add(1); return answer{}, nil }},
		)
	}
	nc := srv.Connect()
	ctx := within(t, 60*time.Second)
	ask := func(n int) {
		t.Helper()
		for range n {
			if _, err := test("count").Call(ctx, over(nc), question{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(200)
	a, b := served[0].Load(), served[1].Load()
	if a == 0 || b == 0 || a+b != 200 {
		t.Errorf("one served %d, the other %d", a, b)
	}
	services[0].Stop(ctx)
	ask(50)
	if served[0].Load() != a || served[1].Load() != b+50 {
		t.Errorf("after the stop one served %d, the other %d", served[0].Load()-a, served[1].Load()-b)
	}
	// The micro framework's discovery finds those that run.
	msg, err := nc.Request("$SRV.INFO.test", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info micro.Info
	if err := json.Unmarshal(msg.Data, &info); err != nil || len(info.Endpoints) != 1 || info.Endpoints[0].Subject != "svc.test.count" {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestStop: what runs is finished; what does not finish in time is cut.
func TestStop(t *testing.T) {
	srv := testx.NatsServer(t)
	caller := srv.Connect()
	running, release := make(chan struct{}), make(chan struct{})
	s := serve(t, srv.Connect(), 4,
		rpc.Handler{Subject: "svc.test.slow", Answer: func(context.Context, []byte) (any, error) { running <- struct{}{}; <-release; return answer{5}, nil }},
	)
	type result struct {
		a   answer
		err error
	}
	results, stopped := make(chan result, 1), make(chan struct{})
	ctx := within(t, 30*time.Second)
	call := func(subject string) {
		a, err := test(subject).Call(ctx, over(caller), question{})
		results <- result{a, err}
	}
	go call("slow")
	<-running
	go func() { s.Stop(ctx); close(stopped) }()
	select {
	case <-stopped:
		t.Error("stopped while a request was running")
	default:
	}
	close(release)
	<-stopped
	if r := <-results; r.err != nil || r.a.N != 5 {
		t.Errorf("the running request got %+v", r)
	}
	s.Stop(ctx) // safe to repeat

	cut := serve(t, srv.Connect(), 4,
		rpc.Handler{Subject: "svc.test.stuck", Answer: func(ctx context.Context, _ []byte) (any, error) {
			running <- struct{}{}
			<-ctx.Done()
			return nil, wire.E(wire.Unavailable, "cut")
		}},
	)
	go call("stuck")
	<-running
	short, cancel := context.WithCancel(ctx)
	cancel()
	cut.Stop(short)
	if r := <-results; r.err == nil {
		t.Errorf("the cut request got %+v", r)
	}
}

// TestStopWhileAsked stops a service under load again and again, for the race detector: every request
// has an answer or a named error.
func TestStopWhileAsked(t *testing.T) {
	srv := testx.NatsServer(t)
	nc := srv.Connect()
	for range 10 {
		s := serve(t, srv.Connect(), 8, double.Handle(twice))
		ctx := within(t, 20*time.Second)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 50 {
					got, err := test("double").Call(ctx, over(nc), question{i})
					var e *wire.Error
					if err == nil && got.N != 2*i || err != nil && (!errors.As(err, &e) || e.Code != wire.Unavailable) {
						t.Errorf("%+v, %v", got, err)
					}
				}
			})
		}
		s.Stop(ctx)
		wg.Wait()
	}
}

// TestServeAgain: handlers answer again after NATS was away, without anything being done.
func TestServeAgain(t *testing.T) {
	srv := testx.NatsServer(t)
	connect := func(name string) *nats.Conn {
		nc, err := natsconn.Connect(natsconn.Config{URL: srv.ClientURL()}, name, testx.Quiet())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	serve(t, connect("service"), 4, double.Handle(twice))
	nc := connect("caller")
	if _, err := test("double").Call(within(t, 5*time.Second), over(nc), question{1}); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	testx.Eventually(t, "the caller notices", 10*time.Second, func() bool { return !nc.IsConnected() })
	// Not kept for later: a caller that was told "unavailable" must not be served after all.
	_, err := test("double").Call(within(t, time.Hour), over(nc), question{1})
	wantCode(t, err, wire.Unavailable)
	srv.Restart()
	testx.Eventually(t, "requests are answered again", 20*time.Second, func() bool {
		_, err := test("double").Call(within(t, time.Second), over(nc), question{1})
		return err == nil
	})
}

// TestCallConnectsWithoutServer: a service may start before NATS does.
func TestCallConnectsWithoutServer(t *testing.T) {
	srv := testx.NatsServer(t)
	url := srv.ClientURL()
	srv.Stop()
	nc, err := natsconn.Connect(natsconn.Config{URL: url}, "early", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	serve(t, nc, 4, double.Handle(twice))
	_, err = test("double").Call(within(t, time.Second), over(nc), question{1})
	wantCode(t, err, wire.Unavailable)
	srv.Restart()
	testx.Eventually(t, "the early service serves", 20*time.Second, func() bool {
		_, err := test("double").Call(within(t, time.Second), over(nc), question{1})
		return err == nil
	})
}

func TestCallInternalErrorsAreLogged(t *testing.T) {
	nc := testx.NatsServer(t).Connect()
	var mu sync.Mutex
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &logged}, nil))
	s, err := rpc.Serve(nc, "test", "1.0.0", 4, log,
		rpc.Handler{Subject: "svc.test.inside", Answer: func(context.Context, []byte) (any, error) { return nil, errors.New("dial 10.1.2.3") }},
		rpc.Handler{Subject: "svc.test.no", Answer: func(context.Context, []byte) (any, error) { return nil, wire.E(wire.Forbidden, "no secret") }},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	for _, subject := range []string{"inside", "no"} {
		if _, err := loose(subject).Call(within(t, 5*time.Second), over(nc), map[string]string{"password": "hunter2"}); err == nil {
			t.Error(subject)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if s := logged.String(); !strings.Contains(s, "dial 10.1.2.3") || !strings.Contains(s, "svc.test.inside") || strings.Contains(s, "no secret") || strings.Contains(s, "hunter2") {
		t.Errorf("logged: %s", s)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}
