package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/auth"
)

func TestMain(m *testing.M) { testx.Main(m) }

// onBoth runs a test on both stores.
func onBoth(t *testing.T, f func(t *testing.T, sqlURL string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "auth.db")) })
	t.Run("postgres", func(t *testing.T) { f(t, testx.Postgres(t)) })
}

// rig is a running service and a client of it.
type rig struct {
	t   *testing.T
	n   *testx.Nats
	nc  *nats.Conn
	svc *auth.Service
	reg *prometheus.Registry
	cfg auth.Config
}

// start runs a service and waits until it is ready.
func start(t *testing.T, sqlURL string, change ...func(*auth.Config)) *rig {
	t.Helper()
	n := testx.NatsServer(t)
	r := launch(t, n, sqlURL, change...)
	testx.Eventually(t, "auth is ready", 20*time.Second, func() bool { return r.svc.Ready() == nil })
	return r
}

// launch runs a service on n and does not wait.
func launch(t *testing.T, n *testx.Nats, sqlURL string, change ...func(*auth.Config)) *rig {
	t.Helper()
	r := &rig{t: t, n: n, nc: n.Connect(), reg: prometheus.NewRegistry()}
	if err := config.Load(&r.cfg, nil, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	r.cfg.NATS.URL, r.cfg.SQL.URL = n.ClientURL(), sqlURL
	r.cfg.TokenKeyPath = filepath.Join(t.TempDir(), "keys", "token.key")
	for _, c := range change {
		c(&r.cfg)
	}
	var err error
	if r.svc, err = auth.New(r.cfg, auth.Deps{Log: testx.Quiet(), Registry: r.reg}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.svc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// ask makes a request that must succeed.
func ask[Req, Resp any](r *rig, e rpc.Endpoint[Req, Resp], req Req) Resp {
	r.t.Helper()
	resp, err := try(r, e, req)
	if err != nil {
		r.t.Fatalf("%s: %v", e.Subject, err)
	}
	return resp
}

func try[Req, Resp any](r *rig, e rpc.Endpoint[Req, Resp], req Req) (Resp, error) {
	return e.Call(context.Background(), rpc.Caller{Conn: r.nc, Timeout: 15 * time.Second}, req)
}

// refused makes a request, of any form, that must fail with this code.
func (r *rig) refused(code wire.Code, subj string, req any) *wire.Error {
	r.t.Helper()
	_, err := try(r, rpc.Endpoint[any, json.RawMessage]{Subject: subj}, req)
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code {
		r.t.Fatalf("%s answers %v, want %s", subj, err, code)
	}
	return e
}

func (r *rig) register(names ...string) {
	r.t.Helper()
	for _, n := range names {
		if u := ask(r, api.AuthRegister, api.Credentials{Username: n, Password: "password of " + n}); u.Username != n {
			r.t.Fatalf("registered %q as %q", n, u.Username)
		}
	}
}

func (r *rig) login(name string) api.Tokens {
	r.t.Helper()
	return ask(r, api.AuthLogin, api.Credentials{Username: name, Password: "password of " + name})
}

// events collects what the service announces from now on.
func (r *rig) events() <-chan api.DirectoryEvent {
	r.t.Helper()
	ch := make(chan api.DirectoryEvent, 100)
	if _, err := r.nc.Subscribe(subject.DirectoryEvents, func(m *nats.Msg) {
		var e api.DirectoryEvent
		if json.Unmarshal(m.Data, &e) == nil {
			ch <- e
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.nc.Flush(); err != nil {
		r.t.Fatal(err)
	}
	return ch
}

func next(t *testing.T, ch <-chan api.DirectoryEvent, want api.DirectoryEvent) {
	t.Helper()
	select {
	case e := <-ch:
		if e != want {
			t.Fatalf("event %+v, want %+v", e, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("no event, want %+v", want)
	}
}

// metric reads a counter; label is the value of its only label, "" for none.
func (r *rig) metric(name, label string) float64 {
	r.t.Helper()
	fams, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range fams {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	r.t.Fatalf("no metric %s{%s}", name, label)
	return 0
}

// admin is the administration of this replica.
func (r *rig) admin() *auth.Admin {
	r.t.Helper()
	a, err := r.svc.Admin(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}
