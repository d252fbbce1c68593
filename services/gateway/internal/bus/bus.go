// Package bus is the gateway's only way to NATS: publishing and accepting messages, the subscriptions of
// connected users, requests to the services, and events.
package bus

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/natsconn"
	"parley.example/pkg/rpc"
)

// Bus is one connection to NATS.
type Bus struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	mu          sync.Mutex
	onReconnect []func()
}

// Open connects; it does not wait for a server to be there.
func Open(cfg natsconn.Config, name string, log *slog.Logger, more ...nats.Option) (*Bus, error) {
	b := &Bus{log: log}
	nc, err := natsconn.Connect(cfg, name, log, append([]nats.Option{
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("nats reconnected", "server", nc.ConnectedServerName())
			b.reconnected()
		}),
		nats.ConnectHandler(func(*nats.Conn) { b.reconnected() }),
	}, more...)...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	b.nc, b.js = nc, js
	return b, nil
}

// OnReconnect calls f, in a goroutine of its own, after each time the connection came (back).
func (b *Bus) OnReconnect(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onReconnect = append(b.onReconnect, f)
}

func (b *Bus) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.onReconnect {
		go f()
	}
}

// Services is for requests to auth, presence and history. They wait for timeout at most (those with a password longer), less when their context ends before.
func (b *Bus) Services(timeout time.Duration) rpc.Caller {
	return rpc.Caller{Conn: b.nc, Timeout: timeout}
}

// JetStream is for looking streams up.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Observe registers the metrics of the connection.
func (b *Bus) Observe(reg prometheus.Registerer) { natsconn.Observe(b.nc, "gateway", reg) }

// Connected reports whether NATS can be reached now.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// Subscribe calls f with the body of every message on subject, one after the other, until the returned function is
// called. f must not block. Subscriptions outlive reconnects.
func (b *Bus) Subscribe(subject string, f func(body []byte)) (unsubscribe func(), err error) {
	sub, err := b.nc.Subscribe(subject, func(m *nats.Msg) { f(m.Data) })
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only on a closed connection
}

// Publish sends body without any guarantee.
func (b *Bus) Publish(subject string, body []byte) error {
	if err := b.nc.Publish(subject, body); err != nil {
		return fmt.Errorf("publish on %s: %w", subject, err)
	}
	return nil
}

// Flush returns when the server has seen all that was sent before, subscriptions included.
func (b *Bus) Flush() error { return b.nc.Flush() }

// Close ends the connection.
func (b *Bus) Close() { b.nc.Close() }
