// Package directory decides, at a gateway, who may talk to whom: it knows the registered form of names and the relations
// of the users who are connected here, both as auth has them. What it knows is at most about a minute old, and is
// used for longer only while auth cannot be reached: chat goes on then.
package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
)

// Subscriber brings auth's events; *bus.Bus does.
type Subscriber interface {
	Subscribe(subject string, f func(body []byte)) (unsubscribe func(), err error)
	OnReconnect(f func())
}

// Config of the caches.
type Config struct {
	Names int `cfg:"names-cached" default:"65536" help:"spellings of user names that a gateway remembers"`
}

// times are fields so that tests need not wait for them.
type times struct {
	fresh    time.Duration // how long the answer about a name is good
	negative time.Duration // the same of "nobody has it"
	patience time.Duration // how long a message waits for a fresh answer while there is an old one
	refresh  time.Duration // between two looks at the directory
	spread   time.Duration // over which a refresh of all relations is spread; with refresh it bounds their age
	retry    time.Duration // after a failure
	away     time.Duration // after a failure nobody else tries for so long
	call     time.Duration // at most for one call
}

var defaults = times{
	fresh: time.Minute, negative: 5 * time.Second, patience: 250 * time.Millisecond,
	refresh: 30 * time.Second, spread: 25 * time.Second, retry: time.Second, away: time.Second, call: 5 * time.Second,
}

const (
	maxEvents = 4096 // that wait; when there are more everything is read again
	maxCalls  = 16   // relations that are asked for at a time
	// maxReleased is how many users are remembered who left: should auth be away when they come back, this is what is known.
	maxReleased = 8192
)

// Directory is safe for concurrent use.
type Directory struct {
	auth  auth
	sub   Subscriber
	log   *slog.Logger
	times times
	m     metrics

	base   context.Context // of calls that several wait for
	cancel context.CancelFunc

	mode     atomic.Pointer[api.Mode]
	version  atomic.Int64 // of all relations, as the last look said
	counted  atomic.Int64 // events about who there is
	small    atomic.Pointer[list]
	wasSmall atomic.Bool

	names *cache[name]

	held     sync.Map // user → *entry
	mu       sync.Mutex
	released *lru.Cache[string, *relations]
	loads    loads // under mu

	events    chan api.DirectoryEvent
	again     chan struct{} // one token: look now
	listeners listeners
}

// listeners are told of what changes. They are set before Run.
type listeners struct {
	changed func(api.DirectoryEvent)
	listed  func(user, peer string, added bool)
	sight   func(user string)
}

// loads are the users whose relations are to be read.
type loads struct {
	queue   []*entry // now
	workers int
	failed  map[*entry]struct{} // again, soon
}

type metrics struct {
	lookups   *prometheus.CounterVec
	unchecked prometheus.Counter
}

// list is a whole directory; it is replaced, never changed.
type list struct {
	names  []string          // sorted
	folded map[string]string // to registered
	exact  map[string]struct{}
	limit  int
}

// New makes a Directory that knows nothing yet; Run fills it. Every call of services must end within a few seconds.
func New(services rpc.Caller, sub Subscriber, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Directory {
	if cfg.Names < 1 {
		cfg.Names = 65536
	}
	d := &Directory{
		auth: auth{services: services}, sub: sub, log: log, times: defaults, loads: loads{failed: map[*entry]struct{}{}},
		events: make(chan api.DirectoryEvent, maxEvents), again: make(chan struct{}, 1),
	}
	d.base, d.cancel = context.WithCancel(context.Background())
	d.auth.times = &d.times
	limit := func() (context.Context, context.CancelFunc) { return context.WithTimeout(d.base, d.times.call) }
	d.names = newCache(cfg.Names, d.auth.available, limit, func(n name) time.Duration {
		if n.registered == "" {
			return d.times.negative
		}
		return d.times.fresh
	})
	d.listeners = listeners{func(api.DirectoryEvent) {}, func(string, string, bool) {}, func(string) {}}
	d.released, _ = lru.New[string, *relations](maxReleased)
	unknown := api.Mode("")
	d.mode.Store(&unknown)
	d.m.lookups = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_gateway_names_asked_total", Help: "Questions to auth about a name, by answer."}, []string{"outcome"})
	for _, o := range []string{"ok", "unknown", "unavailable"} {
		d.m.lookups.WithLabelValues(o)
	}
	d.m.unchecked = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_unchecked_total", Help: "Permissions given without knowing who blocked whom, because auth was away."})
	reg.MustRegister(d.m.lookups, d.m.unchecked)
	return d
}

// OnChange calls fn for every event of auth, from one goroutine, after this Directory knows the change. Call it before Run.
func (d *Directory) OnChange(fn func(api.DirectoryEvent)) { d.listeners.changed = fn }

// OnListed calls fn when a peer appears in, or disappears from, a connected user's contacts, other than by a change of who there is at all. Whether
// an event says so or a look finds it makes no difference. fn must not block. Call it before Run.
func (d *Directory) OnListed(fn func(user, peer string, added bool)) {
	d.listeners.listed = fn
}

// OnSight calls fn when whose presence a connected user may see has changed, with "" when that may be so for all of them. fn must not wait
// for this Directory. Call it before Run.
func (d *Directory) OnSight(fn func(user string)) { d.listeners.sight = fn }

// looked sees whether the directory has become small or large.
func (d *Directory) looked() {
	if small := d.small.Load() != nil; d.wasSmall.Swap(small) != small {
		d.listeners.sight("")
	}
}

// Mode is "" until auth has said it.
func (d *Directory) Mode() api.Mode { return *d.mode.Load() }

// SmallDirectory is everybody, sorted by code point, while everybody is everybody's contact and they are few. The caller
// must not change it.
func (d *Directory) SmallDirectory() (names []string, ok bool) {
	l := d.small.Load()
	if l == nil || d.Mode() != api.Everyone {
		return nil, false
	}
	return l.names, true
}

// Run keeps everything fresh until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	defer d.cancel()
	unsubscribe, err := d.sub.Subscribe(subject.DirectoryEvents, d.event)
	if err != nil {
		return fmt.Errorf("follow the directory: %w", err)
	}
	defer unsubscribe()
	d.sub.OnReconnect(d.Look) // events were missed meanwhile

	var wg sync.WaitGroup
	wg.Go(func() { d.follow(ctx) })
	defer wg.Wait()

	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := time.NewTicker(d.times.retry)
	defer retry.Stop()
	var stale []*entry // whose relations are to be read again, some at each tick
	share := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.again:
			timer.Reset(0)
		case <-retry.C:
			d.retryFailed()
			n := min(share, len(stale))
			for _, e := range stale[:n] {
				d.load(e)
			}
			stale = stale[n:]
		case <-timer.C:
			urgent, rest, err := d.refresh(ctx)
			if err != nil {
				if ctx.Err() == nil {
					d.log.Warn("the directory could not be read; going on with what is known", "error", err)
				}
				timer.Reset(d.times.retry)
				continue
			}
			for _, e := range urgent {
				d.load(e)
			}
			stale = rest
			ticks := max(1, int(d.times.spread/d.times.retry))
			share = (len(stale) + ticks - 1) / ticks
			// Gateways that started together must not ask together for ever.
			timer.Reset(d.times.refresh - time.Duration(rand.Int64N(int64(d.times.refresh)/5+1)))
		}
	}
}

// Look has the directory read now: events may have been missed.
func (d *Directory) Look() {
	select {
	case d.again <- struct{}{}:
	default:
	}
}

// refresh looks at the directory. Urgent are those whose relations have changed, rest those of whom it is not known.
func (d *Directory) refresh(ctx context.Context) (urgent, rest []*entry, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.times.call)
	defer cancel()
	since, counted := d.version.Load(), d.counted.Load()
	r, err := api.AuthDirectory.Call(ctx, d.auth.services, api.DirectoryRequest{Since: since})
	if err != nil {
		return nil, nil, fmt.Errorf("ask for the directory: %w", err)
	}
	d.mode.Store(&r.Mode)
	d.version.Store(r.Version)
	urgent, rest = d.outdated(since, r)
	defer d.looked()
	old := d.small.Load()
	switch {
	case r.Total > r.Limit || len(r.Usernames) != r.Total:
		d.small.Store(nil)
	case d.counted.Load() != counted: // an event came meanwhile, which this answer may or may not know of
		d.Look()
	case d.small.CompareAndSwap(old, newList(r.Usernames, r.Limit)) && old != nil && r.Mode == api.Everyone:
		d.missed(old, d.small.Load())
	}
	return urgent, rest, nil
}

// missed tells of those who came and went without an event that was heard.
func (d *Directory) missed(old, now *list) {
	tell := func(kind string, names []string, known map[string]struct{}) {
		for _, n := range names {
			if _, ok := known[n]; !ok {
				d.listeners.changed(api.DirectoryEvent{Kind: kind, Username: n})
			}
		}
	}
	tell(api.EventRegistered, now.names, old.exact)
	tell(api.EventErased, old.names, now.exact)
}

func newList(names []string, limit int) *list {
	l := &list{names: slices.Clone(names), folded: make(map[string]string, len(names)), exact: make(map[string]struct{}, len(names)), limit: limit}
	slices.Sort(l.names)
	for _, n := range l.names {
		l.folded[room.Fold(n)] = n
		l.exact[n] = struct{}{}
	}
	return l
}

// event takes an event in; it does not block.
func (d *Directory) event(body []byte) {
	var e api.DirectoryEvent
	if err := json.Unmarshal(body, &e); err != nil || e.Username == "" {
		d.log.Error("an event of the directory could not be read", "error", err)
		return
	}
	select {
	case d.events <- e:
	default:
		d.Look()
	}
}

// follow brings events in, one after the other.
func (d *Directory) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-d.events:
			if d.apply(e) {
				d.listeners.changed(e)
			}
		}
	}
}

// apply takes a change in; it reports whether that is news.
func (d *Directory) apply(e api.DirectoryEvent) (news bool) {
	defer d.looked()
	switch e.Kind {
	case api.EventRegistered:
		d.counted.Add(1)
		d.names.put(e.Username, name{registered: e.Username})
		if l := d.small.Load(); l != nil {
			if _, ok := l.exact[e.Username]; ok {
				return false // a look was faster
			}
			next := newList(append(slices.Clone(l.names), e.Username), l.limit)
			if len(next.names) > next.limit {
				next = nil
			}
			d.small.CompareAndSwap(l, next) // a look meanwhile knows better
		}
	case api.EventErased:
		d.counted.Add(1)
		d.forget(e.Username)
		if l := d.small.Load(); l != nil {
			d.small.CompareAndSwap(l, newList(slices.DeleteFunc(slices.Clone(l.names), func(n string) bool { return n == e.Username }), l.limit))
		}
		d.reload(e.Username)
	default:
		d.reloadPair(e)
	}
	return true
}
