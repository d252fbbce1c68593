// Package allinone runs every service in one process, with NATS, a Redis-compatible store and SQLite inside it. The services are
// the same code as in a cluster; only the addresses differ.
package allinone

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"parley.example/pkg/streams"
	"parley.example/services/auth"
	"parley.example/services/gateway"
	"parley.example/services/history"
	"parley.example/services/presence"
)

// Config has the settings of all services, and these.
type Config struct {
	HTTP  string        `cfg:"http" default:"127.0.0.1:8080" help:"public address for HTTP and WebSocket"`
	Data  string        `cfg:"data" default:"data" help:"folder with everything that is kept"`
	Demo  bool          `cfg:"demo" default:"false" help:"add the demo users, whose passwords everybody knows, an administrator among them; on a loopback address only"`
	Admin string        `cfg:"admin" default:"127.0.0.1:0" help:"private address for /metrics, /healthz, /readyz and /debug/pprof; empty for none"`
	Drain time.Duration `cfg:"drain" default:"1s" help:"after SIGTERM, clients are asked to leave at random times within this"`
	Floor int64         `cfg:"free-space-floor" default:"268435456" help:"bytes that have to be free where the data folder is: below that, messages and registrations are refused and all else goes on; 0 for none"`
	Sync  time.Duration `cfg:"nats-sync-interval" default:"1s" help:"how often the embedded NATS forces what it stored to the disk: what a power cut (not a crash) may take"`

	// Streams is what history makes of the same settings; here it says how much the embedded NATS may store.
	Streams streams.Config

	Gateway  gateway.Config
	Auth     auth.Config
	Presence presence.Config
	History  history.Config
}

// Fixed are the settings that being in one process decides.
func (c *Config) Fixed() []string {
	return []string{
		"nats-url", "nats-user", "nats-password", "nats-creds", "nats-ca", "nats-replicas", "sql-url", "token-key-path", "drain-wait",
		"redis-url", "redis-addrs", "redis-sentinel-master", "redis-password", "presence-settle", "history-lease",
	}
}

// Validate returns all mistakes, each once: the services share settings.
func (c *Config) Validate() error {
	c.place()
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data: a folder is needed"))
	}
	if c.Demo && !loopback(c.HTTP) {
		errs = append(errs, fmt.Errorf("demo: the passwords of the demo users are public, and others can reach --http %s; leave --demo out, or listen on 127.0.0.1", c.HTTP))
	}
	if c.Sync <= 0 {
		errs = append(errs, errors.New("nats-sync-interval: must be above 0"))
	}
	if c.Floor < 0 {
		errs = append(errs, errors.New("free-space-floor: must not be below 0"))
	}
	seen := map[string]bool{}
	for _, err := range []error{c.Gateway.Validate(), c.Auth.Validate(), c.Presence.Validate(), c.History.Validate()} {
		for _, e := range flatten(err) {
			if !seen[e.Error()] {
				seen[e.Error()] = true
				errs = append(errs, e)
			}
		}
	}
	return errors.Join(errs...)
}

// place gives the services what only this process knows, but for the address of Redis.
func (c *Config) place() {
	c.Gateway.HTTP, c.Gateway.Drain = c.HTTP, c.Drain
	if c.Demo && len(c.Gateway.Legacy.Bots) == 0 {
		c.Gateway.Legacy.Bots = auth.DemoBots()
	}
	db := "sqlite:" + filepath.Join(c.Data, "parley.db")
	c.Auth.SQL.URL, c.History.SQL.URL = db, db
	c.Auth.TokenKeyPath = filepath.Join(c.Data, "token.key")
	// The store of presence is empty at the start only, when there is nobody to wait for.
	c.Presence.Settle = 0
	// Nobody else can read the streams: after a crash there is nobody to be considerate of.
	c.History.Lease = 2 * time.Second
	// One private port serves them all.
	c.Gateway.Obs.Admin, c.Auth.Obs.Admin, c.Presence.Obs.Admin, c.History.Obs.Admin = "", "", "", ""
}

// loopback reports that only this machine reaches an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}
