package allinone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
)

// embedded is the NATS server of this process. A stream that met one error of its disk takes no writes until the server starts again
// (nats-server since 2.14), so this starts it again: in place, as a server of its own would be, and the services connect anew.
type embedded struct {
	start    func() (*server.Server, error)
	room     func() error               // why it is no use to start again now
	refuses  func(*server.Server) error // why it stores nothing; may hang
	patience time.Duration              // for that answer
	log      *slog.Logger
	restarts prometheus.Counter

	mu  sync.Mutex
	s   *server.Server // nil between two
	bad error          // why the last look found that it refuses
}

const (
	watchEvery = 500 * time.Millisecond
	// A start takes a moment; one that did not help is not repeated at once, and often enough to heal within seconds.
	minRestart, maxRestart = time.Second, 8 * time.Second
	// lookTime is more than any look takes on a busy machine; a disk that takes longer to write is a disk that does not.
	lookTime = 10 * time.Second
	// looks fail one after the other by chance only on a machine that does nothing else.
	looks = 100
	// stopTime bounds the end of a server that may wait for a broken disk.
	stopTime = 30 * time.Second
)

// newEmbedded starts it. Between its starts, room says whether one makes sense.
func newEmbedded(start func() (*server.Server, error), room func() error, log *slog.Logger, reg prometheus.Registerer) (*embedded, error) {
	e := &embedded{start: start, room: room, refuses: refuses, patience: lookTime, log: log, restarts: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "parley_serve_nats_restarts_total", Help: "Starts of the embedded NATS because its store refused to write.",
	})}
	reg.MustRegister(e.restarts, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_serve_nats_refuses", Help: "1 while the store of the embedded NATS refuses to write.",
	}, func() float64 {
		if e.Ready() != nil {
			return 1
		}
		return 0
	}))
	var err error
	e.s, err = start()
	return e, err
}

// InProcessConn connects to the server that runs now; it makes this a nats.InProcessConnProvider.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	s := e.s
	e.mu.Unlock()
	if s == nil {
		return nil, errors.New("the embedded NATS is starting again")
	}
	return s.InProcessConn()
}

// Ready is nil unless the store refused to write when last looked at.
func (e *embedded) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bad
}

// look asks the server for the outcome of its last writes, stream by stream. A server that keeps the answer is waiting for its disk, and
// meanwhile nobody who asks for Ready or for a connection may wait for it.
func (e *embedded) look() error {
	e.mu.Lock()
	s, bad := e.s, e.bad
	e.mu.Unlock()
	if s == nil {
		return bad
	}
	answer := make(chan error, 1)
	go func() { answer <- e.refuses(s) }()
	select {
	case bad = <-answer:
	case <-time.After(e.patience):
		bad = fmt.Errorf("the embedded NATS did not say within %s whether it stores", e.patience)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bad = bad
	return bad
}

func refuses(s *server.Server) error {
	return refusal(func() *server.HealthStatus { return s.Healthz(&server.HealthzOptions{Details: true}) })
}

// refusal asks until it is told something about the store: a look that a busy machine kept from seeing within a millisecond that the server has
// started, as it has, tells nothing.
func refusal(look func() *server.HealthStatus) error {
	var h *server.HealthStatus
	for range looks {
		h = look()
		if len(h.Errors) == 0 {
			return nil
		}
		if h.Errors[0].Type != server.HealthzErrorConn {
			break
		}
	}
	return fmt.Errorf("the embedded NATS refuses to store: %s", h.Errors[0].Error)
}

// Run watches it until ctx ends. An error means that only a new process can help.
func (e *embedded) Run(ctx context.Context) error {
	wait, tried := minRestart, time.Time{}
	for {
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return nil
		}
		err := e.look()
		switch {
		case err == nil:
			if time.Since(tried) > time.Minute {
				wait = minRestart
			}
		case e.room() != nil || time.Since(tried) < wait:
		default:
			if !tried.IsZero() {
				wait = min(2*wait, maxRestart)
			}
			if err := e.restart(err); err != nil {
				return err
			}
			tried = time.Now()
		}
	}
}

// restart ends the server, if there is one, and starts the next. That one may not start yet: then it is tried again later.
func (e *embedded) restart(why error) error {
	e.log.Error("the embedded NATS is started again", "why", why)
	e.restarts.Inc()
	if err := e.stop(); err != nil {
		return err
	}
	s, err := e.start()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.bad = err
		e.log.Error("the embedded NATS does not start", "error", err)
		return nil
	}
	e.s, e.bad = s, nil
	return nil
}

// stop ends the server that runs, if one does.
func (e *embedded) stop() error {
	e.mu.Lock()
	s := e.s
	e.s = nil
	e.mu.Unlock()
	if s == nil {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		stopNATS(s)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(stopTime):
		return fmt.Errorf("the embedded NATS has not ended within %s", stopTime)
	}
}
