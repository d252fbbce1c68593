package natsx

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
	"parley.example/pkg/api"
)

// Call sends req as JSON to subject and decodes the answer. Every failure is a *wire.Error: the service's own,
// or unavailable when none answers before ctx ends. ctx needs a deadline.
func Call[Resp any](ctx context.Context, nc *nats.Conn, subject string, req any) (Resp, error) {
	var resp Resp
	body, err := json.Marshal(req)
	if err != nil {
		return resp, fmt.Errorf("encode a request: %w", err)
	}
	msg, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		// Not connected, nobody listens, or too late: to the caller it is the same.
		return resp, api.ErrUnavailable
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
		return resp, fmt.Errorf("decode the answer of %s: %w", subject, err)
	}
	return resp, nil
}

// Handler answers one request.
type Handler func(ctx context.Context, body []byte) (any, error)

// Typed makes a Handler of a function with real types.
func Typed[Req, Resp any](f func(context.Context, Req) (Resp, error)) Handler {
	return func(ctx context.Context, body []byte) (any, error) {
		var req Req
		if err := json.Unmarshal(body, &req); err != nil {
			return nil, wire.E(wire.InvalidArgument, "the request could not be read")
		}
		return f(ctx, req)
	}
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

// Serve registers handlers (subject → handler) as one micro service, load-balanced over all processes that serve the same name.
// At most concurrency requests run at a time in this process; one more is answered with unavailable at once, so
// that a caller can try elsewhere. It returns when the server has seen all subscriptions if connected.
func Serve(nc *nats.Conn, name, version string, concurrency int, log *slog.Logger, handlers map[string]Handler) (*Service, error) {
	svc, err := micro.AddService(nc, micro.Config{Name: name, Version: version, QueueGroup: name})
	if err != nil {
		return nil, fmt.Errorf("register the service %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{nc: nc, svc: svc, cancel: cancel}
	slots := make(chan struct{}, concurrency)
	for subject, h := range handlers {
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
				resp, err := h(ctx, body)
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
	msg := nats.NewMsg(reply)
	msg.Data, _ = json.Marshal(e) // three plain fields
	text := e.Message
	if text == "" {
		text = string(e.Code)
	}
	msg.Header.Set(micro.ErrorCodeHeader, string(e.Code))
	msg.Header.Set(micro.ErrorHeader, text)
	_ = nc.PublishMsg(msg) // the asker is gone or times out
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
