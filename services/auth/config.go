// Package auth is the service that knows users: it registers them, logs them in and says who may talk to whom. It
// answers requests over NATS (see parley.example/pkg/api) and keeps everything in SQL.
package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"runtime"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/sqldb"
	"parley.example/pkg/token"
	"parley.example/services/auth/internal/keyfile"
)

// maxDirectory keeps a whole directory of the longest names below NATS' 1 MB a message.
const maxDirectory = 3000

// Config of the service.
type Config struct {
	NATS natsconn.Config
	Obs  obs.Config
	SQL  sqldb.Config

	Replicas int `cfg:"nats-replicas" default:"1" help:"copies of each stream and bucket in NATS: 1, 3 or 5"`

	TokenKey     config.Secret `cfg:"token-key" help:"key that signs tokens: 32 bytes in base64, or file:PATH; wins over token-key-path"`
	TokenKeyPath string        `cfg:"token-key-path" default:"data/token.key" help:"file with that key; made, with a new key, when it is not there"`

	AccessTTL  time.Duration `cfg:"access-ttl" default:"15m" help:"life of an access token"`
	RefreshTTL time.Duration `cfg:"refresh-ttl" default:"720h" help:"life of a refresh token that is not used"`
	// 5 s: two tabs that ask at the same moment are closer than that on any network on which one can chat.
	RefreshGrace time.Duration `cfg:"refresh-grace" default:"5s" help:"a refresh token is taken for so long yet after the first use of what it was traded for (two tabs ask at the same time); later it ends the login as stolen"`
	LegacyTTL    time.Duration `cfg:"seed-token-ttl" default:"720h" help:"life of a token of the old clients, which cannot refresh"`

	Mode           string `cfg:"directory-mode" default:"everyone" help:"everyone: all users are contacts; roster: contacts by consent of both"`
	DirectoryLimit int    `cfg:"directory-limit" default:"1000" help:"up to so many users, gateways hold the whole list of names"`

	HashConcurrency int `cfg:"hash-concurrency" default:"0" help:"passwords hashed at a time, 19 MiB each; 0: one a core"`
	HashQueue       int `cfg:"hash-queue" default:"256" help:"passwords that may wait for that; one more is answered with rate_limited"`

	AccountTries int `cfg:"login-tries-account" default:"10" help:"failed logins of one user within an hour before each further one costs a wait"`
	AddressTries int `cfg:"login-tries-address" default:"50" help:"the same of one client address"`
}

// Validate reports all mistakes.
func (c *Config) Validate() error {
	var errs []error
	if err := c.Obs.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.TokenKey == "" && c.TokenKeyPath == "" {
		errs = append(errs, errors.New("token-key or token-key-path is needed"))
	}
	if c.TokenKey != "" {
		if _, err := keyfile.Parse(c.TokenKey.Reveal()); err != nil {
			errs = append(errs, fmt.Errorf("token-key: %w", err))
		}
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		errs = append(errs, fmt.Errorf("nats-replicas: %d is none of 1, 3, 5", c.Replicas))
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{{"access-ttl", c.AccessTTL}, {"refresh-ttl", c.RefreshTTL}, {"seed-token-ttl", c.LegacyTTL}} {
		if d.v < time.Second || d.v > token.MaxLife {
			errs = append(errs, fmt.Errorf("%s: %s is not between a second and a year", d.name, d.v))
		}
	}
	if c.RefreshTTL < c.AccessTTL {
		errs = append(errs, fmt.Errorf("refresh-ttl: %s is less than access-ttl, %s: a login would be forgotten before its last token runs out", c.RefreshTTL, c.AccessTTL))
	}
	if c.RefreshGrace < 0 || c.RefreshGrace > time.Minute {
		errs = append(errs, fmt.Errorf("refresh-grace: %s is not between 0 and a minute", c.RefreshGrace))
	}
	if m := api.Mode(c.Mode); m != api.Everyone && m != api.Roster {
		errs = append(errs, fmt.Errorf("directory-mode: %q is neither everyone nor roster", c.Mode))
	}
	for _, n := range []struct {
		name        string
		v, min, max int
	}{
		{"directory-limit", c.DirectoryLimit, 0, maxDirectory},
		{"hash-concurrency", c.HashConcurrency, 0, 1024},
		{"hash-queue", c.HashQueue, 0, 100_000},
		{"login-tries-account", c.AccountTries, 1, 1_000_000},
		{"login-tries-address", c.AddressTries, 1, 1_000_000},
		{"sql-conns", c.SQL.Conns, 1, 10_000},
	} {
		if n.v < n.min || n.v > n.max {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", n.name, n.v, n.min, n.max))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) hashConcurrency() int {
	if c.HashConcurrency > 0 {
		return c.HashConcurrency
	}
	return runtime.GOMAXPROCS(0)
}

func (c *Config) key() (ed25519.PrivateKey, error) {
	if c.TokenKey != "" {
		return keyfile.Parse(c.TokenKey.Reveal())
	}
	return keyfile.Load(c.TokenKeyPath)
}
