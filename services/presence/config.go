package presence

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"parley.example/pkg/config"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
)

// Config of the presence service. All replicas need the same times.
type Config struct {
	NATS natsconn.Config
	Obs  obs.Config

	RedisURL      config.Secret `cfg:"redis-url" default:"redis://127.0.0.1:6379/0" help:"Redis server, redis://user:password@host:port/db or rediss:// for TLS; its memory policy must be noeviction"`
	RedisAddrs    []string      `cfg:"redis-addrs" help:"host:port list of a Redis Cluster, or of Sentinels when redis-sentinel-master is set; takes the place of the address in redis-url, whose user, password and TLS stay in force"`
	RedisMaster   string        `cfg:"redis-sentinel-master" help:"name of the master that Sentinels watch"`
	RedisPassword config.Secret `cfg:"redis-password" help:"password, when it is not in redis-url; file:PATH reads it from a file"`

	Lease    time.Duration `cfg:"presence-lease" default:"5s" help:"a gateway that sends no heartbeat for so long has lost its sessions; heartbeats come every 1.5 s"`
	Grace    time.Duration `cfg:"presence-grace" default:"5s" help:"how long a lost connection may take to come back before others see its user go offline"`
	Settle   time.Duration `cfg:"presence-settle" default:"4s" help:"how long gateways may register again after Redis lost data; presence is unknown meanwhile"`
	Tick     time.Duration `cfg:"presence-tick" default:"500ms" help:"how often each replica looks for leases and graces that ran out"`
	LastSeen time.Duration `cfg:"presence-last-seen" default:"2160h" help:"how long the time when a user was last online is kept"`
}

// Validate checks the settings and reports all mistakes.
func (c Config) Validate() error {
	errs := []error{c.Obs.Validate()}
	if _, err := c.redisOptions(); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name     string
		v        time.Duration
		min, max time.Duration
	}{
		{"presence-lease", c.Lease, 50 * time.Millisecond, time.Minute},
		{"presence-grace", c.Grace, 0, time.Minute},
		{"presence-settle", c.Settle, 0, time.Minute},
		{"presence-tick", c.Tick, time.Millisecond, c.Lease / 5},
		{"presence-last-seen", c.LastSeen, time.Second, 100 * 365 * 24 * time.Hour},
	} {
		if d.v < d.min || d.v > d.max {
			errs = append(errs, fmt.Errorf("%s: %s is not between %s and %s", d.name, d.v, d.min, d.max))
		}
	}
	return errors.Join(errs...)
}

// redisTimeout bounds everything that waits for Redis: callers wait little longer, and a heartbeat must fit twice into a lease.
const redisTimeout = time.Second

func (c Config) redisOptions() (*redis.UniversalOptions, error) {
	u, err := redis.ParseURL(c.RedisURL.Reveal())
	if err != nil {
		// The error of a URL may repeat the URL, and with it the password.
		return nil, errors.New("redis-url: not a URL such as redis://user:password@host:6379/0")
	}
	if c.RedisMaster != "" && len(c.RedisAddrs) == 0 {
		return nil, errors.New("redis-sentinel-master: needs the Sentinels in redis-addrs")
	}
	o := &redis.UniversalOptions{
		Addrs: []string{u.Addr}, DB: u.DB, Username: u.Username, Password: u.Password, TLSConfig: u.TLSConfig, MasterName: c.RedisMaster,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
		ContextTimeoutEnabled: true, PoolSize: 32,
		// A script may be repeated, but its first answer names the changes: the gateways' own repair is better.
		MaxRetries: -1, DialerRetries: 1,
	}
	if len(c.RedisAddrs) > 0 {
		o.Addrs = c.RedisAddrs
		o.IsClusterMode = c.RedisMaster == ""
		if o.IsClusterMode && o.DB != 0 {
			return nil, errors.New("redis-url: a Redis Cluster has database 0 only")
		}
	}
	if p := c.RedisPassword.Reveal(); p != "" {
		o.Password = p
	}
	for _, a := range o.Addrs {
		if !strings.Contains(a, ":") {
			return nil, fmt.Errorf("redis-addrs: %q is not host:port", a)
		}
	}
	return o, nil
}
