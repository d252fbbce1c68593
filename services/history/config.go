// Package history is the service that keeps what was said: it reads the streams of messages into SQL, announces what SQL has, and answers
// gateways over NATS (see parley.example/pkg/api).
package history

import (
	"errors"
	"fmt"
	"time"

	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/sqldb"
	"parley.example/pkg/streams"
)

// Config of the service.
type Config struct {
	NATS    natsconn.Config
	Streams streams.Config
	Obs     obs.Config
	SQL     sqldb.Config

	Keep   int64         `cfg:"stream-keep" default:"50000" help:"youngest messages that stay in each stream after they are in SQL"`
	Lease  time.Duration `cfg:"history-lease" default:"5s" help:"after so long another replica reads on for one that died"`
	Batch  int           `cfg:"history-batch" default:"1000" help:"messages stored in one transaction at most"`
	Idle   time.Duration `cfg:"history-idle" default:"5ms" help:"a transaction begins when no message came for this"`
	Gather time.Duration `cfg:"history-gather" default:"25ms" help:"or when its first message has waited for this"`
}

// Validate reports all mistakes.
func (c *Config) Validate() error {
	errs := []error{c.Streams.Validate(), c.Obs.Validate()}
	for _, n := range []struct {
		name        string
		v, min, max int64
	}{
		{"stream-keep", c.Keep, 100, 10_000_000},
		{"history-batch", int64(c.Batch), 1, 10_000},
		{"sql-conns", int64(c.SQL.Conns), 1, 10_000},
	} {
		if n.v < n.min || n.v > n.max {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", n.name, n.v, n.min, n.max))
		}
	}
	for _, d := range []struct {
		name        string
		v, min, max time.Duration
	}{
		{"history-lease", c.Lease, 2 * time.Second, time.Minute}, // it is renewed every second
		{"history-idle", c.Idle, time.Millisecond, time.Second},
		{"history-gather", c.Gather, time.Millisecond, time.Second},
	} {
		if d.v < d.min || d.v > d.max {
			errs = append(errs, fmt.Errorf("%s: %s is not between %s and %s", d.name, d.v, d.min, d.max))
		}
	}
	return errors.Join(errs...)
}
