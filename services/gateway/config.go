package gateway

import (
	"errors"
	"fmt"
	"time"

	"parley.example/pkg/accept"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/httpapi"
	"parley.example/services/gateway/internal/legacy"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/session"
)

// Config of a gateway.
type Config struct {
	HTTP        string        `cfg:"http" default:":8080" help:"public address for HTTP and WebSocket"`
	Drain       time.Duration `cfg:"drain" default:"5s" help:"after SIGTERM, clients are asked to leave at random times within this"`
	DrainWait   time.Duration `cfg:"drain-wait" default:"0s" help:"after SIGTERM, how long to go on as before while load balancers notice that this gateway is not ready"`
	Connections int           `cfg:"connections" default:"50000" help:"open connections at most, and never more than the process has file descriptors for; more are told to try elsewhere"`
	PerAddress  int           `cfg:"address-connections" default:"1000" help:"open connections of one client address at most; twice as many, requests included, are accepted"`
	OutboxBytes int64         `cfg:"outbox-bytes" default:"1048576" help:"what may wait to be written to one connection; more closes it as slow"`
	OutboxTotal int64         `cfg:"outbox-total-bytes" default:"536870912" help:"what may wait for all connections; beyond it the larger ones are closed as slow"`
	Unstored    time.Duration `cfg:"ready-unstored" default:"10s" help:"not ready when nothing of what was published to a stream was stored for this long"`
	RPCTimeout  time.Duration `cfg:"rpc-timeout" default:"3s" help:"how long an answer of another service is waited for"`

	API       httpapi.Config
	Session   session.Config
	Legacy    legacy.Config
	Directory directory.Config
	Presence  presence.Config
	NATS      natsconn.Config
	Obs       obs.Config
}

// sockets are the limits at which connections are closed when they are accepted. Each of Connections may have another one beside it, for requests.
func (c *Config) sockets(room int) accept.Config {
	return accept.Config{Name: "public", Total: min(2*c.Connections, room), PerAddress: 2 * c.PerAddress}
}

// Validate returns every mistake.
func (c *Config) Validate() error {
	var errs []error
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: must be above 0", name))
		}
	}
	positive("connections", c.Connections > 0)
	positive("address-connections", c.PerAddress > 0)
	positive("outbox-bytes", c.OutboxBytes > 0)
	positive("outbox-total-bytes", c.OutboxTotal > 0)
	positive("ready-unstored", c.Unstored > 0)
	positive("rpc-timeout", c.RPCTimeout > 0)
	positive("drain", c.Drain > 0)
	errs = append(errs, c.API.Validate(), c.Session.Validate(), c.Legacy.Validate(), c.Obs.Validate())
	if c.OutboxBytes > 0 && c.OutboxBytes < 4*int64(c.Session.FrameBytes) {
		errs = append(errs, fmt.Errorf("outbox-bytes: must be at least four times frame-bytes"))
	}
	return errors.Join(errs...)
}
