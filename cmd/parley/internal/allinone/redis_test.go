package allinone

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"parley.example/pkg/testx"
)

// exhausted is a listener that has no file descriptors for a while.
type exhausted struct {
	net.Listener
	times int
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.times > 0 {
		l.times--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestRedisAcceptSurvives: a moment without file descriptors does not end the embedded Redis.
func TestRedisAcceptSurvives(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan net.Conn), make(chan struct{})
	go func() {
		defer close(done)
		accept(t.Context(), &exhausted{ln, 3}, func(c net.Conn) { got <- c }, testx.Quiet())
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case s := <-got:
		s.Close()
	case <-time.After(10 * time.Second):
		t.Fatal("nobody accepts any more")
	}
	ln.Close()
	<-done
}

// TestRedisStopsWithoutDescriptors: what waits for file descriptors ends with the server.
func TestRedisStopsWithoutDescriptors(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		accept(ctx, &exhausted{nil, 1 << 30}, nil, testx.Quiet())
	}()
	stop()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}

// TestRedisAnswers: it wants its password, and ends while somebody is connected.
func TestRedisAnswers(t *testing.T) {
	r, err := startRedis(testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	o, err := redis.ParseURL(r.url.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(o)
	defer rdb.Close()
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Error(err)
	}
	o.Password = "guessed"
	stranger := redis.NewClient(o)
	defer stranger.Close()
	if err := stranger.Get(t.Context(), "k").Err(); err == nil {
		t.Error("a stranger reads")
	}
	r.Close()
}
