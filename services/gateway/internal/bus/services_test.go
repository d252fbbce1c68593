package bus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

func openBus(t *testing.T, url string) *Bus {
	t.Helper()
	b, err := Open(natsconn.Config{URL: url}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func serve(t *testing.T, url string, handlers ...rpc.Handler) {
	t.Helper()
	s, err := rpc.Serve(testx.Connect(t, url), "test", "1.0.0", 64, testx.Quiet(), handlers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
}

func wantCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestRequestsThatFail(t *testing.T) {
	srv := testx.NatsServer(t)
	b := openBus(t, srv.ClientURL())
	release := make(chan struct{})
	serve(t, srv.ClientURL(),
		api.AuthLogin.Handle(func(context.Context, api.Credentials) (api.Tokens, error) {
			return api.Tokens{}, &wire.Error{Code: wire.RateLimited, Message: "slower", RetryAfterMS: 1500}
		}),
		api.AuthLogout.Handle(func(context.Context, api.LogoutRequest) (api.Empty, error) { return api.Empty{}, errors.New("inside") }),
		api.AuthResolve.Handle(func(context.Context, api.ResolveRequest) (api.ResolveResponse, error) {
			<-release
			return api.ResolveResponse{}, nil
		}),
	)
	defer close(release)

	_, err := api.AuthLogin.Call(t.Context(), b.Services(10*time.Second), api.Credentials{})
	wantCode(t, err, wire.RateLimited)
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.RetryAfterMS != 1500 {
		t.Errorf("retry_after_ms is %d", e.RetryAfterMS)
	}
	_, err = api.AuthLogout.Call(t.Context(), b.Services(10*time.Second), api.LogoutRequest{})
	wantCode(t, err, wire.Internal)
	if strings.Contains(err.Error(), "inside") {
		t.Errorf("the error tells what is inside: %v", err)
	}
	// Nobody serves it: the answer comes at once, not with the timeout.
	_, err = api.HistoryPage.Call(t.Context(), b.Services(time.Hour), api.PageRequest{})
	wantCode(t, err, wire.Unavailable)
	// The shorter of the two waits counts.
	_, err = api.AuthResolve.Call(t.Context(), b.Services(50*time.Millisecond), api.ResolveRequest{})
	wantCode(t, err, wire.Unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = api.AuthResolve.Call(ctx, b.Services(time.Hour), api.ResolveRequest{})
	wantCode(t, err, wire.Unavailable)
	// A password may queue for longer than other requests wait.
	if _, err = api.AuthLogin.Call(t.Context(), b.Services(time.Nanosecond), api.Credentials{}); err != nil {
		wantCode(t, err, wire.RateLimited)
	}
	// NATS away: at once as well, and well again after it is back.
	srv.Stop()
	testx.Eventually(t, "the bus notices", 10*time.Second, func() bool { return !b.Connected() })
	_, err = api.AuthLogin.Call(t.Context(), b.Services(time.Hour), api.Credentials{})
	wantCode(t, err, wire.Unavailable)
	srv.Restart()
	testx.Eventually(t, "requests are answered again", 20*time.Second, func() bool {
		_, err := api.AuthLogin.Call(t.Context(), b.Services(time.Second), api.Credentials{})
		var e *wire.Error
		return errors.As(err, &e) && e.Code == wire.RateLimited
	})
}
