// Package obs is what operators look at: logs, metrics, health and profiles.
package obs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley.example/pkg/accept"
)

// Config of logs and of the private port.
type Config struct {
	LogLevel  string `cfg:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat string `cfg:"log-format" default:"text" help:"text or json"`
	Admin     string `cfg:"admin" default:"127.0.0.1:0" help:"private address for /metrics, /healthz, /readyz and /debug/pprof; empty for none"`
}

// Validate checks the two words.
func (c Config) Validate() error {
	var errs []error
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		errs = append(errs, fmt.Errorf("log-level: %q is none of debug, info, warn, error", c.LogLevel))
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs = append(errs, fmt.Errorf("log-format: %q is neither text nor json", c.LogFormat))
	}
	return errors.Join(errs...)
}

// Logger writes to standard error as c says.
func (c Config) Logger(service string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(c.LogLevel)) // checked by Validate; the zero level is info
	opts := &slog.HandlerOptions{Level: l}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, opts)
	if c.LogFormat == "json" {
		h = slog.NewJSONHandler(os.Stderr, opts)
	}
	return slog.New(h).With("service", service)
}

// NewRegistry has the metrics of the Go runtime and of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Ready reports why a service cannot do its work now, nil when it can.
type Ready func() error

// Admin is the private HTTP server of a service.
type Admin struct {
	ln  net.Listener
	srv *http.Server
}

// The private port's limits. They are small, and for an address smaller still: who asks often must not keep the kubelet and Prometheus out.
const (
	adminConnections = 128
	adminPerAddress  = 32
)

// Listen binds addr; nil for "". It serves what metrics gathers, and registers metrics of its own.
func Listen(addr string, log *slog.Logger, reg prometheus.Registerer, metrics prometheus.Gatherer, ready Ready) (*Admin, error) {
	if addr == "" {
		return nil, nil
	}
	ln, err := accept.Listen(addr, accept.Config{
		Name: "admin", Total: adminConnections, PerAddress: adminPerAddress,
		Refusal: []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
	}, log, reg)
	if err != nil {
		return nil, fmt.Errorf("listen for the admin port: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", Healthz)
	mux.HandleFunc("GET /readyz", Readyz(ready))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &Admin{ln, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}}, nil
}

// Healthz says that the process runs.
func Healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // the asker may be gone
}

// Readyz says whether the process can do its work, and why not.
func Readyz(ready Ready) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := ready(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintln(w, "not ready:", err) // the asker may be gone
			return
		}
		_, _ = w.Write([]byte("ready\n")) // the asker may be gone
	}
}

// Addr is where it listens, "" for nil.
func (a *Admin) Addr() string {
	if a == nil {
		return ""
	}
	return a.ln.Addr().String()
}

// Close frees the address of an Admin that is not to run.
func (a *Admin) Close() error {
	if a == nil {
		return nil
	}
	return a.ln.Close()
}

// Run serves until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	if a == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = a.srv.Close() })
	defer stop()
	if err := a.srv.Serve(a.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin port: %w", err)
	}
	return nil
}
