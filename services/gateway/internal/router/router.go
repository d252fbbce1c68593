// Package router knows which sessions of which users are on this gateway and brings them their messages, each once.
//
// Three sources meet in its one goroutine (Run): the stream's republished copies (fast, best effort), SQL's applied
// announcements (sure, a little later), and what the repair of a missing copy has fetched. One goroutine
// means that whatever was held against "seen" has also been handed to the sessions.
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
	"parley.example/pkg/rpc"
	"parley.example/services/gateway/internal/bus"
)

// Delivery is one stored message on its way to sessions. It is shared and must not be changed.
type Delivery struct {
	Room    room.Room
	P       int
	Message wire.Message // Late as of the first routing

	mu     sync.Mutex
	frames []frame
}

// frame is the message as somebody encodes it.
type frame struct {
	by    any
	bytes []byte
}

// Frame is the message encoded by encode, once for all recipients that are written to by the same one, a pointer.
func (d *Delivery) Frame(by any, encode func(*wire.Message) []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.frames {
		if d.frames[i].by == by {
			return d.frames[i].bytes
		}
	}
	b := encode(&d.Message)
	d.frames = append(d.frames, frame{by, b})
	return b
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
	// SubscribeUser has the copies of a user's rooms come by Copies until UnsubscribeUser.
	SubscribeUser(user string) error
	Copies() <-chan *bus.Raw
	UnsubscribeUser(user string)
}

type user struct {
	members []Member // replaced, never changed in place
}

// Router is one gateway's. Make it with New, then Prime, then Run.
type Router struct {
	src     Source
	history rpc.Caller
	log     *slog.Logger
	applied chan api.Applied
	fetched chan fetch

	mu    sync.RWMutex
	users map[string]*user

	parts    []partition
	primed   atomic.Bool
	lastSent *lru.LRU[room.Room, int64] // youngest seq routed per room, to know what is late

	m metrics
}

// partition: routed and verified are read by everybody, the rest belongs to Run.
type partition struct {
	routed   atomic.Int64 // nothing above it has been routed
	verified atomic.Int64 // everything up to it that concerns users here was routed, or they were not here yet
	seen     *seen
	highest  place // of the live copies
	// repairing: a fetch is under way; announcements wait in hold.
	repairing bool
	hold      []api.Applied
}

type metrics struct {
	routed, twins, repaired, holes, garbage prometheus.Counter
	late, stale                             prometheus.Counter
	delay                                   prometheus.Histogram
}

// rooms remembered to know what is late.
const lateRooms = 65536

// New makes a router; nothing happens before Run.
func New(src Source, history rpc.Caller, log *slog.Logger, reg prometheus.Registerer) *Router {
	l, _ := lru.NewLRU[room.Room, int64](lateRooms, nil) // fails for sizes below 1 only
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	r := &Router{
		src: src, history: history, log: log, users: map[string]*user{}, lastSent: l,
		applied: make(chan api.Applied, 256), fetched: make(chan fetch, api.MaxPartitions),
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
		r.parts[p].routed.Store(last[p])
		r.parts[p].verified.Store(last[p])
	}
	r.primed.Store(true)
}

// Primed reports whether Prime was called.
func (r *Router) Primed() bool { return r.primed.Load() }

// Partitions is P.
func (r *Router) Partitions() int { return len(r.parts) }

// Routed is, per partition, a seq above which nothing had been routed when it was called: a session that was added before
// gets everything above it live, and reads what lies at or below it from history. Before Prime it is nil.
func (r *Router) Routed() []int64 {
	if !r.primed.Load() {
		return nil
	}
	v := make([]int64, len(r.parts))
	for p := range r.parts {
		v[p] = r.parts[p].routed.Load()
	}
	return v
}

// Stored notes that a message is stored, which some session has heard before its copy came: Routed has it from now on.
func (r *Router) Stored(p int, seq int64) { r.parts[p].routedTo(seq) }

// routedTo moves routed up.
func (p *partition) routedTo(seq int64) {
	for {
		old := p.routed.Load()
		if seq <= old || p.routed.CompareAndSwap(old, seq) {
			return
		}
	}
}

// RoutedAt is Routed of one partition.
func (r *Router) RoutedAt(p int) int64 { return r.parts[p].routed.Load() }

// Verified is, per partition, the seq up to which history confirmed that nothing was missed here.
func (r *Router) Verified() []int64 {
	v := make([]int64, len(r.parts))
	for p := range r.parts {
		v[p] = r.parts[p].verified.Load()
	}
	return v
}

// VerifiedAt is Verified of one partition.
func (r *Router) VerifiedAt(p int) int64 { return r.parts[p].verified.Load() }

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
	copies := r.src.Copies()
	for {
		select {
		case m := <-copies:
			r.copy(m)
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

func (r *Router) copy(m *bus.Raw) {
	c, err := bus.Decode(m)
	if err != nil || c.Notice == nil && c.P >= len(r.parts) {
		r.m.garbage.Inc()
		return
	}
	if c.Notice != nil {
		// It comes once by each subscription that matches, and each serves its own user.
		for _, m := range r.Members(c.User) {
			m.Notify(c.Room, c.Notice)
		}
		return
	}
	part := &r.parts[c.P]
	if c.Seq < part.highest.seq && c.Time.After(part.highest.at.Add(clocks)) {
		// It was stored after one with a higher seq: an old copy of the stream was restored. Should clocks be to blame, the repair brings it.
		r.m.stale.Inc()
		return
	}
	if c.Seq > part.highest.seq {
		part.highest = place{c.Seq, c.Time}
	}
	// Before anybody looks for sessions: who is added after this sees the seq in Routed.
	part.routedTo(c.Seq)
	if !part.seen.add(c.Seq) {
		r.m.twins.Inc()
		return
	}
	d := &Delivery{Room: c.Room, P: c.P}
	if d.Message, err = c.Message(); err != nil {
		r.m.garbage.Inc()
		return
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
