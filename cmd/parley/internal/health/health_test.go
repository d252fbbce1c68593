package health

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
)

// ask runs the command with PARLEY_ADMIN, if that is not empty.
func ask(t *testing.T, admin string, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	env := func(name string) (string, bool) { return admin, name == "PARLEY_ADMIN" && admin != "" }
	err := Main(t.Context(), args, env, &out)
	return out.String(), err
}

// process answers as one of Parley that cannot work because of why; it gives its port.
func process(t *testing.T, why error) (port string, s *httptest.Server) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", obs.Readyz(func() error { return why }))
	mux.HandleFunc("GET /healthz", obs.Healthz)
	s = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://127.0.0.1:"), s
}

func TestHealthIsWhatTheProcessSays(t *testing.T) {
	t.Parallel()
	port, well := process(t, nil)
	for _, admin := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port, "127.0.0.1:" + port} {
		if out, err := ask(t, admin); out != "ready\n" || err != nil {
			t.Errorf("ready, on %s: %q, %v", admin, out, err)
		}
	}
	ill, s := process(t, errors.New("no connection to NATS"))
	out, err := ask(t, "", "--admin", ":"+ill)
	if out != "" || err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: not ready: no connection to NATS") {
		t.Errorf("not ready: %q, %v", out, err)
	}
	if out, err := ask(t, "", s.URL+"/healthz"); out != "ok\n" || err != nil {
		t.Errorf("it runs: %q, %v", out, err)
	}
	well.Close()
	if _, err := ask(t, ":"+port); err == nil || status(err) != lifecycle.StatusFailed {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestHealthDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	defer s.Close()
	defer close(end)
	began := time.Now()
	_, err := ask(t, "", s.URL, "--timeout", "50ms")
	if !errors.Is(err, context.DeadlineExceeded) || status(err) != lifecycle.StatusFailed {
		t.Errorf("no answer: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestHealthHelpAndMistakes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"help"}, {"http://127.0.0.1:1", "-h"}} {
		out, err := ask(t, "", args...)
		for _, want := range []string{"parley health [URL]", "Exit status", "--timeout", "PARLEY_ADMIN"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%q says nothing of %q: %v", args, want, err)
			}
		}
	}
	for _, args := range [][]string{
		{"--timeout", "0s"}, {"--unknown"}, {"no-url"}, {"ftp://127.0.0.1/"}, {"http://"}, {"http://127.0.0.1:1", "too", "many"},
		{"--admin", "9090"}, {"--admin", "127.0.0.1:0"},
	} {
		if out, err := ask(t, "", args...); out != "" || err == nil || status(err) != lifecycle.StatusUsage {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
}

// status is the exit status of a program that ends with err.
func status(err error) int {
	var se *lifecycle.StatusError
	if errors.As(err, &se) {
		return se.Status
	}
	return lifecycle.StatusFailed
}
