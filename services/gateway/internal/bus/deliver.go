package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
)

// Headers of republished messages, set by the server (nats-server, server/stream.go).
const (
	headerStream = "Nats-Stream"
	headerSeq    = "Nats-Sequence"
	headerLast   = "Nats-Last-Sequence"
	headerTime   = "Nats-Time-Stamp"
)

// deliverQueue is what nats.go may hold for us; it drops what does not fit, and the repair brings it.
const deliverQueue = 16384

// asB is how the subscription for rooms in which the user is the second begins.
const asB = subject.DeliverPrefix + "*."

// Copy is what came on a deliver subject.
type Copy struct {
	Subject  string
	AsB      bool // it came by the subscription for rooms in which the user is the second
	Body     []byte
	Stream   string    // "" for what is not stored
	Seq      int64     // of the stream
	LastSeq  int64     // the room's previous seq, 0 for none in the stream
	Time     time.Time // when it was stored
	Notified bool      // it is an api.Ephemeral
}

// Deliveries are the subscriptions of connected users, two each, all into one channel: no goroutine and no callback of their own.
type Deliveries struct {
	bus *Bus
	in  chan *nats.Msg

	mu   sync.Mutex
	subs map[string][2]*nats.Subscription
}

// Deliveries makes the set of subscriptions; Run forwards what they bring.
func (b *Bus) Deliveries() *Deliveries {
	return &Deliveries{bus: b, in: make(chan *nats.Msg, deliverQueue), subs: map[string][2]*nats.Subscription{}}
}

// SubscribeUser implements the router's Source.
func (d *Deliveries) SubscribeUser(user string) error {
	a, b := subject.DeliverTo(user)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.subs[user]; ok {
		return nil
	}
	sa, err := d.bus.nc.ChanSubscribe(a, d.in)
	if err != nil {
		return fmt.Errorf("subscribe for a user: %w", err)
	}
	sb, err := d.bus.nc.ChanSubscribe(b, d.in)
	if err != nil {
		_ = sa.Unsubscribe() // the connection is closed then
		return fmt.Errorf("subscribe for a user: %w", err)
	}
	d.subs[user] = [2]*nats.Subscription{sa, sb}
	return nil
}

// UnsubscribeUser implements the router's Source.
func (d *Deliveries) UnsubscribeUser(user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.subs[user] {
		if s != nil {
			_ = s.Unsubscribe() // fails on a closed connection only
		}
	}
	delete(d.subs, user)
}

// Run forwards copies to the router until ctx ends.
func (d *Deliveries) Run(ctx context.Context, to chan<- Copy) error {
	for {
		select {
		case m := <-d.in:
			c := Copy{Subject: m.Subject, Body: m.Data, AsB: strings.HasPrefix(m.Sub.Subject, asB)}
			if m.Header.Get(api.EphemeralHeader) != "" {
				c.Notified = true
			} else {
				c.Stream = m.Header.Get(headerStream)
				c.Seq, _ = strconv.ParseInt(m.Header.Get(headerSeq), 10, 64) // 0 is refused by the router
				c.LastSeq, _ = strconv.ParseInt(m.Header.Get(headerLast), 10, 64)
				c.Time, _ = time.Parse(time.RFC3339Nano, m.Header.Get(headerTime))
			}
			select {
			case to <- c:
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Notify tells the sessions of both users of a room what is not stored.
func (b *Bus) Notify(r room.Room, e api.Ephemeral) {
	body, _ := json.Marshal(e) // plain fields: cannot fail
	err := b.nc.PublishMsg(&nats.Msg{Subject: subject.Deliver(r), Header: nats.Header{api.EphemeralHeader: {"1"}}, Data: body})
	if err != nil {
		b.log.Debug("a notice was not sent", "event", e.Event, "error", err)
	}
}

// LastSeq is the youngest seq of a stream, from its leader.
func (b *Bus) LastSeq(ctx context.Context, p int) (int64, error) {
	msg, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+subject.Stream(p), nil)
	if err != nil {
		return 0, fmt.Errorf("ask for the state of the stream: %w", err)
	}
	var resp struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
		State struct {
			LastSeq int64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return 0, fmt.Errorf("decode the state of the stream: %w", err)
	}
	if resp.Error != nil {
		return 0, errors.New(resp.Error.Description)
	}
	return resp.State.LastSeq, nil
}
