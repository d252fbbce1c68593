package allinone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"parley.example/pkg/config"
)

// redisStore is the store of presence.
type redisStore struct {
	url  config.Secret
	m    *miniredis.Miniredis
	ln   net.Listener
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// startRedis starts the store of presence. It is empty at every start, as presence is then. Other users of the machine
// can reach its port, so it has a password.
func startRedis(log *slog.Logger) (*redisStore, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true) // by itself nothing in it ever expires
	password := rand.Text()
	m.RequireUserAuth("default", password)
	first, err := m.Dial() // starts it without its own loop of accepting, which ends for good at the first error
	if err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	_ = first.Close() // nothing was said on it
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("listen for the embedded Redis: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &redisStore{m: m, ln: ln, stop: stop, url: config.Secret("redis://default:" + password + "@" + ln.Addr().String() + "/0")}
	r.wg.Go(func() { accept(ctx, ln, m.Server().ServeConn, log) })
	return r, nil
}

// accept gives connections to serve until ln is closed. Any other error passes, such as that of a moment without file descriptors; the end of ctx
// ends the wait for that.
func accept(ctx context.Context, ln net.Listener, serve func(net.Conn), log *slog.Logger) {
	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case err == nil:
			wait = 0
			serve(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			wait = min(max(2*wait, 5*time.Millisecond), time.Second) // as net/http does
			log.Warn("a connection to the embedded Redis could not be accepted", "error", err)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
	}
}

// Close ends it.
func (r *redisStore) Close() {
	r.stop()
	_ = r.ln.Close() // closed once
	r.wg.Wait()
	r.m.Close()
}
