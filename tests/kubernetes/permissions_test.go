//go:build kubernetes

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// login connects to NATS with a service's own password, as somebody would who has taken over one of its pods.
func (s *suite) login(t *testing.T, addr, user string) (nc *nats.Conn, refused func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	nc, err := nats.Connect("nats://"+addr, nats.UserInfo(user, s.secret(t, natsUsers, user+"-password")), nats.IgnoreDiscoveredServers(), nats.Timeout(10*time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, nats.ErrPermissionViolation) {
				n++
			}
		}))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc, func() int {
		must(t, nc.Flush())
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// permissions: with presence's password nobody reads a message, by any way there is; and no service can change another's streams.
func permissions(t *testing.T, s *suite) {
	addr, err := s.lab.Publish(s.ctx, "default/"+release+"-nats:client")
	must(t, err)
	_, err = nats.Connect("nats://"+addr, nats.Timeout(10*time.Second))
	if err == nil {
		t.Fatal("NATS lets in who has no password")
	}
	ann, bob := s.pair(t, "perm")

	tried := 0
	for _, user := range []string{"presence", "auth"} {
		nc, refused := s.login(t, addr, user)
		var heard []string
		var mu sync.Mutex
		subjects := []string{">", "*.>", "deliver.>", "deliver.*.*", "room.>", "applied.>", "svc.history.>", "_INBOX.>", "_INBOX.parley-gateway.>", "$JS.>", "gateway.>"}
		before := refused()
		for _, subject := range subjects {
			_, err := nc.Subscribe(subject, func(m *nats.Msg) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, m.Subject)
			})
			must(t, err)
		}
		s.wait(t, "every subscription is refused", 10*time.Second, func() error {
			if n := refused() - before; n != len(subjects) {
				return fmt.Errorf("%s was refused %d of %d", user, n, len(subjects))
			}
			return nil
		})
		_, err = chat(s.ctx, ann, bob, "what "+user+" must not hear")
		must(t, err)
		s.ask(t, nc, user)
		refused()
		mu.Lock()
		if len(heard) > 0 {
			t.Errorf("%s hears %v", user, heard)
		}
		mu.Unlock()
		tried += len(subjects) + 5
	}

	// A gateway and history are where messages pass; what they may not is change or delete streams.
	for _, user := range []string{"gateway", "presence", "auth", "history"} {
		nc, refused := s.login(t, addr, user)
		before := refused()
		for _, subject := range []string{"$JS.API.STREAM.DELETE.ROOMS_0", "$JS.API.STREAM.MSG.DELETE.ROOMS_0", "$JS.API.STREAM.SNAPSHOT.ROOMS_0"} {
			must(t, nc.Publish(subject, []byte("{}")))
			tried++
		}
		s.wait(t, user+" is refused", 10*time.Second, func() error {
			if n := refused() - before; n < 3 {
				return fmt.Errorf("refused %d of 3", n)
			}
			return nil
		})
	}
	seq, err := chat(s.ctx, ann, bob, "all is there still")
	must(t, err)
	s.say("%d things tried and refused; the chat is at seq %d", tried, seq)
	s.report.fact("what was tried with the services' NATS passwords beyond their work, and refused", "%d", tried)
}

// ask tries JetStream's ways to read messages.
func (s *suite) ask(t *testing.T, nc *nats.Conn, user string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Second))
	must(t, err)
	stream, err := js.Stream(ctx, "ROOMS_0")
	if err == nil {
		t.Errorf("%s reads about the stream", user)
		if _, err := stream.GetMsg(ctx, 1); err == nil {
			t.Errorf("%s reads a message of the stream", user)
		}
	}
	for _, subject := range []string{"$JS.API.STREAM.MSG.GET.ROOMS_0", "$JS.API.DIRECT.GET.ROOMS_0", "$JS.API.CONSUMER.CREATE.ROOMS_0", "svc.history.messages", "$JS.API.STREAM.LIST"} {
		if m, err := nc.Request(subject, []byte(`{"seq":1,"stream_name":"ROOMS_0","config":{"ack_policy":"none"}}`), time.Second); err == nil {
			t.Errorf("%s is answered on %s: %.200s", user, subject, m.Data)
		}
	}
}
