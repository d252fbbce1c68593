package bus

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
)

var avisLisa = room.Room{A: "Avi", B: "Lisa"}

// stream makes a ROOMS_0 as history does; change may adapt it.
func stream(t *testing.T, nc *nats.Conn, change func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	cfg := jetstream.StreamConfig{
		Name: subject.Stream(0), Subjects: []string{subject.StreamFilter(0)}, Discard: jetstream.DiscardNew, Duplicates: 10 * time.Second,
		RePublish: &jetstream.RePublish{Source: subject.StreamFilter(0), Destination: "deliver.{{wildcard(1)}}.{{wildcard(2)}}"},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := js.CreateStream(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type outcome struct {
	m   *wire.Message
	err error
}

// publisher starts a Publisher with short times on a server of its own.
func publisher(t *testing.T, url string) (*Bus, *Publisher) {
	t.Helper()
	b, err := Open(natsconn.Config{URL: url}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	p, err := NewPublisher(b, PublisherConfig{Attempt: 200 * time.Millisecond, GiveUp: 3 * time.Second, Offline: 500 * time.Millisecond, CopyWait: 50 * time.Millisecond},
		func() error { return nil }, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return b, p
}

func publish(p *Publisher, sender, id, content string, r room.Room) (*Publication, <-chan outcome) {
	ch := make(chan outcome, 2)
	m := p.New(Publication{Room: r, Sender: sender, ID: id, Content: content, Done: func(m *wire.Message, err error) { ch <- outcome{m, err} }})
	p.Publish(m)
	return m, ch
}

func get(t *testing.T, ch <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-ch:
		return o
	case <-time.After(20 * time.Second):
		t.Fatal("no outcome")
		return outcome{}
	}
}

func TestPublishAcceptedOnTheOwnCopy(t *testing.T) {
	n := testx.NatsServer(t)
	stream(t, n.Connect(), nil)
	b, p := publisher(t, n.ClientURL())
	d := b.Deliveries()
	if err := d.SubscribeUser("Lisa"); err != nil {
		t.Fatal(err)
	}
	defer d.UnsubscribeUser("Lisa")
	m, ch := publish(p, "Lisa", "1", "hi", avisLisa)
	c, err := Decode(<-d.Copies())
	if err != nil || c.Seq != 1 || c.Prev != 0 || c.P != 0 || c.User != "Lisa" || c.Room != avisLisa || c.Notice != nil || c.Time.IsZero() {
		t.Fatalf("got %+v, %v", c, err)
	}
	if got, err := c.Message(); err != nil || got.Sender != "Lisa" || got.ID != "1" || got.Content != "hi" || got.Prev != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !m.Copied() || m.Copied() || p.InFlight() != 0 {
		t.Fatal("the first copy ends it, the second does not")
	}
	select {
	case o := <-ch:
		t.Fatalf("Done after Copied: %+v", o)
	default:
	}
}

func TestPublishWithoutCopyIsDeliveredByHand(t *testing.T) {
	n := testx.NatsServer(t)
	stream(t, n.Connect(), func(c *jetstream.StreamConfig) { c.RePublish = nil }) // as if the copy were lost
	_, p := publisher(t, n.ClientURL())
	sub, err := n.Connect().SubscribeSync("deliver.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	nc := n.Connect()
	if sub, err = nc.SubscribeSync("deliver.>"); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	_, ch := publish(p, "Lisa", "1", "hi", avisLisa)
	o := get(t, ch)
	if o.err != nil || o.m.Seq != 1 || o.m.Room != "Avi&Lisa" || o.m.SentAt.IsZero() || o.m.Prev != nil {
		t.Fatalf("got %+v", o)
	}
	msg, err := sub.NextMsg(10 * time.Second)
	if err != nil || msg.Subject != "deliver.Avi.Lisa" || msg.Header.Get(headerSeq) != "1" {
		t.Fatalf("got %+v %v", msg, err)
	}
}

func TestPublishSameIDAgain(t *testing.T) {
	n := testx.NatsServer(t)
	s := stream(t, n.Connect(), nil)
	_, p := publisher(t, n.ClientURL())
	_, ch := publish(p, "Lisa", "1", "hi", avisLisa)
	first := get(t, ch)
	_, ch = publish(p, "Lisa", "1", "hi", avisLisa)
	if again := get(t, ch); again.err != nil || again.m.Seq != first.m.Seq {
		t.Fatalf("re-sent: %+v", again)
	}
	_, ch = publish(p, "Lisa", "1", "something else", avisLisa)
	if o := get(t, ch); o.err != ErrConflict {
		t.Fatalf("other content: %+v", o)
	}
	_, ch = publish(p, "Lisa", "1", "hi", room.Room{A: "Era", B: "Lisa"})
	if o := get(t, ch); o.err != ErrConflict {
		t.Fatalf("other room: %+v", o)
	}
	// Another user's message with the same id is nobody's business.
	_, ch = publish(p, "Avi", "1", "hi", avisLisa)
	if o := get(t, ch); o.err != nil || o.m.Seq == first.m.Seq {
		t.Fatalf("other sender: %+v", o)
	}
	info, err := s.Info(context.Background())
	if err != nil || info.State.Msgs != 2 {
		t.Fatalf("%d stored, %v", info.State.Msgs, err)
	}
}

func TestPublishOnAFullStreamIsUnavailableAtOnce(t *testing.T) {
	n := testx.NatsServer(t)
	stream(t, n.Connect(), func(c *jetstream.StreamConfig) { c.MaxBytes = 2000 })
	_, p := publisher(t, n.ClientURL())
	for i := range 100 {
		_, ch := publish(p, "Lisa", fmt.Sprint(i), "some content that fills the stream", avisLisa)
		if o := get(t, ch); o.err == ErrFull {
			return
		} else if o.err != nil {
			t.Fatal(o.err)
		}
	}
	t.Fatal("it never filled")
}

func TestPublishNatsAwayAndBack(t *testing.T) {
	n := testx.NatsServer(t)
	s := stream(t, n.Connect(), nil)
	b, p := publisher(t, n.ClientURL())
	n.Stop()
	testx.Eventually(t, "the client notices", 10*time.Second, func() bool { return !b.Connected() })
	_, ch := publish(p, "Lisa", "lost", "hi", avisLisa)
	if o := get(t, ch); o.err != ErrUnknown {
		t.Fatalf("got %+v", o)
	}
	_, ch = publish(p, "Lisa", "waits", "hi", avisLisa) // within the offline time it is kept
	n.Restart()
	o := get(t, ch)
	for i := 0; o.err != nil && i < 50; i++ { // the machine may be slow to restart: then the client sends again
		_, ch = publish(p, "Lisa", "waits", "hi", avisLisa)
		o = get(t, ch)
	}
	if o.err != nil {
		t.Fatal("it does not come back")
	}
	info, err := s.Info(context.Background())
	if err != nil || info.State.Msgs != 1 {
		t.Fatalf("%d stored, %v: what was reported as failed must not be stored later", info.State.Msgs, err)
	}
}

func TestPublishLostAckIsRetriedAndStoredOnce(t *testing.T) {
	n := testx.NatsServer(t)
	nc := n.Connect()
	_, p := publisher(t, n.ClientURL())
	// No stream yet: the first attempts find nobody.
	_, ch := publish(p, "Lisa", "1", "hi", avisLisa)
	testx.Eventually(t, "it is tried again", 10*time.Second, func() bool { return counter(p.retried) > 1 })
	s := stream(t, nc, nil)
	if o := get(t, ch); o.err != nil {
		t.Fatal(o.err)
	}
	info, _ := s.Info(context.Background())
	if info.State.Msgs != 1 {
		t.Fatalf("%d stored", info.State.Msgs)
	}
}

func TestPublishConcurrently(t *testing.T) {
	n := testx.NatsServer(t)
	st := stream(t, n.Connect(), nil)
	_, p := publisher(t, n.ClientURL())
	const messages = 500
	var all []<-chan outcome
	for i := range messages {
		_, ch := publish(p, "Lisa", fmt.Sprint(i), "hi", avisLisa)
		all = append(all, ch)
	}
	seqs := map[int64]bool{}
	for i, ch := range all {
		o := get(t, ch)
		for o.err == ErrUnknown { // the machine is slow: the client sends again
			_, ch = publish(p, "Lisa", fmt.Sprint(i), "hi", avisLisa)
			o = get(t, ch)
		}
		if o.err != nil || seqs[o.m.Seq] {
			t.Fatalf("got %+v, %v", o.m, o.err)
		}
		seqs[o.m.Seq] = true
	}
	info, err := st.Info(t.Context())
	if err != nil || info.State.Msgs != messages || p.InFlight() != 0 {
		t.Fatalf("%d stored, %d still in flight, %v", info.State.Msgs, p.InFlight(), err)
	}
}

// A stream that was restored from an old copy gives seqs a second time: what it stores is not accepted.
func TestPublishOnAStreamThatWentBack(t *testing.T) {
	n := testx.NatsServer(t)
	stream(t, n.Connect(), nil)
	_, p := publisher(t, n.ClientURL())
	ch := make(chan outcome, 2)
	p.Publish(p.New(Publication{Room: avisLisa, Sender: "Lisa", ID: "1", Content: "hi", After: 5, Done: func(m *wire.Message, err error) { ch <- outcome{m, err} }}))
	if o := get(t, ch); o.m != nil || o.err != errBack || p.InFlight() != 0 {
		t.Fatalf("got %+v, %v", o.m, o.err)
	}
	// It is there now, but sending it again does not make it accepted.
	again := func() outcome {
		p.Publish(p.New(Publication{Room: avisLisa, Sender: "Lisa", ID: "1", Content: "hi", After: 5, Done: func(m *wire.Message, err error) { ch <- outcome{m, err} }}))
		return get(t, ch)
	}
	if o := again(); o.err != errBack {
		t.Fatalf("got %+v, %v", o.m, o.err)
	}
	// In a stream that reaches what was known, a message of before is known by its id.
	for i := range 5 {
		_, other := publish(p, "Avi", fmt.Sprint(i), "ho", avisLisa)
		get(t, other)
	}
	if o := again(); o.err != nil || o.m.Seq != 1 {
		t.Fatalf("got %+v, %v", o.m, o.err)
	}
}

// TestPublishRefused: while nothing may be stored, nothing is published, and the sender hears why.
func TestPublishRefused(t *testing.T) {
	t.Parallel()
	ns := testx.NatsServer(t)
	b, p := publisher(t, ns.ClientURL())
	heard, err := b.nc.SubscribeSync(subject.RoomPrefix + ">")
	if err != nil {
		t.Fatal(err)
	}
	full := wire.E(wire.Unavailable, "the disk is full")
	p.refuse = func() error { return full }
	m, ch := publish(p, "Avi", "1", "text", avisLisa)
	if o := get(t, ch); o.m != nil || !errors.Is(o.err, full) {
		t.Errorf("%+v", o)
	}
	if p.InFlight() != 0 || m.Copied() {
		t.Error("it is still under way")
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := heard.Pending(); n != 0 {
		t.Error("it was published")
	}
}
