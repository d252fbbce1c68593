package history_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/config"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/history"
)

func TestMain(m *testing.M) { testx.Main(m) }

// onBoth runs a test on both stores.
func onBoth(t *testing.T, f func(t *testing.T, sqlURL string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "history.db")) })
	t.Run("postgres", func(t *testing.T) { f(t, testx.Postgres(t)) })
}

// replica is a running service.
type replica struct {
	t    testx.TB
	svc  *history.Service
	reg  *prometheus.Registry
	stop func()
}

func settings(t testx.TB, natsURL, sqlURL string, change ...func(*history.Config)) history.Config {
	t.Helper()
	var cfg history.Config
	if err := config.Load(&cfg, nil, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatalf("defaults: %v", err)
	}
	cfg.NATS.URL, cfg.SQL.URL = natsURL, sqlURL
	cfg.Streams.MaxBytes = 64 << 20
	cfg.Lease = 2 * time.Second
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

// launch runs a service and does not wait for it to be ready.
func launch(t testx.TB, natsURL, sqlURL string, change ...func(*history.Config)) *replica {
	t.Helper()
	return launchVersion(t, 0, natsURL, sqlURL, change...)
}

// launchVersion is launch of a history that knows payloads up to a version; 0: up to the present one.
func launchVersion(t testx.TB, version int, natsURL, sqlURL string, change ...func(*history.Config)) *replica {
	t.Helper()
	r := &replica{t: t, reg: prometheus.NewRegistry()}
	var err error
	if r.svc, err = history.New(settings(t, natsURL, sqlURL, change...), history.Deps{Log: testx.Quiet(), Registry: r.reg, Version: version}); err != nil {
		t.Fatalf("new: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.svc.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Fatalf("run: %v", err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *replica) ready() *replica {
	r.t.Helper()
	testx.Eventually(r.t, "history is ready", 30*time.Second, func() bool { return r.svc.Ready() == nil })
	return r
}

// metric sums a counter or gauge over its labels.
func (r *replica) metric(name string) (sum float64) {
	r.t.Helper()
	fams, err := r.reg.Gather()
	if err != nil {
		r.t.Fatalf("gather: %v", err)
	}
	for _, f := range fams {
		if f.GetName() == "parley_history_"+name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return sum
		}
	}
	r.t.Fatalf("no metric %s", name)
	return 0
}

// client sends and asks like a gateway.
type client struct {
	t  testx.TB
	nc *nats.Conn
	js jetstream.JetStream
	p  int // partitions
}

func newClient(t testx.TB, url string, partitions int) *client {
	t.Helper()
	nc := testx.Connect(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("jetstream: %v", err)
	}
	return &client{t, nc, js, partitions}
}

// start runs NATS, one replica and a client.
func start(t testx.TB, sqlURL string, change ...func(*history.Config)) (*testx.Nats, *replica, *client) {
	t.Helper()
	n := testx.NatsServer(t)
	r := launch(t, n.ClientURL(), sqlURL, change...)
	r.ready()
	cfg := settings(t, "", sqlURL, change...)
	return n, r, newClient(t, n.ClientURL(), cfg.Streams.Partitions)
}

func pair(x, y string) room.Room {
	r, err := room.Of(x, y)
	if err != nil {
		panic(err) // the test is wrong
	}
	return r
}

func message(rm room.Room, sender, id, content string, partitions int) *nats.Msg {
	body, _ := json.Marshal(api.StoredPayload{V: api.PayloadVersion, Sender: sender, ID: id, Content: content}) // plain fields
	m := nats.NewMsg(subject.Publish(rm, subject.Partition(rm, partitions)))
	m.Header.Set(jetstream.MsgIDHeader, subject.MsgID(sender, id))
	m.Data = body
	return m
}

// send stores a message and returns its seq.
func (c *client) send(from, to, id, content string) int64 {
	c.t.Helper()
	rm := pair(from, to)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ack, err := c.js.PublishMsg(ctx, message(rm, from, id, content, c.p))
	if err != nil {
		c.t.Fatalf("publish: %v", err)
	}
	return int64(ack.Sequence)
}

// resend stores a message although its id is known, as NATS does after its dedupe window.
func (c *client) resend(from, to, id, content string) int64 {
	c.t.Helper()
	m := message(pair(from, to), from, id, content, c.p)
	m.Header.Del(jetstream.MsgIDHeader)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ack, err := c.js.PublishMsg(ctx, m)
	if err != nil {
		c.t.Fatalf("publish: %v", err)
	}
	return int64(ack.Sequence)
}

// burst stores n messages fast, ids prefix0, prefix1 ….
func (c *client) burst(from, to, prefix string, n int) {
	c.t.Helper()
	rm := pair(from, to)
	acks := make([]jetstream.PubAckFuture, n)
	for i := range n {
		if i >= 500 {
			c.acked(acks[i-500])
		}
		f, err := c.js.PublishMsgAsync(message(rm, from, fmt.Sprint(prefix, i), fmt.Sprint("text ", i), c.p))
		if err != nil {
			c.t.Fatalf("publish: %v", err)
		}
		acks[i] = f
	}
	for _, f := range acks[max(n-500, 0):] {
		c.acked(f)
	}
}

func (c *client) acked(f jetstream.PubAckFuture) {
	c.t.Helper()
	select {
	case <-f.Ok():
	case err := <-f.Err():
		c.t.Fatalf("publish: %v", err)
	case <-time.After(20 * time.Second):
		c.t.Fatalf("no ack")
	}
}

// ends are the last seqs of the streams.
func (c *client) ends() []int64 {
	c.t.Helper()
	out := make([]int64, c.p)
	for p := range out {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		s, err := c.js.Stream(ctx, subject.Stream(p))
		cancel()
		if err != nil {
			c.t.Fatalf("stream: %v", err)
		}
		out[p] = int64(s.CachedInfo().State.LastSeq)
	}
	return out
}

// settle waits until SQL has everything that the streams have.
func (c *client) settle() {
	c.t.Helper()
	want := c.ends()
	testx.Eventually(c.t, "SQL has everything", 60*time.Second, func() bool {
		resp, err := try(c, api.HistoryCatchUp, api.CatchUpRequest{MinApplied: want})
		return err == nil && !resp.Behind
	})
}

func try[Req, Resp any](c *client, e rpc.Endpoint[Req, Resp], req Req) (Resp, error) {
	return e.Call(context.Background(), rpc.Caller{Conn: c.nc, Timeout: 10 * time.Second}, req)
}

// ask makes a request that must succeed. On a machine that is so busy that SQL runs out of its time, the asker asks again, as gateways do.
func ask[Req, Resp any](c *client, e rpc.Endpoint[Req, Resp], req Req) (resp Resp) {
	c.t.Helper()
	var err error
	testx.Eventually(c.t, e.Subject+" answers", 60*time.Second, func() bool {
		resp, err = try(c, e, req)
		return codeOf(err) != wire.Unavailable
	})
	if err != nil {
		c.t.Fatalf("%s: %v", e.Subject, err)
	}
	return resp
}

func codeOf(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// refused makes a request, of any form, that must fail with this code.
func (c *client) refused(code wire.Code, subj string, req any) {
	c.t.Helper()
	if _, err := try(c, rpc.Endpoint[any, json.RawMessage]{Subject: subj}, req); codeOf(err) != code {
		c.t.Fatalf("%s answers %v, want %s", subj, err, code)
	}
}

// room reads all of a room by pages.
func (c *client) room(x, y string) (out []api.StoredMessage) {
	c.t.Helper()
	rm := pair(x, y)
	var after int64
	for {
		page := ask(c, api.HistoryPage, api.PageRequest{A: rm.A, B: rm.B, After: &after, Limit: 200})
		out = append(out, page.Messages...)
		if !page.More {
			return out
		}
		after = out[len(out)-1].Seq
	}
}

// catchUp reads all pages of one item.
func (c *client) catchUp(item api.CatchUpItem) (out []api.StoredMessage, pages int) {
	c.t.Helper()
	for {
		resp := ask(c, api.HistoryCatchUp, api.CatchUpRequest{Items: []api.CatchUpItem{item}})
		out = append(out, resp.Results[0].Messages...)
		pages++
		if item.Cont = resp.Results[0].Cont; item.Cont == "" {
			return out, pages
		}
	}
}

func seqs(ms []api.StoredMessage) (out []int64) {
	for _, m := range ms {
		out = append(out, m.Seq)
	}
	return out
}

// follow collects announcements of partition 0.
func (c *client) follow() <-chan api.Applied {
	c.t.Helper()
	ch := make(chan api.Applied, 1000)
	if _, err := c.nc.Subscribe(subject.AppliedPrefix+"0", func(m *nats.Msg) {
		var a api.Applied
		if json.Unmarshal(m.Data, &a) == nil {
			ch <- a
		}
	}); err != nil {
		c.t.Fatalf("subscribe: %v", err)
	}
	if err := c.nc.Flush(); err != nil {
		c.t.Fatalf("flush: %v", err)
	}
	return ch
}

func (c *client) partition(a, b string) int { return subject.Partition(room.Room{A: a, B: b}, c.p) }
