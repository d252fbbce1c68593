// Package natsconn is how the programs reach NATS: a connection with settings that outlast outages, and its metrics.
package natsconn

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/config"
)

// Config says where NATS is.
type Config struct {
	URL      string        `cfg:"nats-url" default:"nats://127.0.0.1:4222" help:"NATS servers, comma-separated; nats:// or tls://, user and password in the URL if any"`
	User     string        `cfg:"nats-user" help:"user of the NATS servers, when it is not in the URL"`
	Password config.Secret `cfg:"nats-password" help:"its password; file:PATH reads it from a file"`
	Creds    string        `cfg:"nats-creds" help:"file with NATS user credentials (JWT and seed)"`
	CA       string        `cfg:"nats-ca" help:"file with the certificate authority of the NATS servers"`
}

// InboxPrefix is where answers to the connection of that name arrive. Each service has a prefix of its own, so that NATS can forbid it to
// listen for what others are answered.
func InboxPrefix(name string) string { return "_INBOX." + name }

// Connect returns a connection that never gives up. It does not wait for a server to be there: what needs
// NATS reports that it is not ready until Status is CONNECTED. More options may follow, such as nats.InProcessServer.
func Connect(cfg Config, name string, log *slog.Logger, more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), // the default gives up after 60 tries
		// The default gives up when one server refuses the password twice, as it does while passwords are changed.
		nats.IgnoreAuthErrorAbort(),
		nats.CustomInboxPrefix(InboxPrefix(name)),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		// With a buffer, a message that we reported as failed would be stored after the reconnect.
		nats.ReconnectBufSize(-1),
		// A half-open link is noticed after PingInterval × (MaxPingsOutstanding + 1) = 9 s instead of six minutes.
		nats.PingInterval(3 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(3 * time.Second),
		nats.DrainTimeout(10 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subj := ""
			if sub != nil {
				subj = sub.Subject
			}
			log.Warn("nats error", "error", err, "subject", subj)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: closed by us
				log.Warn("nats disconnected", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats reconnected", "server", nc.ConnectedServerName()) }),
	}
	if cfg.User != "" {
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password.Reveal()))
	}
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	if cfg.CA != "" {
		opts = append(opts, nats.RootCAs(cfg.CA))
	}
	nc, err := nats.Connect(cfg.URL, append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}
