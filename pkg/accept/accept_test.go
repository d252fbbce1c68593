package accept

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfull"

// patient is longer than a busy machine takes to send a request.
const patient = 10 * time.Second

// rig is a listener whose accepted connections come on a channel.
type rig struct {
	*Listener
	reg      *prometheus.Registry
	log      *bytes.Buffer
	accepted chan net.Conn
}

func listen(t *testing.T, patience time.Duration, cfg Config) *rig {
	t.Helper()
	r := &rig{reg: prometheus.NewRegistry(), log: &bytes.Buffer{}, accepted: make(chan net.Conn, 100)}
	cfg.Name, cfg.Refusal = "test", []byte(refusal)
	var err error
	if r.Listener, err = Listen("127.0.0.1:0", cfg, slog.New(slog.NewTextHandler(r.log, nil)), r.reg); err != nil {
		t.Fatal(err)
	}
	r.patience = patience
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := r.Accept()
			if err != nil {
				return
			}
			r.accepted <- c
		}
	}()
	t.Cleanup(func() {
		_ = r.Close()
		<-done
		for range tellers { // all that were told have been
			r.telling <- struct{}{}
		}
	})
	return r
}

// dial connects from an address of the loopback network.
func (r *rig) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func (r *rig) in(t *testing.T, from string) (client, server net.Conn) {
	t.Helper()
	client = r.dial(t, from)
	select {
	case server = <-r.accepted:
	case <-time.After(10 * time.Second):
		t.Fatalf("a connection from %s was not accepted", from)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// out dials and expects the refusal, as a client reads it that has sent its request at once.
func (r *rig) out(t *testing.T, from string) {
	t.Helper()
	c := r.dial(t, from)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("from %s: %v", from, err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || string(body) != "full" {
		t.Errorf("from %s: %d %q", from, resp.StatusCode, body)
	}
}

func (r *rig) metrics(t *testing.T, want string) {
	t.Helper()
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "parley_sockets_open", "parley_sockets_refused_total"); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	r := listen(t, patient, Config{Total: 3, PerAddress: 2})
	_, first := r.in(t, "127.0.0.1")
	r.in(t, "127.0.0.1")
	r.out(t, "127.0.0.1")
	_, other := r.in(t, "127.0.0.2")
	r.out(t, "127.0.0.3")
	r.metrics(t, `
# HELP parley_sockets_open Connections that are open, whatever they are used for.
# TYPE parley_sockets_open gauge
parley_sockets_open{listener="test"} 3
# HELP parley_sockets_refused_total Connections that were closed when they were accepted: there were too many in all (full), or of their address.
# TYPE parley_sockets_refused_total counter
parley_sockets_refused_total{listener="test",reason="address"} 1
parley_sockets_refused_total{listener="test",reason="full"} 1
`)
	// A place is given back once, however often a connection is closed.
	_ = other.Close()
	_ = other.Close()
	_ = first.Close()
	r.in(t, "127.0.0.1")
	r.in(t, "127.0.0.2")
	r.out(t, "127.0.0.2")
	if n := strings.Count(r.log.String(), "a connection is refused"); n != 2 {
		t.Errorf("%d log lines, want one for each reason:\n%s", n, r.log)
	}
}

func TestTrustedPeersAreCountedInAllOnly(t *testing.T) {
	r := listen(t, patient, Config{Total: 3, PerAddress: 1, Trusted: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }})
	r.in(t, "127.0.0.1")
	r.in(t, "127.0.0.1")
	r.in(t, "127.0.0.1")
	r.out(t, "127.0.0.1")
}

// TestLimitsMoreThanCanBeTold: a crowd that says nothing and reads nothing takes no more places for its refusals than there are, and everybody is closed.
func TestLimitsMoreThanCanBeTold(t *testing.T) {
	r := listen(t, tellTime, Config{Total: 1, PerAddress: 1})
	_, server := r.in(t, "127.0.0.1")
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}, Timeout: 10 * time.Second}
	var crowd []net.Conn
	for range 3 * tellers {
		c, err := d.Dial("tcp", r.Addr().String())
		if isReset(err) {
			continue // refused before the dial had returned
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		crowd = append(crowd, c)
	}
	for _, c := range crowd {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
			t.Fatalf("a refused connection: %v", err)
		}
	}
	_ = server.Close()
	r.in(t, "127.0.0.1")
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestRoom(t *testing.T) {
	for limit, want := range map[uint64]int{
		256: 128, 1024: 512, 4096: 3584, 20000: 17500, 65536: 61440, 1 << 20: 1<<20 - 4096, math.MaxUint64: 1<<30 - 4096,
	} {
		if got := room(limit); got != want {
			t.Errorf("room(%d) = %d, want %d", limit, got, want)
		}
	}
	if Room() < 128 {
		t.Errorf("Room() = %d", Room())
	}
}

// TestLimitsLoseNothingByCounting: a counted connection still writes several buffers in one system call, which net does for its own connections only.
func TestLimitsLoseNothingByCounting(t *testing.T) {
	r := listen(t, patient, Config{Total: 1, PerAddress: 1})
	client, server := r.in(t, "127.0.0.1")
	bufs := net.Buffers{[]byte("a"), []byte("b")}
	if _, err := bufs.WriteTo(server); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "ab" {
		t.Errorf("%q %v", got, err)
	}
	if _, ok := server.(interface {
		ReadFrom(io.Reader) (int64, error)
	}); !ok {
		t.Error("ReadFrom is gone")
	}
}
