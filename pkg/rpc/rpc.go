// Package rpc is how the gateways and the services behind NATS ask each other: typed endpoints, JSON bodies, nats.go's micro framework.
package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"parley.example/client/wire"
)

// ErrUnavailable is what callers see when a service or its store does not answer.
var ErrUnavailable = wire.E(wire.Unavailable, "a service that this needs is away; try again later")

// Endpoint is one request of a service: where it goes, what it asks and what it answers, for both sides.
type Endpoint[Req, Resp any] struct {
	Subject string // svc.<service>.<method>
	// Patience is how long an answer is waited for at least; 0: as long as the Caller waits for any.
	Patience time.Duration
}

// Conn carries requests: a *nats.Conn, or a test's own.
type Conn interface {
	RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error)
}

// Caller asks over a connection.
type Caller struct {
	Conn    Conn
	Timeout time.Duration // for an answer
}

// Call asks, and waits until c's time or ctx has run out. Every failure is a *wire.Error: the service's own answer, or ErrUnavailable when none comes;
// but for requests and answers that are no JSON, which is a mistake of ours.
func (e Endpoint[Req, Resp]) Call(ctx context.Context, c Caller, req Req) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, max(c.Timeout, e.Patience))
	defer cancel()
	var resp Resp
	body, err := json.Marshal(req)
	if err != nil {
		return resp, fmt.Errorf("encode a request: %w", err)
	}
	msg, err := c.Conn.RequestWithContext(ctx, e.Subject, body)
	if err != nil {
		// Not connected, nobody listens, or too late: to the caller it is the same.
		return resp, ErrUnavailable
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		e := &wire.Error{Code: wire.Code(code), Message: msg.Header.Get(micro.ErrorHeader)}
		var full wire.Error
		if json.Unmarshal(msg.Data, &full) == nil && full.Code != "" {
			e = &full
		}
		return resp, e
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return resp, fmt.Errorf("decode the answer of %s: %w", e.Subject, err)
	}
	return resp, nil
}

// By is Call with a Caller that is always the same.
func (e Endpoint[Req, Resp]) By(c Caller) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (Resp, error) { return e.Call(ctx, c, req) }
}

// Handle is the service's side: f answers.
func (e Endpoint[Req, Resp]) Handle(f func(context.Context, Req) (Resp, error)) Handler {
	return Handler{e.Subject, func(ctx context.Context, body []byte) (any, error) {
		var req Req
		if err := json.Unmarshal(body, &req); err != nil {
			return nil, wire.E(wire.InvalidArgument, "the request could not be read")
		}
		return f(ctx, req)
	}}
}

// Handler answers the requests on a subject.
type Handler struct {
	Subject string
	Answer  func(ctx context.Context, body []byte) (any, error)
}

// Service is a set of request handlers that runs on one connection.
type Service struct {
	nc     *nats.Conn
	svc    micro.Service
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
}

// begin counts one request in, unless the service stops: a drained subscription still hands out what it had received.
func (s *Service) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.wg.Add(1)
	}
	return !s.stopped
}

// requestTimeout bounds one request's work; callers wait less.
const requestTimeout = 15 * time.Second

// Serve registers handlers as one micro service, load-balanced over all processes that serve the same name.
// At most concurrency requests run at a time in this process; one more is answered with unavailable at once, so
// that a caller can try elsewhere. It returns when the server has seen all subscriptions if connected.
func Serve(nc *nats.Conn, name, version string, concurrency int, log *slog.Logger, handlers ...Handler) (*Service, error) {
	svc, err := micro.AddService(nc, micro.Config{Name: name, Version: version, QueueGroup: name})
	if err != nil {
		return nil, fmt.Errorf("register the service %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{nc: nc, svc: svc, cancel: cancel}
	slots := make(chan struct{}, concurrency)
	for _, h := range handlers {
		subject := h.Subject
		ep := strings.ReplaceAll(strings.TrimPrefix(subject, "svc."), ".", "_")
		err := svc.AddEndpoint(ep, micro.HandlerFunc(func(req micro.Request) {
			// micro reads the request when this function returns, so the answer is sent past it.
			reply, body := req.Reply(), req.Data()
			select {
			case slots <- struct{}{}:
			default:
				respondError(nc, reply, wire.E(wire.Unavailable, "busy; try again"))
				return
			}
			if !s.begin() {
				<-slots
				respondError(nc, reply, wire.E(wire.Unavailable, "this process stops; try again"))
				return
			}
			go func() {
				defer s.wg.Done()
				defer func() { <-slots }()
				ctx, cancel := context.WithTimeout(ctx, requestTimeout)
				defer cancel()
				resp, err := h.Answer(ctx, body)
				if err != nil {
					var e *wire.Error
					if !errors.As(err, &e) {
						log.Error("request failed", "subject", subject, "error", err)
						e = wire.AsError(err)
					}
					respondError(nc, reply, e)
					return
				}
				if err := respond(nc, reply, resp); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
					log.Warn("answer failed", "subject", subject, "error", err)
				}
			}()
		}), micro.WithEndpointSubject(subject))
		if err != nil {
			cancel()
			_ = svc.Stop()
			return nil, fmt.Errorf("register %s: %w", subject, err)
		}
	}
	if nc.IsConnected() {
		_ = nc.FlushTimeout(2 * time.Second)
	}
	return s, nil
}

func respond(nc *nats.Conn, reply string, resp any) error {
	body, err := json.Marshal(resp)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	return nc.Publish(reply, body)
}

func respondError(nc *nats.Conn, reply string, e *wire.Error) {
	_ = nc.PublishMsg(errorMsg(reply, e)) // the asker is gone or times out
}

func errorMsg(reply string, e *wire.Error) *nats.Msg {
	msg := nats.NewMsg(reply)
	msg.Data, _ = json.Marshal(e) // three plain fields
	text := e.Message
	if text == "" {
		text = string(e.Code)
	}
	msg.Header.Set(micro.ErrorCodeHeader, string(e.Code))
	msg.Header.Set(micro.ErrorHeader, text)
	return msg
}

// Stop takes no more requests, waits for those that run until ctx ends, then cuts them.
func (s *Service) Stop(ctx context.Context) {
	_ = s.svc.Stop()
	if s.nc.IsConnected() {
		// Until the server knows, it sends requests here that another process could serve; they are served still.
		_ = s.nc.FlushTimeout(2 * time.Second)
	}
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.cancel()
	<-done
}
