package presence

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

func load(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	var cfg Config
	err := config.Load(&cfg, args, func(string) (string, bool) { return "", false })
	return cfg, err
}

func start(t *testing.T, natsURL, redisAddr string) *Service {
	t.Helper()
	cfg, err := load(t, "--nats-url", natsURL, "--redis-url", "redis://"+redisAddr, "--presence-settle", "0s")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, Deps{Log: testx.Quiet(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

func ask[Req, Resp any](t *testing.T, nc *nats.Conn, e rpc.Endpoint[Req, Resp], req Req) (Resp, error) {
	t.Helper()
	return e.Call(t.Context(), rpc.Caller{Conn: nc, Timeout: 5 * time.Second}, req)
}

func code(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestSettingsMistakesAreNamed(t *testing.T) {
	_, err := load(t, "--redis-url", "http://secret@x", "--presence-lease", "2h", "--presence-grace", "-1s", "--presence-tick", "0s", "--log-level", "loud")
	for _, want := range []string{"redis-url", "presence-lease", "presence-grace", "presence-tick", "log-level"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a secret is shown: %v", err)
	}
	for _, args := range [][]string{
		{"--redis-sentinel-master", "main"}, {"--redis-addrs", "host"}, {"--redis-addrs", "a:1,b:1", "--redis-url", "redis://x/3"},
	} {
		if _, err := load(t, args...); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
	if cfg, err := load(t, "--redis-addrs", "a:1,b:2", "--redis-password", "pw"); err != nil || len(cfg.RedisAddrs) != 2 {
		t.Errorf("a cluster: %v", err)
	}
}

func TestOutageWaitsForNatsAndRedis(t *testing.T) {
	n, r := testx.NatsServer(t), testx.RedisServer(t)
	n.Stop()
	r.Stop()
	s := start(t, n.ClientURL(), r.Addr)
	if s.Ready() == nil {
		t.Fatal("ready without NATS and Redis")
	}
	n.Restart()
	nc := n.Connect()
	testx.Eventually(t, "the request reaches the service", 20*time.Second, func() bool {
		_, err := ask(t, nc, api.PresenceSnapshot, api.SnapshotRequest{})
		if err == nil {
			t.Fatal("an answer without Redis")
		}
		return strings.Contains(err.Error(), "presence")
	})
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "Redis") {
		t.Fatalf("ready without Redis: %v", err)
	}
	r.Start()
	testx.Eventually(t, "the service is ready", 20*time.Second, func() bool { return s.Ready() == nil })
	if _, err := ask(t, nc, api.PresenceSnapshot, api.SnapshotRequest{}); err != nil {
		t.Fatal(err)
	}
}

// A Redis that answers and takes no writes.
func TestReadyOnlyWhileRedisTakesWrites(t *testing.T) {
	n, r, master := testx.NatsServer(t), testx.RedisServer(t), testx.RedisServer(t)
	s := start(t, n.ClientURL(), r.Addr)
	rdb := redis.NewClient(&redis.Options{Addr: r.Addr})
	t.Cleanup(func() { _ = rdb.Close() })
	host, port, _ := strings.Cut(master.Addr, ":")
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + s.AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	idle := func() float64 { // what the alert looks at
		t.Helper()
		_, body := get("/metrics")
		_, after, _ := strings.Cut(body, "\nparley_presence_reaper_idle_seconds ")
		line, _, _ := strings.Cut(after, "\n")
		v, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	well := func() bool { status, _ := get("/readyz"); return status == http.StatusOK && idle() < 4 }
	for _, c := range []struct {
		name, says string
		refuse     []any
		heal       []any
	}{
		{"out of memory", "OOM", []any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}},
		{"a replica", "READONLY", []any{"REPLICAOF", host, port}, []any{"REPLICAOF", "NO", "ONE"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			testx.Eventually(t, "the service is ready", 30*time.Second, well)
			if err := rdb.Do(t.Context(), c.refuse...).Err(); err != nil {
				t.Fatal(err)
			}
			testx.Eventually(t, "the service says why it is not ready", 30*time.Second, func() bool {
				status, body := get("/readyz")
				return status == http.StatusServiceUnavailable && strings.Contains(body, c.says) && idle() > 4
			})
			if err := rdb.Ping(t.Context()).Err(); err != nil {
				t.Errorf("Redis does not answer: %v", err)
			}
			if err := rdb.Do(t.Context(), c.heal...).Err(); err != nil {
				t.Fatal(err)
			}
			testx.Eventually(t, "the service is ready again", 30*time.Second, well)
		})
	}
}

func TestRequestsThatAreBadAreRefused(t *testing.T) {
	n := testx.NatsServer(t)
	start(t, n.ClientURL(), testx.RedisServer(t).Addr)
	nc := n.Connect()
	testx.Eventually(t, "the service answers", 20*time.Second, func() bool {
		_, err := ask(t, nc, api.PresenceLastSeen, api.LastSeenRequest{Users: []string{"avi"}})
		return err == nil
	})
	one := []api.SessionChange{{ID: 1, User: "avi"}}
	for name, c := range map[string]struct {
		subject string
		body    any
	}{
		"not an object":       {api.PresenceSessions.Subject, []int{1}},
		"no gateway":          {api.PresenceSessions.Subject, api.SessionsRequest{Changes: one}},
		"a long gateway":      {api.PresenceHeartbeat.Subject, api.HeartbeatRequest{Gateway: strings.Repeat("g", 101)}},
		"no id":               {api.PresenceSessions.Subject, api.SessionsRequest{Gateway: "g", Changes: []api.SessionChange{{User: "avi"}}}},
		"no user":             {api.PresenceSessions.Subject, api.SessionsRequest{Gateway: "g", Changes: []api.SessionChange{{ID: 1}}}},
		"too many sessions":   {api.PresenceSessions.Subject, api.SessionsRequest{Gateway: "g", Changes: make([]api.SessionChange, api.PresenceSessionsMax+1)}},
		"no such shard":       {api.PresenceSnapshot.Subject, api.SnapshotRequest{Shard: 16}},
		"a negative shard":    {api.PresenceResync.Subject, api.ResyncRequest{Gateway: "g", Shard: -1}},
		"another shard":       {api.PresenceResync.Subject, api.ResyncRequest{Gateway: "g", Shard: (api.PresenceShard("avi") + 1) % 16, Sessions: one}},
		"too many in a shard": {api.PresenceResync.Subject, api.ResyncRequest{Gateway: "g", Sessions: make([]api.SessionChange, api.PresenceResyncMax+1)}},
		"too many users":      {api.PresenceLastSeen.Subject, api.LastSeenRequest{Users: make([]string, api.PresenceLastSeenMax+1)}},
	} {
		if _, err := ask(t, nc, rpc.Endpoint[any, api.Empty]{Subject: c.subject}, c.body); code(err) != wire.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChangesAreAnnouncedOnce(t *testing.T) {
	n := testx.NatsServer(t)
	addr := testx.RedisServer(t).Addr
	start(t, n.ClientURL(), addr)
	start(t, n.ClientURL(), addr)
	nc := n.Connect()
	events, err := nc.SubscribeSync("presence.*")
	if err != nil {
		t.Fatal(err)
	}
	change := func(gone bool) {
		req := api.SessionsRequest{Gateway: "g", Changes: []api.SessionChange{{ID: 7, User: "avi", Gone: gone, Deliberate: gone}}}
		testx.Eventually(t, "the change is taken", 20*time.Second, func() bool {
			_, err := ask(t, nc, api.PresenceSessions, req)
			return err == nil
		})
		_, _ = ask(t, nc, api.PresenceSessions, req) // doubled
	}
	change(false)
	change(true)
	var got []api.PresenceChange
	for len(got) < 2 {
		m, err := events.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		var ch api.Changes
		if err := json.Unmarshal(m.Data, &ch); err != nil {
			t.Fatal(err)
		}
		if len(ch.List) > 0 && ch.From != int64(len(got)) {
			t.Fatalf("from %d after %d", ch.From, len(got))
		}
		got = append(got, ch.List...)
	}
	if got[0].User != "avi" || !got[0].Online || got[1].Online || got[1].LastSeen == 0 {
		t.Fatalf("announced: %+v", got)
	}
	for {
		m, err := events.NextMsg(300 * time.Millisecond)
		if err != nil {
			return // nothing more, as it should be
		}
		var ch api.Changes
		if json.Unmarshal(m.Data, &ch) != nil || len(ch.List) > 0 { // shards that began are no changes
			t.Fatalf("announced once more: %s", m.Data)
		}
	}
}
