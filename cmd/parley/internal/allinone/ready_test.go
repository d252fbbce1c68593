package allinone

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"parley.example/pkg/config"
	"parley.example/pkg/obs"
	"parley.example/pkg/testx"
)

// TestReadyzPublicCoversAllParts: the gateway of parley serve can do its work, but not the process without its logins.
func TestReadyzPublicCoversAllParts(t *testing.T) {
	var cfg Config
	args := []string{"--data", t.TempDir(), "--http", "127.0.0.1:0", "--log-level", "error"}
	if err := config.Load(&cfg, args, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	process := obs.NewRegistry()
	space := newDisk(cfg.Data, 0, testx.Quiet(), process)
	ns, err := newEmbedded(func() (*server.Server, error) { return startNATS(&cfg, testx.Quiet()) }, space.Storage, testx.Quiet(), process)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.stop() })
	rs, err := startRedis(testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rs.Close)
	cfg.Presence.RedisURL = rs.url
	p, err := newParts(&cfg, process, ns, space)
	if err != nil {
		t.Fatal(err)
	}
	run := func(f func(context.Context) error) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = f(ctx) }()
		stop = func() { cancel(); <-done }
		t.Cleanup(stop)
		return stop
	}
	for _, f := range []func(context.Context) error{p.presence.Run, p.history.Run, p.admin.Run, p.gateway.Run} {
		run(f)
	}
	stopAuth := run(p.auth.Run)
	status := func() int {
		r, err := http.Get("http://" + p.gateway.Addr() + "/readyz")
		if err != nil {
			return 0
		}
		_ = r.Body.Close()
		return r.StatusCode
	}
	testx.Eventually(t, "all parts are ready", time.Minute, func() bool { return status() == http.StatusOK })
	stopAuth()
	if err := p.gateway.Ready(); err != nil {
		t.Fatalf("the gateway itself: %v", err)
	}
	if got := status(); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz without auth says %d", got)
	}
}
