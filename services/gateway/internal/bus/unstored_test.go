package bus

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"parley.example/client/wire"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
)

// TestUnstoredIsNotReady: a stream that answers and refuses is seen by what was published, and its end without anybody's message.
func TestUnstoredIsNotReady(t *testing.T) {
	srv := testx.NatsServer(t)
	b, err := Open(natsconn.Config{URL: srv.ClientURL()}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := PublisherConfig{Attempt: 100 * time.Millisecond, GiveUp: time.Second, Offline: time.Second, CopyWait: 50 * time.Millisecond, Unready: 300 * time.Millisecond}
	p, err := NewPublisher(b, cfg, func() error { return nil }, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Run(t.Context()) }()
	s := stream(t, b.nc, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	publish := func(id string) error {
		done := make(chan error, 1)
		p.Publish(p.New(Publication{Room: avisLisa, Sender: "Avi", ID: id, Content: "x", Done: func(_ *wire.Message, err error) { done <- err }}))
		return <-done
	}
	if err := publish("1"); err != nil || p.Ready() != nil {
		t.Fatalf("%v, %v", err, p.Ready())
	}
	if n := testutil.ToFloat64(p.stored); n != 1 {
		t.Errorf("%v messages count as stored, want 1", n)
	}
	if err := publish("2"); err == nil {
		t.Fatal("a full stream took a message")
	}
	testx.Eventually(t, "not ready", 10*time.Second, func() bool { return p.Ready() != nil })
	if n := testutil.ToFloat64(p.unstored); n <= 0 {
		t.Errorf("the metric says %v", n)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "ready by itself", 10*time.Second, func() bool { return p.Ready() == nil })
	if n := testutil.ToFloat64(p.unstored); n != 0 {
		t.Errorf("the metric says %v", n)
	}
	if m, err := s.GetLastMsgForSubject(t.Context(), subject.Probe(0)); err != nil || len(m.Data) != 0 {
		t.Errorf("no probe was stored: %v, %v", m, err)
	}
}

func TestUnstoredOnePartitionOfSeveral(t *testing.T) {
	u := newUnstored()
	now := time.Unix(1000, 0)
	u.now = func() time.Time { return now }
	p := &Publisher{cfg: PublisherConfig{Unready: 10 * time.Second}, unstored: u}
	u.failed(1, now)
	u.failed(1, now.Add(time.Second)) // the first one counts
	now = now.Add(9 * time.Second)
	u.stored(0)
	now = now.Add(time.Second)
	if err := p.Ready(); err != nil || len(u.longer(10*time.Second)) != 1 {
		t.Errorf("%v, %v", err, u.longer(10*time.Second))
	}
	now = now.Add(9 * time.Second)
	if p.Ready() == nil {
		t.Error("ready, though nothing was stored for ten seconds")
	}
	u.stored(1)
	if err := p.Ready(); err != nil || u.failing.Load() != 0 {
		t.Errorf("%v, %d failing", err, u.failing.Load())
	}
}
