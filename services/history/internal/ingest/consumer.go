package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Settings of a consumer.
const (
	prefetchBytes = 8 << 20         // what waits for SQL at most, together with the batch's number of messages
	heartbeat     = 2 * time.Second // missing twice: the consumer is gone
	pullExpiry    = 20 * time.Second
	forgotten     = time.Minute // the server drops a consumer that nobody pulls from
)

// consumer brings a stream's messages in order from one seq on. It is an ordered consumer of our own: it lives in memory on one server, acknowledges
// nothing, and at the first sign of trouble it is broken and thrown away, because a new one from SQL's position costs one request. nats.go's
// ordered consumer heals itself, but does so inside, without a word to who has to tell "idle" from "stuck".
type consumer struct {
	js       jetstream.JetStream
	stream   string
	messages chan jetstream.Msg
	broken   chan error
	done     chan struct{}

	delivered uint64 // consumer sequence of the last message taken from messages
	name      string
	cc        jetstream.ConsumeContext
}

func newConsumer(js jetstream.JetStream, stream string, batch int) *consumer {
	return &consumer{
		js: js, stream: stream, messages: make(chan jetstream.Msg, batch), broken: make(chan error, 1), done: make(chan struct{}),
	}
}

// open begins at seq first.
func (c *consumer) open(ctx context.Context, first int64) error {
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	cons, err := c.js.CreateConsumer(ctx, c.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(first), AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: forgotten,
	})
	if err != nil {
		return fmt.Errorf("consume %s: %w", c.stream, err)
	}
	c.name = cons.CachedInfo().Name
	c.cc, err = cons.Consume(func(m jetstream.Msg) {
		select {
		case c.messages <- m:
		case <-c.done:
		}
	}, jetstream.PullMaxMessagesWithBytesLimit(cap(c.messages), prefetchBytes), jetstream.PullHeartbeat(heartbeat), jetstream.PullExpiry(pullExpiry),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrMaxBytesExceeded) || errors.Is(err, jetstream.ErrBatchCompleted) {
				return // a pull request came to its end; the next one follows
			}
			select {
			case c.broken <- fmt.Errorf("consume %s: %w", c.stream, err):
			default:
			}
		}))
	if err != nil {
		return fmt.Errorf("consume %s: %w", c.stream, err)
	}
	return nil
}

// close ends it; the server forgets it at once if it can be reached.
func (c *consumer) close() {
	close(c.done)
	if c.cc != nil {
		c.cc.Stop()
		<-c.cc.Closed()
	}
	if c.name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
	defer cancel()
	_ = c.js.DeleteConsumer(ctx, c.stream, c.name) // or the server forgets it by itself
}
