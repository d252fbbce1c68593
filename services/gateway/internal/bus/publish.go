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
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
)

// Outcomes of a publication that is not stored.
var (
	// ErrUnknown: it may be stored or not; the client asks again with the same id.
	ErrUnknown = wire.E(wire.Unavailable, "it is not known whether the message was stored; send it again with the same id and retry:true")
	// ErrFull: the stream takes nothing more until history has caught up.
	ErrFull = &wire.Error{Code: wire.Unavailable, Message: "messages cannot be stored now; try again later", RetryAfterMS: 5000}
	// errBack: the stream is an older one than before, and would give seqs a second time.
	errBack = wire.E(wire.Unavailable, "messages cannot be stored now; try again later")
	// ErrConflict: the sender used the id for something else.
	ErrConflict = wire.E(wire.IDConflict, "this id belongs to another message of yours")
)

// PublisherConfig has the times of a publication.
type PublisherConfig struct {
	Attempt  time.Duration // one try, until it is made again with the same Nats-Msg-Id
	GiveUp   time.Duration // all tries together; well inside the stream's dedupe window
	Offline  time.Duration // how long to wait for NATS to come back before saying unavailable
	CopyWait time.Duration // from the ack until the copy is fetched and delivered by ourselves
	Unready  time.Duration // how long a stream may store nothing of what is published until Ready says so
}

// DefaultPublisher are the times for production.
var DefaultPublisher = PublisherConfig{Attempt: 1500 * time.Millisecond, GiveUp: 8 * time.Second, Offline: 2 * time.Second, CopyWait: 300 * time.Millisecond, Unready: 10 * time.Second}

// Publication is one message on its way into the stream.
type Publication struct {
	Room    room.Room
	P       int
	Sender  string
	ID      string
	Content string
	After   int64 // the stream was known to reach this seq before: a new message gets a higher one

	// Done is called once, with the message as stored or with an error, and never under a lock. It is not called after Copied.
	Done func(m *wire.Message, err error)

	pub     *Publisher
	key     uint64
	payload []byte
	started time.Time
	tried   time.Time
	unsure  bool // an attempt went out whose outcome never came
	acked   time.Time
	seq     uint64
	dup     bool
	busy    bool // a goroutine reads the stored message
}

// Publisher stores messages. Its acks come on one subscription, and one goroutine (Run) sees to late ones.
type Publisher struct {
	bus    *Bus
	cfg    PublisherConfig
	prefix string // of the reply subjects
	refuse func() error

	mu   sync.Mutex
	next uint64
	open map[uint64]*Publication

	unstored *unstored

	stored, retried, failed, byHand prometheus.Counter
	latency                         prometheus.Histogram
}

// NewPublisher subscribes to the acks. While refuse returns an error, that is the outcome of what is published.
func NewPublisher(b *Bus, cfg PublisherConfig, refuse func() error, reg prometheus.Registerer) (*Publisher, error) {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_publish_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	p := &Publisher{
		bus: b, cfg: cfg, refuse: refuse, prefix: b.nc.NewInbox() + ".", open: map[uint64]*Publication{}, unstored: newUnstored(),
		stored:  counter("stored_total", "Messages that were stored: the stream acknowledged them, or their copy came first."),
		retried: counter("retried_total", "Attempts repeated because no ack came."),
		failed:  counter("failed_total", "Messages answered with unavailable or id_conflict."),
		byHand:  counter("by_hand_total", "Messages delivered by the gateway because the republished copy did not come."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_gateway_accept_seconds",
			Help: "From published to accepted.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}),
	}
	reg.MustRegister(p.latency, p.unstored)
	if _, err := b.nc.Subscribe(p.prefix+"*", p.ack); err != nil {
		return nil, fmt.Errorf("subscribe to acks: %w", err)
	}
	return p, nil
}

// New makes a publication, which Publish starts.
func (p *Publisher) New(m Publication) *Publication {
	m.pub = p
	return &m
}

// Publish starts a publication that New made; Done tells its end unless Copied comes first.
func (p *Publisher) Publish(m *Publication) {
	if err := p.refuse(); err != nil {
		p.failed.Inc()
		m.Done(nil, err)
		return
	}
	// The fields are plain strings: this cannot fail.
	m.payload, _ = json.Marshal(api.StoredPayload{V: api.PayloadVersion, Sender: m.Sender, ID: m.ID, Content: m.Content})
	now := time.Now()
	p.mu.Lock()
	p.next++
	m.key, m.started, m.tried = p.next, now, now
	p.open[m.key] = m
	p.mu.Unlock()
	p.send(m)
}

// Copied ends the publication because its own republished copy has come. It reports false when it had ended before.
func (m *Publication) Copied() bool {
	if !m.pub.take(m) {
		return false
	}
	if m.acked.IsZero() { // the ack comes too late to be counted
		m.pub.stored.Inc()
		m.pub.unstored.stored(m.P)
	}
	m.pub.latency.Observe(time.Since(m.started).Seconds())
	return true
}

func (p *Publisher) take(m *Publication) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[m.key] != m {
		return false
	}
	delete(p.open, m.key)
	return true
}

// InFlight is the number of publications without an outcome.
func (p *Publisher) InFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

func (p *Publisher) send(m *Publication) {
	msg := &nats.Msg{
		Subject: subject.Publish(m.Room, m.P),
		Reply:   p.prefix + strconv.FormatUint(m.key, 36),
		Header:  nats.Header{jetstream.MsgIDHeader: {subject.MsgID(m.Sender, m.ID)}},
		Data:    m.payload,
	}
	// Not connected: the sweeper tries again.
	if err := p.bus.nc.PublishMsg(msg); err == nil {
		p.mu.Lock()
		m.unsure = true
		p.mu.Unlock()
	}
}

// pubAck is JetStream's answer to a published message.
type pubAck struct {
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
}

// ack runs in the subscription's goroutine.
func (p *Publisher) ack(msg *nats.Msg) {
	var a pubAck
	if len(msg.Data) == 0 {
		return // 503, nobody listens: the stream has no leader now; the sweeper tries again
	}
	if json.Unmarshal(msg.Data, &a) != nil {
		return
	}
	rest := strings.TrimPrefix(msg.Subject, p.prefix)
	if partition, ok := strings.CutPrefix(rest, probeReply); ok {
		p.probed(partition, a)
		return
	}
	key, err := strconv.ParseUint(rest, 36, 64)
	if err != nil {
		return
	}
	p.mu.Lock()
	m := p.open[key]
	if m == nil || !m.acked.IsZero() {
		p.mu.Unlock()
		return
	}
	if a.Error != nil {
		if !definite(a.Error) {
			p.mu.Unlock()
			return // the sweeper tries again
		}
		delete(p.open, key)
		p.mu.Unlock()
		p.failed.Inc()
		p.unstored.failed(m.P, m.started)
		p.bus.log.Warn("the stream refused a message", "partition", m.P, "error", a.Error)
		m.Done(nil, ErrFull)
		return
	}
	if !a.Duplicate && int64(a.Seq) <= m.After {
		// An old copy of the stream was restored. History will refuse it; until then, what it stores must not count as accepted.
		delete(p.open, key)
		p.mu.Unlock()
		p.failed.Inc()
		p.unstored.failed(m.P, m.started)
		p.bus.log.Error("the stream has gone back; nothing can be accepted", "partition", m.P, "seq", a.Seq, "known", m.After)
		m.Done(nil, errBack)
		return
	}
	m.acked, m.seq, m.dup = time.Now(), a.Seq, a.Duplicate
	dup := a.Duplicate
	if dup {
		m.busy = true // its copy went out with the first one: read what is stored
	}
	p.mu.Unlock()
	p.stored.Inc()
	if !dup { // a duplicate was stored at another time
		p.unstored.stored(m.P)
	}
	if dup {
		go p.fetch(m)
	}
}

// definite reports whether the server said that it will not store this, so that trying again is pointless now.
func definite(e *jetstream.APIError) bool {
	switch e.ErrorCode {
	case 10077, // maximum bytes exceeded (DiscardNew)
		10122, // maximum messages exceeded
		10023, // insufficient storage resources
		10047: // resource limits exceeded for the account
		return true
	}
	return strings.Contains(e.Description, "maximum") || strings.Contains(e.Description, "insufficient")
}

// sweepEvery is the sweeper's resolution.
const sweepEvery = 50 * time.Millisecond

// Run sees to publications without an outcome until ctx ends; those open then are given up.
func (p *Publisher) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	probes := time.NewTicker(probeEvery)
	defer probes.Stop()
	for {
		select {
		case <-t.C:
			p.sweep(time.Now())
		case <-probes.C:
			p.probe()
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Publisher) sweep(now time.Time) {
	connected := p.bus.nc.IsConnected()
	var again, read, lost []*Publication
	p.mu.Lock()
	for key, m := range p.open {
		switch {
		case m.busy:
		case !m.acked.IsZero():
			if now.Sub(m.acked) >= p.cfg.CopyWait {
				m.busy = true
				read = append(read, m)
			}
		case now.Sub(m.started) >= p.cfg.GiveUp, !connected && now.Sub(m.started) >= p.cfg.Offline:
			delete(p.open, key)
			p.unstored.failed(m.P, m.started)
			lost = append(lost, m)
		case !m.unsure && connected, now.Sub(m.tried) >= p.cfg.Attempt:
			if now.Sub(m.started) >= p.cfg.Attempt {
				p.unstored.failed(m.P, m.started)
			}
			m.tried = now
			again = append(again, m)
		}
	}
	p.mu.Unlock()
	for _, m := range again {
		p.retried.Inc()
		p.send(m)
	}
	for _, m := range read {
		go p.fetch(m)
	}
	for _, m := range lost {
		p.failed.Inc()
		m.Done(nil, ErrUnknown)
	}
}

// fetch reads the stored message by seq and accepts it. When the republished copy did not come, it is put on
// the deliver subject by hand, for the other gateways' sake.
func (p *Publisher) fetch(m *Publication) {
	// While this tries, the client waits; beyond the give-up time it hears unavailable and asks again.
	ctx, cancel := context.WithDeadline(context.Background(), m.started.Add(p.cfg.GiveUp+p.cfg.Attempt))
	defer cancel()
	var raw *jetstream.RawStreamMsg
	for {
		var err error
		raw, err = p.bus.message(ctx, m.P, m.seq)
		if err == nil {
			break
		}
		if errors.Is(err, jetstream.ErrMsgNotFound) && m.dup {
			break // purged since: it is in SQL, and the client's retry:true finds it there
		}
		select {
		case <-time.After(100 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		break
	}
	if raw == nil {
		if p.take(m) {
			p.failed.Inc()
			m.Done(nil, ErrUnknown)
		}
		return
	}
	_, rm, err := subject.ParsePublish(raw.Subject)
	var body api.StoredPayload
	if err != nil || json.Unmarshal(raw.Data, &body) != nil || rm != m.Room || body.Content != m.Content || body.Sender != m.Sender {
		if p.take(m) {
			p.failed.Inc()
			m.Done(nil, ErrConflict)
		}
		return
	}
	// What an older stream stored a moment ago is a duplicate as well when it is sent again.
	if m.dup && int64(m.seq) <= m.After {
		if last, err := p.bus.LastSeq(ctx, m.P); err != nil || last < m.After {
			if p.take(m) {
				p.failed.Inc()
				m.Done(nil, errBack)
			}
			return
		}
	}
	if !m.dup {
		p.byHand.Inc()
		p.bus.redeliver(m.Room, m.P, raw)
	}
	if p.take(m) {
		p.latency.Observe(time.Since(m.started).Seconds())
		m.Done(&wire.Message{Sender: m.Sender, Content: m.Content, Room: m.Room.String(), ID: m.ID, Seq: int64(raw.Sequence),
			SentAt: wire.Timestamp{Time: raw.Time}}, nil)
	}
}

// message reads one stored message from the stream's leader: a follower may not have it yet.
func (b *Bus) message(ctx context.Context, p int, seq uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, _ := json.Marshal(map[string]uint64{"seq": seq}) // cannot fail
	msg, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+subject.Stream(p), req)
	if err != nil {
		return nil, fmt.Errorf("read a message of the stream: %w", err)
	}
	var resp struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return nil, fmt.Errorf("decode a message of the stream: %w", err)
	}
	if resp.Error != nil {
		if resp.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil, jetstream.ErrMsgNotFound
		}
		return nil, resp.Error
	}
	if resp.Message == nil {
		return nil, jetstream.ErrMsgNotFound
	}
	m := resp.Message
	return &jetstream.RawStreamMsg{Subject: m.Subject, Sequence: m.Seq, Data: m.Data, Time: m.Time}, nil
}

// redeliver does what the stream's republish failed to do. The room's previous seq is not known here.
func (b *Bus) redeliver(r room.Room, p int, raw *jetstream.RawStreamMsg) {
	err := b.nc.PublishMsg(NewRaw(r, p, int64(raw.Sequence), 0, raw.Time, raw.Data))
	if err != nil {
		b.log.Debug("redelivery failed; the repair brings it", "error", err)
	}
}
