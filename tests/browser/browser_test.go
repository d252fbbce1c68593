// Package browser starts real deployments for the tests that are written in JavaScript: of the JavaScript SDK in Node, and of
// the web client in Chromium.
package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// node runs a file of tests with the addresses of a deployment.
func node(t *testing.T, url string, control http.Handler, args ...string) {
	t.Helper()
	if _, err := os.Stat("node_modules"); err != nil {
		t.Fatal("tests/browser/node_modules is missing: run make test-deps")
	}
	c := httptest.NewServer(control)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{"--test", "--test-reporter=spec", "--test-concurrency=1"}, args...)...)
	cmd.Env = append(os.Environ(), "PARLEY_URL="+url, "PARLEY_CONTROL="+c.URL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("node %s: %v\n%s", strings.Join(args, " "), err, out)
	} else {
		t.Logf("%s", out)
	}
}

// control lets a test kill and start what runs. It answers when that is done.
func control(kill, start func()) *http.ServeMux {
	mux := http.NewServeMux()
	for path, f := range map[string]func(){"POST /kill": kill, "POST /start": start} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			f()
			fmt.Fprintln(w, "done")
		})
	}
	return mux
}

// allInOne is `parley serve` at an address that stays the same.
type allInOne struct {
	t    *testing.T
	dir  string
	base string
	p    *harness.Process
}

func serve(t *testing.T) *allInOne {
	a := &allInOne{t: t, dir: t.TempDir()}
	a.start("127.0.0.1:0")
	return a
}

func (a *allInOne) start(addr string) {
	limits := map[string]string{"http-rate": "100000", "http-burst": "100000", "message-burst": "100000", "messages-per-minute": "600000", "login-tries-address": "1000000"}
	a.p = harness.Start(a.t, "parley serve", "parley", limits, "serve", "--demo", "--http", addr, "--data", a.dir)
	a.base = a.p.LogMatch(a.t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
}

func (a *allInOne) control() http.Handler {
	mux := control(func() { a.p.Kill() }, func() { a.start(strings.TrimPrefix(a.base, "http://")) })
	mux.HandleFunc("POST /erase/{user}", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.CommandContext(r.Context(), harness.Program(a.t, "parley"), "user", "erase", r.PathValue("user"), "--yes", "--data", a.dir).CombinedOutput()
		if err != nil {
			http.Error(w, fmt.Sprintf("%v\n%s", err, out), http.StatusInternalServerError)
		}
	})
	return mux
}

func TestSDK(t *testing.T) {
	a := serve(t)
	node(t, a.base, a.control(), "sdk.test.js", "readme.test.js", "refresh.test.js")
}

func TestSDKThreeGateways(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 3, Nats: 3})
	node(t, s.Balancer.URL, control(func() { s.KillGateway(1) }, func() { s.RestartGateway(1) }), "cluster.test.js")
}

func TestWeb(t *testing.T) {
	a := serve(t)
	node(t, a.base, a.control(), "web.test.js")
	node(t, a.base, a.control(), "look.test.js")
}

// TestWebAmongMany has more users than gateways tell everybody of.
func TestWebAmongMany(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 2, Accounts: 3000})
	users, open := map[string]*harness.User{}, map[string]*harness.WS{}
	for _, u := range s.Accounts {
		users[u.Name] = u
	}
	mux := http.NewServeMux() // its requests come one after the other
	mux.HandleFunc("POST /come/{user}", func(w http.ResponseWriter, r *http.Request) {
		ws, err := users[r.PathValue("user")].TryJoined(s.Gateways[1].URL)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		open[r.PathValue("user")] = ws
	})
	mux.HandleFunc("POST /leave/{user}", func(_ http.ResponseWriter, r *http.Request) {
		open[r.PathValue("user")].Say(wire.EvDisconnection, nil)
	})
	node(t, s.Gateways[0].URL, mux, "many.test.js")
}

// TestFiles needs no server.
func TestFiles(t *testing.T) {
	node(t, "http://127.0.0.1:1", http.NotFoundHandler(), "static.test.js", "rules.test.js")
}
