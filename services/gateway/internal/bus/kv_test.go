package bus

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/natsconn"
	"parley.example/pkg/testx"
)

// mirror is what a reader of WatchKV knows.
type mirror struct {
	mu    sync.Mutex
	now   map[string]string
	fresh map[string]bool // heard of since the last read was complete
	reads int
}

func (m *mirror) f(key string, value []byte, deleted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if deleted {
		delete(m.now, key)
		return
	}
	m.now[key] = string(value)
	m.fresh[key] = true
}

func (m *mirror) initial() {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.now, func(k, _ string) bool { return !m.fresh[k] })
	clear(m.fresh)
	m.reads++
}

func (m *mirror) equal(want map[string]string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Equal(m.now, want)
}

func (m *mirror) readings() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// watching runs WatchKV on a Bus of its own.
func watching(t *testing.T, url, bucket string, every time.Duration) (*Bus, *mirror) {
	t.Helper()
	b, err := Open(natsconn.Config{URL: url}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := &mirror{now: map[string]string{}, fresh: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.watchKV(ctx, bucket, every, m.f, m.initial)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b, m
}

func kvBucket(t *testing.T, nc *nats.Conn, cfg jetstream.KeyValueConfig) (jetstream.JetStream, jetstream.KeyValue) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return js, kv
}

func put(t *testing.T, kv jetstream.KeyValue, k, v string) {
	t.Helper()
	testx.Eventually(t, "a key is put", 10*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := kv.PutString(ctx, k, v)
		return err == nil
	})
}

func TestWatchKVFollowsABucket(t *testing.T) {
	n := testx.NatsServer(t)
	nc := n.Connect()
	_, m := watching(t, n.ClientURL(), "b", kvAudit)
	if m.readings() != 0 {
		t.Fatal("read a bucket that is not there")
	}
	_, kv := kvBucket(t, nc, jetstream.KeyValueConfig{Bucket: "b", LimitMarkerTTL: time.Second})
	testx.Eventually(t, "an empty bucket is read", 10*time.Second, func() bool { return m.readings() > 0 })
	want := map[string]string{}
	for i := range 600 { // more than the watcher holds
		k := fmt.Sprint("k", i)
		put(t, kv, k, "v")
		want[k] = "v"
	}
	put(t, kv, "k1", "other")
	want["k1"] = "other"
	if err := kv.Delete(context.Background(), "k2"); err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(context.Background(), "k3"); err != nil {
		t.Fatal(err)
	}
	delete(want, "k2")
	delete(want, "k3")
	testx.Eventually(t, "all changes are known", 10*time.Second, func() bool { return m.equal(want) })

	if _, err := kv.Create(context.Background(), "brief", []byte("v"), jetstream.KeyTTL(time.Second)); err != nil {
		t.Fatal(err)
	}
	want["brief"] = "v"
	testx.Eventually(t, "a brief key is known", 5*time.Second, func() bool { return m.equal(want) })
	delete(want, "brief")
	testx.Eventually(t, "a key that ran out is gone", 15*time.Second, func() bool { return m.equal(want) })

	// A second reader gets the same in one read.
	_, m2 := watching(t, n.ClientURL(), "b", kvAudit)
	testx.Eventually(t, "the bucket is read", 10*time.Second, func() bool { return m2.readings() > 0 })
	if !m2.equal(want) {
		t.Fatal("initial came before the whole bucket")
	}
}

// NATS stays away for longer than the watch's own heartbeats and requests last.
func TestWatchKVSurvivesALongOutage(t *testing.T) {
	n := testx.NatsServer(t)
	nc := n.Connect()
	_, kv := kvBucket(t, nc, jetstream.KeyValueConfig{Bucket: "b"})
	put(t, kv, "a", "1")
	_, m := watching(t, n.ClientURL(), "b", kvAudit)
	testx.Eventually(t, "the bucket is read", 10*time.Second, func() bool { return m.readings() > 0 })
	n.Stop()
	time.Sleep(17 * time.Second) // three missed heartbeats of 5 s: the outage is what is tested
	n.Restart()
	put(t, kv, "b", "2")
	testx.Eventually(t, "a change after the outage is known", 15*time.Second, func() bool { return m.equal(map[string]string{"a": "1", "b": "2"}) })
	for i := range 3 {
		n.Stop()
		n.Restart()
		put(t, kv, "a", fmt.Sprint("round ", i))
	}
	testx.Eventually(t, "a change after three restarts is known", 15*time.Second, func() bool { return m.equal(map[string]string{"a": "round 2", "b": "2"}) })
}

// No event tells that the consumer behind a watch, or the bucket itself, is gone.
func TestWatchKVNoticesWhatNobodyTells(t *testing.T) {
	n := testx.NatsServer(t)
	nc := n.Connect()
	js, kv := kvBucket(t, nc, jetstream.KeyValueConfig{Bucket: "b"})
	put(t, kv, "a", "1")
	b, m := watching(t, n.ClientURL(), "b", 200*time.Millisecond)
	testx.Eventually(t, "the bucket is read", 10*time.Second, func() bool { return m.readings() > 0 })

	ctx := context.Background()
	if err := js.DeleteKeyValue(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	// Not at the first try: the server removes the folder of an account's last stream while a new one may be made in it.
	testx.Eventually(t, "the bucket is made anew", 10*time.Second, func() bool {
		var err error
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b"})
		return err == nil
	})
	put(t, kv, "z", "9")
	testx.Eventually(t, "the new bucket is known", 40*time.Second, func() bool { return m.equal(map[string]string{"z": "9"}) })
	if b.nc.Stats().Reconnects != 0 {
		t.Fatal("a reconnect helped")
	}
}

// A quiet watch must not be taken for a dead one, also when its last entries ran out.
func TestWatchKVDoesNotReadAgainForNothing(t *testing.T) {
	n := testx.NatsServer(t)
	nc := n.Connect()
	_, kv := kvBucket(t, nc, jetstream.KeyValueConfig{Bucket: "b", TTL: time.Second})
	put(t, kv, "a", "1")
	testx.Eventually(t, "the key runs out", 10*time.Second, func() bool {
		_, err := kv.Get(context.Background(), "a")
		return err != nil
	})
	_, m := watching(t, n.ClientURL(), "b", 200*time.Millisecond)
	testx.Eventually(t, "the bucket is read", 10*time.Second, func() bool { return m.readings() >= 1 })
	// The news of the first connect may come late and cause one more read.
	time.Sleep(time.Second) // see above
	before := m.readings()
	time.Sleep(3 * time.Second) // many audits: that nothing happens is what is tested
	if m.readings() != before {
		t.Fatalf("read %d times more", m.readings()-before)
	}
}
