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

	"parley.example/client/wire"
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

// Raw is what came on a deliver subject, not decoded yet.
type Raw = nats.Msg

// Copy is what came on a deliver subject: a message as it was stored, or a notice, which is not stored.
type Copy struct {
	Room   room.Room
	User   string         // whose subscription brought it
	Notice *api.Ephemeral // nil: a message, which the rest is about

	P    int
	Seq  int64
	Prev int64     // the room's previous seq, 0 for none in the stream
	Time time.Time // when it was stored

	payload []byte
}

var errGarbage = errors.New("no copy of a message, and no notice")

// Decode reads what came. The message itself is left to Message: of two copies one is not looked into.
func Decode(m *Raw) (c Copy, err error) {
	if c.Room, err = subject.ParseDeliver(m.Subject); err != nil {
		return c, errGarbage
	}
	c.User = c.Room.A
	if m.Sub != nil && strings.HasPrefix(m.Sub.Subject, asB) {
		c.User = c.Room.B
	}
	if m.Header.Get(api.EphemeralHeader) != "" {
		c.Notice = new(api.Ephemeral)
		if json.Unmarshal(m.Data, c.Notice) != nil {
			return c, errGarbage
		}
		return c, nil
	}
	var ok bool
	c.P, ok = subject.StreamPartition(m.Header.Get(headerStream))
	c.Seq, _ = strconv.ParseInt(m.Header.Get(headerSeq), 10, 64) // 0, which is no seq, when it cannot be read
	c.Prev, _ = strconv.ParseInt(m.Header.Get(headerLast), 10, 64)
	c.Time, _ = time.Parse(time.RFC3339Nano, m.Header.Get(headerTime))
	if !ok || c.Seq <= 0 {
		return c, errGarbage
	}
	c.payload = m.Data
	return c, nil
}

// Message decodes the message.
func (c *Copy) Message() (m wire.Message, err error) {
	var body api.StoredPayload
	if json.Unmarshal(c.payload, &body) != nil || !c.Room.Has(body.Sender) {
		return m, errGarbage
	}
	m = wire.Message{Sender: body.Sender, Content: body.Content, Room: c.Room.String(), ID: body.ID, Seq: c.Seq, SentAt: wire.Timestamp{Time: c.Time}}
	// 0 means "none in the stream", which may also be because it was purged: then only history knows.
	if c.Prev > 0 {
		m.Prev = &c.Prev
	}
	return m, nil
}

// NewRaw is a copy as the stream republishes it; prev is left out when it is 0.
func NewRaw(r room.Room, p int, seq, prev int64, at time.Time, payload []byte) *Raw {
	h := nats.Header{
		headerStream: {subject.Stream(p)}, headerSeq: {strconv.FormatInt(seq, 10)}, headerTime: {at.UTC().Format(time.RFC3339Nano)},
	}
	if prev > 0 {
		h[headerLast] = []string{strconv.FormatInt(prev, 10)}
	}
	return &Raw{Subject: subject.Deliver(r), Header: h, Data: payload}
}

// Deliveries are the subscriptions of connected users, two each, all into one channel: no goroutine and no callback of their own.
type Deliveries struct {
	bus *Bus
	in  chan *Raw

	mu   sync.Mutex
	subs map[string][2]*nats.Subscription
}

// Deliveries makes the set of subscriptions; Copies has what they bring.
func (b *Bus) Deliveries() *Deliveries {
	return &Deliveries{bus: b, in: make(chan *Raw, deliverQueue), subs: map[string][2]*nats.Subscription{}}
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

// Copies implements the router's Source: the one queue between NATS and the router.
func (d *Deliveries) Copies() <-chan *Raw { return d.in }

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
