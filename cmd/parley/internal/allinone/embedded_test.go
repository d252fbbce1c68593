package allinone

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"parley.example/pkg/natsconn"
	"parley.example/pkg/streams"
	"parley.example/pkg/testx"
)

// world is an embedded NATS with two streams, and a client of it as the services are.
type world struct {
	e            *embedded
	full, broken atomic.Bool // the disk; the next start
	hangs        atomic.Bool // whoever asks the server whether it stores
	dir          string
	js           jetstream.JetStream
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	cfg := &Config{Data: w.dir, Sync: time.Second, Streams: streams.Config{Partitions: 2, MaxBytes: 64 << 20}}
	room := func() error {
		if w.full.Load() {
			return errDisk
		}
		return nil
	}
	start := func() (*server.Server, error) {
		if w.broken.Load() {
			return nil, syscall.EMFILE
		}
		return startNATS(cfg, testx.Quiet())
	}
	var err error
	w.e, err = newEmbedded(start, room, testx.Quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.e.refuses = func(s *server.Server) error {
		if w.hangs.Load() {
			<-ctx.Done()
		}
		return refuses(s)
	}
	w.e.patience = time.Second
	done := make(chan error, 1)
	go func() { done <- w.e.Run(ctx) }()
	nc, err := natsconn.Connect(natsconn.Config{}, "test", testx.Quiet(), nats.InProcessServer(w.e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.e.stop(); err != nil {
			t.Error(err)
		}
	})
	if w.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// say stores one message.
func (w *world) say(stream, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := w.js.Publish(ctx, stream+".x", []byte(text))
	return err
}

// fill lets every write to the stream's messages end with "no space left on device", whoever runs the test: their file becomes /dev/full.
func (w *world) fill(t *testing.T, stream string) {
	t.Helper()
	full, err := syscall.Open("/dev/full", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(full)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil || !strings.HasPrefix(path, w.dir) || !strings.Contains(path, "/"+stream+"/msgs/") {
			continue // it was closed meanwhile, or is another one
		}
		var nr int
		if _, err := fmt.Sscan(fd.Name(), &nr); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Dup3(full, nr, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 {
		t.Fatalf("no file of stream %s is open", stream)
	}
}

func (w *world) texts(t *testing.T, stream string) []string {
	t.Helper()
	s, err := w.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(m.Data))
	}
	return out
}

// TestNatsThatRefusesHeals: a stream meets a full disk once. Another one goes on, nothing is done while there is no room, then the server is started
// again in place: the stream takes writes, has what it acknowledged, and those who were connected still are.
func TestNatsThatRefusesHeals(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 5 {
		text := fmt.Sprintf("before %d", i)
		if err := w.say("one", text); err != nil {
			t.Fatal(err)
		}
		want = append(want, text)
	}
	w.full.Store(true)
	w.fill(t, "one")
	if err := w.say("one", "lost"); err == nil {
		t.Fatal("a message was acknowledged that cannot be on the disk")
	}
	testx.Eventually(t, "it is seen", 10*time.Second, func() bool { return w.e.Ready() != nil })
	if err := w.say("two", "the other stream"); err != nil {
		t.Errorf("another stream: %v", err)
	}
	if n := testutil.ToFloat64(w.e.restarts); n != 0 {
		t.Errorf("%v restarts on a full disk", n)
	}
	w.full.Store(false)
	testx.Eventually(t, "it stores again", 20*time.Second, func() bool { return w.say("one", "after") == nil })
	if err := w.e.Ready(); err != nil {
		t.Errorf("it stores, and %v", err)
	}
	if n := testutil.ToFloat64(w.e.restarts); n != 1 {
		t.Errorf("%v restarts", n)
	}
	got := w.texts(t, "one")
	if len(got) < len(want) || strings.Join(got[:len(want)], ",") != strings.Join(want, ",") || got[len(got)-1] != "after" {
		t.Errorf("stored %q", got)
	}
	for _, text := range got[len(want):] {
		if text != "after" {
			t.Errorf("%q was not acknowledged and is there", text)
		}
	}
}

// TestNatsThatDoesNotStart: as long as the store cannot be opened it says so, and it is tried again.
func TestNatsThatDoesNotStart(t *testing.T) {
	w := newWorld(t)
	if err := w.say("one", "before"); err != nil {
		t.Fatal(err)
	}
	w.broken.Store(true)
	w.fill(t, "one")
	_ = w.say("one", "lost") // nobody answers
	testx.Eventually(t, "it was tried twice", 20*time.Second, func() bool { return testutil.ToFloat64(w.e.restarts) >= 2 })
	if w.e.Ready() == nil {
		t.Error("nothing runs, and it is ready")
	}
	w.broken.Store(false)
	testx.Eventually(t, "it stores again", 30*time.Second, func() bool { return w.say("one", "after") == nil })
	if err := w.e.Ready(); err != nil {
		t.Errorf("it stores, and %v", err)
	}
}

// TestNatsThatDoesNotSayWhetherItStores: a write that does not end keeps the answer back. Nobody else waits for it, and the server is started again.
func TestNatsThatDoesNotSayWhetherItStores(t *testing.T) {
	w := newWorld(t)
	if err := w.say("one", "before"); err != nil {
		t.Fatal(err)
	}
	w.hangs.Store(true)
	testx.Eventually(t, "it is seen", 10*time.Second, func() bool { return w.e.Ready() != nil })
	if c, err := w.e.InProcessConn(); err == nil {
		c.Close()
	}
	testx.Eventually(t, "it was started again", 20*time.Second, func() bool { return testutil.ToFloat64(w.e.restarts) >= 1 })
	w.hangs.Store(false)
	testx.Eventually(t, "it stores again", 30*time.Second, func() bool { return w.say("one", "after") == nil && w.e.Ready() == nil })
}

// TestNatsOnABusyMachineIsNoRefusal: the server gives itself a millisecond to see that it has started. What does not see it in time is no refusal.
func TestNatsOnABusyMachineIsNoRefusal(t *testing.T) {
	late := &server.HealthStatus{Errors: []server.HealthzError{{Type: server.HealthzErrorConn, Error: "startup did not complete"}}}
	full := &server.HealthStatus{Errors: []server.HealthzError{{Type: server.HealthzErrorStream, Error: "no space left on device"}}}
	said := func(list ...*server.HealthStatus) error {
		return refusal(func() *server.HealthStatus {
			h := list[0]
			if len(list) > 1 {
				list = list[1:]
			}
			return h
		})
	}
	if err := said(late, late, &server.HealthStatus{}); err != nil {
		t.Errorf("it stores, and %v", err)
	}
	if err := said(late, full); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("it does not store, and %v", err)
	}
	if said(late) == nil {
		t.Error("a server that never starts counts as one that stores")
	}
}
