package link

import (
	"bufio"
	"net"
	"testing"
	"time"

	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					s, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := c.Write([]byte(s)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

type conn struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, l *Link) *conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &conn{t, c, bufio.NewReader(c)}
}

func (c *conn) say(s string) { _, _ = c.Write([]byte(s + "\n")) } // what fails shows in hears

func (c *conn) hears(within time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(within)) // a TCP connection takes deadlines
	return c.r.ReadString('\n')
}

func TestLinkWays(t *testing.T) {
	l, err := New("x", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	c := dial(t, l)
	good := func(c *conn) {
		t.Helper()
		c.say("hello")
		if s, err := c.hears(10 * time.Second); s != "hello\n" {
			t.Fatalf("heard %q, %v", s, err)
		}
	}
	good(c)
	l.Set(Way{Hold: true}, Way{})
	c.say("held")
	if s, _ := c.hears(50 * time.Millisecond); s != "" {
		t.Fatalf("heard %q through a partition", s)
	}
	l.Heal()
	if s, err := c.hears(10 * time.Second); s != "held\n" {
		t.Fatalf("after a partition: %q, %v", s, err)
	}
	begin := time.Now()
	l.Set(Way{Delay: 100 * time.Millisecond}, Way{Loss: 1})
	good(c)
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("a slow and lossy link took %s", d)
	}
	l.Set(Way{}, Way{Rate: 20})
	begin = time.Now()
	good(c)
	if d := time.Since(begin); d < 200*time.Millisecond {
		t.Errorf("six bytes at 20 a second took %s", d)
	}
	l.Heal()
	good(c)
	l.Set(Way{}, Way{Swallow: true})
	c.say("lost")
	if s, _ := c.hears(50 * time.Millisecond); s != "" {
		t.Fatalf("heard %q through a one-way link", s)
	}
	l.Heal()
	if s, err := c.hears(10 * time.Second); err == nil {
		t.Fatalf("a connection that lost bytes lives on: %q", s)
	}
	c = dial(t, l)
	good(c)
	l.Cut()
	if _, err := c.hears(10 * time.Second); err == nil {
		t.Fatal("a cut connection lives on")
	}
	if c := dial(t, l); true {
		c.say("x")
		if s, err := c.hears(10 * time.Second); err == nil {
			t.Fatalf("heard %q through a cut link", s)
		}
	}
	l.Heal()
	good(dial(t, l))
}
