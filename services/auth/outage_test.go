package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/testx"
	"parley.example/services/auth"
)

func TestOutageStartsWithoutSQLAndNATS(t *testing.T) {
	pg := testx.PostgresServer(t)
	url := pg.Database(t)
	pg.Stop()
	n := testx.NatsServer(t)
	nc := n.ClientURL()
	r := launch(t, n, url, func(c *auth.Config) { c.NATS.URL = nc })
	if r.svc.Ready() == nil {
		t.Fatal("ready without SQL")
	}
	n.Stop()
	testx.Eventually(t, "auth says what it misses", 10*time.Second, func() bool {
		err := r.svc.Ready()
		return err != nil && strings.Contains(err.Error(), "NATS")
	})
	pg.Start(t)
	n.Restart()
	testx.Eventually(t, "auth is ready", 30*time.Second, func() bool { return r.svc.Ready() == nil })
	testx.Eventually(t, "the client is back", 10*time.Second, r.nc.IsConnected)
	r.register("Avi")
	r.verify(r.login("Avi").AccessToken)
}

// TestOutageSQLThatTakesNoWrites: a server that became read-only answers everything but what a login needs.
func TestOutageSQLThatTakesNoWrites(t *testing.T) {
	pg := testx.PostgresServer(t)
	url := pg.Database(t)
	r := start(t, url)
	r.register("Avi")
	pg.ReadOnly(t, url, true)
	testx.Eventually(t, "auth is not ready", 30*time.Second, func() bool {
		err := r.svc.Ready()
		return err != nil && strings.Contains(err.Error(), "read-only") && r.metric("parley_auth_sql_refuses", "") == 1
	})
	pg.ReadOnly(t, url, false)
	testx.Eventually(t, "auth is ready", 30*time.Second, func() bool { return r.svc.Ready() == nil && r.metric("parley_auth_sql_refuses", "") == 0 })
	r.login("Avi")
}

func TestOutageSQLGoesAndComes(t *testing.T) {
	pg := testx.PostgresServer(t)
	r := start(t, pg.Database(t))
	r.register("Avi", "Lisa")
	tok := r.login("Avi")
	pg.Stop()
	for _, q := range []struct {
		subj string
		req  any
	}{
		{api.AuthRegister.Subject, api.Credentials{Username: "Era", Password: "long enough"}},
		{api.AuthLogin.Subject, api.Credentials{Username: "Avi", Password: "password of Avi"}},
		{api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: tok.RefreshToken}},
		{api.AuthLogout.Subject, api.LogoutRequest{Username: "Avi", SID: "x"}},
		{api.AuthContacts.Subject, api.ContactsRequest{Username: "Avi"}},
		{api.AuthResolve.Subject, api.ResolveRequest{Names: []string{"avi"}}},
		{api.AuthRelations.Subject, api.RelationsRequest{Username: "Avi"}},
		{api.AuthDirectory.Subject, api.Empty{}},
		{api.AuthPutContact.Subject, api.PairRequest{Username: "Avi", Peer: "Lisa"}},
		{api.AuthPutBlock.Subject, api.PairRequest{Username: "Avi", Peer: "Lisa"}},
		{api.AuthDeleteBlock.Subject, api.PairRequest{Username: "Avi", Peer: "Lisa"}},
	} {
		r.refused(wire.Unavailable, q.subj, q.req)
	}
	testx.Eventually(t, "auth is not ready", 10*time.Second, func() bool { return r.svc.Ready() != nil })
	pg.Start(t)
	testx.Eventually(t, "auth is ready again", 20*time.Second, func() bool { return r.svc.Ready() == nil })
	// The refresh token was not used up by the try that failed.
	ask(r, api.AuthRefresh, api.RefreshRequest{RefreshToken: tok.RefreshToken})
	r.login("Avi")
}

// JetStream that lost everything gets the key again, and a logout that could not be told says so.
func TestOutageNATSLosesTheBuckets(t *testing.T) {
	r := start(t, "sqlite:"+filepath.Join(t.TempDir(), "auth.db"))
	r.register("Avi")
	c := r.verify(r.login("Avi").AccessToken)
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, b := range []string{api.KeysBucket, api.RevokedBucket} {
		if err := js.DeleteKeyValue(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	r.refused(wire.Unavailable, api.AuthLogout.Subject, api.LogoutRequest{Username: "Avi", SID: c.SID})
	r.n.Stop()
	r.n.Restart()
	testx.Eventually(t, "the buckets are back", 20*time.Second, func() bool {
		_, err := js.KeyValue(ctx, api.RevokedBucket)
		return err == nil
	})
	// The second try is without the login in SQL, so its entry must live as long as any token.
	ask(r, api.AuthLogout, api.LogoutRequest{Username: "Avi", SID: c.SID})
	if !r.revoked("sid." + c.SID) {
		t.Fatal("not revoked")
	}
	r.verify(r.login("Avi").AccessToken)
}

func TestRevocationsTTLNeverShrinks(t *testing.T) {
	n := testx.NatsServer(t)
	long := launch(t, n, "sqlite:"+filepath.Join(t.TempDir(), "a.db"), func(c *auth.Config) { c.LegacyTTL = 2000 * time.Hour })
	testx.Eventually(t, "ready", 20*time.Second, func() bool { return long.svc.Ready() == nil })
	short := launch(t, n, "sqlite:"+filepath.Join(t.TempDir(), "b.db"))
	testx.Eventually(t, "ready", 20*time.Second, func() bool { return short.svc.Ready() == nil })
	st, err := short.bucket(api.RevokedBucket).Status(context.Background())
	if err != nil || st.TTL() < 2000*time.Hour {
		t.Fatalf("TTL %v, %v", st.TTL(), err)
	}
}

func TestConfigMistakes(t *testing.T) {
	cfg := auth.Config{Mode: "nobody", Replicas: 2, TokenKey: "secret-text"}
	cfg.SQL.URL = "sqlite:x"
	_, err := auth.New(cfg, auth.Deps{Log: testx.Quiet(), Registry: prometheus.NewRegistry()})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"directory-mode", "nats-replicas", "token-key", "access-ttl", "refresh-ttl", "sql-conns", "login-tries-account", "log-level"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not among the mistakes: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret-text") {
		t.Error("the secret is in the message")
	}
}

func TestAdminPort(t *testing.T) {
	r := start(t, "sqlite:"+filepath.Join(t.TempDir(), "auth.db"))
	get := func(path string) int {
		resp, err := http.Get("http://" + r.svc.AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, p := range []string{"/healthz", "/readyz", "/metrics"} {
		if code := get(p); code != http.StatusOK {
			t.Errorf("%s: %d", p, code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	st, err := os.Stat(r.cfg.TokenKeyPath)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the key file: %v, %v", st, err)
	}
}

func TestOutageStopsAtOnceWhileItWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var cfg auth.Config
	if err := config.Load(&cfg, nil, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	cfg.NATS.URL = fmt.Sprintf("nats://127.0.0.1:%d", testx.FreePort(t))
	cfg.SQL.URL = "postgres://nobody@/x?host=" + t.TempDir()
	cfg.TokenKeyPath = filepath.Join(t.TempDir(), "key")
	s, err := auth.New(cfg, auth.Deps{Log: testx.Quiet(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
}
