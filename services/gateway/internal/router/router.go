// Package router knows which sessions of which users are on this gateway and brings them their messages, each once.
//
// Three sources meet in its one goroutine (Run): the stream's republished copies (fast, best effort), SQL's applied
// announcements (sure, a little later), and what the repair of a missing copy has fetched. One goroutine
// means that whatever was checked against "seen" has also been handed to the sessions.
package router

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/bus"
)

// Delivery is one stored message on its way to sessions. It is shared and must not be changed.
type Delivery struct {
	Room    room.Room
	P       int
	Message wire.Message // Late as of the first routing

	frames [formats]struct {
		once  sync.Once
		bytes []byte
	}
}

// Format is a way to encode a message.
type Format int

// The formats.
const (
	Native Format = iota
	SocketIO
	formats
)

// Frame is the message encoded by encode, once for all recipients of the format f.
func (d *Delivery) Frame(f Format, encode func(*wire.Message) []byte) []byte {
	e := &d.frames[f]
	e.once.Do(func() { e.bytes = encode(&d.Message) })
	return e.bytes
}

// Member is a session as the router sees it. Its methods must not block.
type Member interface {
	// Deliver hands over a message of a room of the member's user, which it may or may not have joined.
	Deliver(d *Delivery)
	// Notify hands over what is not stored: typing, read and delivered markers.
	Notify(r room.Room, e *api.Ephemeral)
}

// Source is what the router needs of the bus.
type Source interface {
	// SubscribeUser brings the copies of a user's rooms to Router.Copies until UnsubscribeUser.
	SubscribeUser(user string) error
	UnsubscribeUser(user string)
	// Rows and Messages ask history.
	Rows(ctx context.Context, req api.RowsRequest) (api.RowsResponse, error)
	Messages(ctx context.Context, req api.MessagesRequest) (api.MessagesResponse, error)
}

type user struct {
	members []Member // replaced, never changed in place
}

// Router is one gateway's. Make it with New, then Prime, then Run.
type Router struct {
	src     Source
	log     *slog.Logger
	copies  chan bus.Copy
	applied chan api.Applied
	fetched chan fetch

	mu    sync.RWMutex
	users map[string]*user

	parts    []partition
	primed   atomic.Bool
	lastSent *lru.LRU[room.Room, int64] // youngest seq routed per room, to know what is late

	m metrics
}

// partition: maxSeen and checked are read by everybody, the rest belongs to Run.
type partition struct {
	maxSeen atomic.Int64 // nothing above it has been routed
	checked atomic.Int64 // everything up to it that concerns users here was routed, or they were not here yet
	seen    *seen
	top     place // of the live copies; of router.Run's goroutine only
	// repairing: a fetch is under way; announcements wait in hold.
	repairing bool
	hold      []api.Applied
}

type metrics struct {
	routed, twins, repaired, holes, garbage prometheus.Counter
	late, stale                             prometheus.Counter
	delay                                   prometheus.Histogram
}

// copyQueue bounds what waits between NATS and the router; nats.go drops copies beyond it, and
// the repair brings them.
const copyQueue = 16384

// rooms remembered to know what is late.
const lateRooms = 65536

// New makes a router; nothing happens before Run.
func New(src Source, log *slog.Logger, reg prometheus.Registerer) *Router {
	l, _ := lru.NewLRU[room.Room, int64](lateRooms, nil) // fails for sizes below 1 only
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	r := &Router{
		src: src, log: log, users: map[string]*user{}, lastSent: l,
		copies: make(chan bus.Copy, copyQueue), applied: make(chan api.Applied, 256), fetched: make(chan fetch, api.MaxPartitions),
		m: metrics{
			routed:   counter("routed_total", "Messages routed to users of this gateway."),
			stale:    counter("stale_total", "Copies dropped because the stream has gone back: an old copy of it was restored."),
			twins:    counter("twins_total", "Copies dropped because the message was routed already."),
			repaired: counter("repaired_total", "Messages that came by SQL because their live copy did not."),
			holes:    counter("applied_holes_total", "Missing announcements of history that were asked for."),
			garbage:  counter("garbage_total", "Copies that could not be understood."),
			late:     counter("late_total", "Messages routed after a younger one of their room."),
			delay: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_gateway_delivery_seconds",
				Help: "From stored to routed.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}),
		},
	}
	reg.MustRegister(r.m.delay)
	return r
}

// Copies is where the bus puts what comes on deliver subjects.
func (r *Router) Copies() chan<- bus.Copy { return r.copies }

// Applied takes an announcement of history; it does not block. One that finds no room shows as a hole later.
func (r *Router) Applied(body []byte) {
	var a api.Applied
	if err := json.Unmarshal(body, &a); err != nil {
		r.m.garbage.Inc()
		return
	}
	select {
	case r.applied <- a:
	default:
	}
}

// Prime sets the number of partitions and where each stream stands. It comes before Run.
func (r *Router) Prime(last []int64) {
	r.parts = make([]partition, len(last))
	for p := range r.parts {
		r.parts[p].seen = newSeen()
		r.parts[p].maxSeen.Store(last[p])
		r.parts[p].checked.Store(last[p])
	}
	r.primed.Store(true)
}

// Primed reports whether Prime was called.
func (r *Router) Primed() bool { return r.primed.Load() }

// Partitions is P.
func (r *Router) Partitions() int { return len(r.parts) }

// Position is, per partition, a seq above which nothing had been routed when it was called: a session that was added before
// gets everything above it live, and reads what lies at or below it from history. Before Prime it is nil.
func (r *Router) Position() []int64 {
	if !r.primed.Load() {
		return nil
	}
	v := make([]int64, len(r.parts))
	for p := range r.parts {
		v[p] = r.parts[p].maxSeen.Load()
	}
	return v
}

// Stored notes that a message is stored, which some session has heard before its copy came: Position has it from now on.
func (r *Router) Stored(p int, seq int64) { r.parts[p].atLeast(seq) }

// atLeast moves maxSeen up.
func (p *partition) atLeast(seq int64) {
	for {
		old := p.maxSeen.Load()
		if seq <= old || p.maxSeen.CompareAndSwap(old, seq) {
			return
		}
	}
}

// PositionAt is Position of one partition.
func (r *Router) PositionAt(p int) int64 { return r.parts[p].maxSeen.Load() }

// Checked is, per partition, the seq up to which history confirmed that nothing was missed here.
func (r *Router) Checked() []int64 {
	v := make([]int64, len(r.parts))
	for p := range r.parts {
		v[p] = r.parts[p].checked.Load()
	}
	return v
}

// CheckedAt is Checked of one partition.
func (r *Router) CheckedAt(p int) int64 { return r.parts[p].checked.Load() }

// Add makes m a session of name. The first one of a user subscribes.
func (r *Router) Add(name string, m Member) error {
	r.mu.Lock()
	u := r.users[name]
	first := u == nil
	if first {
		u = &user{}
		r.users[name] = u
	}
	u.members = append(append(make([]Member, 0, len(u.members)+1), u.members...), m)
	r.mu.Unlock()
	if !first {
		return nil
	}
	// Not under the lock. A second session of the user may be added meanwhile: what it misses of the moment is repaired.
	return r.subscribe(name)
}

// subscribe makes the subscription of a user be there or not, as its sessions are. They may change meanwhile, and who changes them comes here
// as well: whoever is last finds it right, so nothing stays wrong.
func (r *Router) subscribe(name string) error {
	for {
		here := len(r.Members(name)) > 0
		if !here {
			r.src.UnsubscribeUser(name)
		} else if err := r.src.SubscribeUser(name); err != nil {
			return err
		}
		if here == (len(r.Members(name)) > 0) {
			return nil
		}
	}
}

// Remove takes m away. The last one of a user unsubscribes.
func (r *Router) Remove(name string, m Member) {
	r.mu.Lock()
	u := r.users[name]
	if u == nil {
		r.mu.Unlock()
		return
	}
	rest := make([]Member, 0, len(u.members))
	for _, x := range u.members {
		if x != m {
			rest = append(rest, x)
		}
	}
	u.members = rest
	last := len(rest) == 0
	if last {
		delete(r.users, name)
	}
	r.mu.Unlock()
	if last {
		_ = r.subscribe(name) // it fails on a closed connection only, and who was added meanwhile hears of that as well
	}
}

// Members are the sessions of a user here. The result must not be changed.
func (r *Router) Members(name string) []Member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if u := r.users[name]; u != nil {
		return u.members
	}
	return nil
}

// Users is the number of users with sessions here.
func (r *Router) Users() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.users)
}

// Run routes until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	var repairs sync.WaitGroup
	defer repairs.Wait()
	for {
		select {
		case c := <-r.copies:
			r.copy(c)
		case a := <-r.applied:
			r.announce(ctx, &repairs, a)
		case f := <-r.fetched:
			r.finish(ctx, &repairs, f)
		case <-ctx.Done():
			return nil
		}
	}
}

// place is a seq and when it was stored.
type place struct {
	seq int64
	at  time.Time
}

// clocks is how far those of two NATS nodes may be apart.
const clocks = 5 * time.Second

func (r *Router) copy(c bus.Copy) {
	rm, err := subject.ParseDeliver(c.Subject)
	if err != nil {
		r.m.garbage.Inc()
		return
	}
	if c.Notified {
		var e api.Ephemeral
		if json.Unmarshal(c.Body, &e) != nil {
			r.m.garbage.Inc()
			return
		}
		// It comes once by each subscription that matches, and each serves its own user.
		name := rm.A
		if c.AsB {
			name = rm.B
		}
		for _, m := range r.Members(name) {
			m.Notify(rm, &e)
		}
		return
	}
	p, ok := subject.StreamPartition(c.Stream)
	if !ok || p >= len(r.parts) || c.Seq <= 0 {
		r.m.garbage.Inc()
		return
	}
	part := &r.parts[p]
	if c.Seq < part.top.seq && c.Time.After(part.top.at.Add(clocks)) {
		// It was stored after one with a higher seq: an old copy of the stream was restored. Should clocks be to blame, the repair brings it.
		r.m.stale.Inc()
		return
	}
	if c.Seq > part.top.seq {
		part.top = place{c.Seq, c.Time}
	}
	// Before anybody looks for sessions: who is added after this sees the seq in Position.
	part.atLeast(c.Seq)
	if !part.seen.add(c.Seq) {
		r.m.twins.Inc()
		return
	}
	var body api.StoredPayload
	if json.Unmarshal(c.Body, &body) != nil || !rm.Has(body.Sender) {
		r.m.garbage.Inc()
		return
	}
	d := &Delivery{Room: rm, P: p, Message: wire.Message{
		Sender: body.Sender, Content: body.Content, Room: rm.String(), ID: body.ID, Seq: c.Seq, SentAt: wire.Timestamp{Time: c.Time},
	}}
	// 0 means "none in the stream", which may also be because it was purged: then only history knows.
	if c.LastSeq > 0 {
		d.Message.Prev = &c.LastSeq
	}
	r.m.delay.Observe(time.Since(c.Time).Seconds())
	r.route(d)
}

func (r *Router) route(d *Delivery) {
	if youngest, ok := r.lastSent.Get(d.Room); ok && youngest > d.Message.Seq {
		d.Message.Late = true
		r.m.late.Inc()
	} else {
		r.lastSent.Add(d.Room, d.Message.Seq)
	}
	r.m.routed.Inc()
	for _, m := range r.Members(d.Room.A) {
		m.Deliver(d)
	}
	for _, m := range r.Members(d.Room.B) {
		m.Deliver(d)
	}
}
