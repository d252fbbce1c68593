// Package marks tells the sessions here how far the users of their rooms have received and read. History announces every move; the
// announcements of each of its replicas are a chain. A hole in a chain, silence, or a reconnect means that some were not heard: then history is
// asked which marks have moved since, and those are told. A mark only moves forward: what is not above what was told of it is not told.
package marks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/router"
)

// Bus brings announcements; *bus.Bus does.
type Bus interface {
	Subscribe(subject string, f func(body []byte)) (unsubscribe func(), err error)
	OnReconnect(f func())
}

// Members are the sessions here; *router.Router has them.
type Members interface {
	Members(user string) []router.Member
	Users() int
}

// Deps are the parts that a Tracker works with.
type Deps struct {
	Bus     Bus
	Ask     func(context.Context, api.MarksRequest) (api.MarksResponse, error)
	Members Members
	// Deaf is called when announcements were lost: others may have lost something as well. It must not block.
	Deaf     func()
	Log      *slog.Logger
	Registry prometheus.Registerer
}

const (
	queueLength = 4096             // announcements that wait; one that does not fit shows as a hole
	silence     = 3 * time.Second  // a chain that lives says something every second
	margin      = 10 * time.Second // a mark's time is that of its writing, and it counts from the commit on; history gives one 3 s
	stranger    = 5 * time.Minute  // what is asked for when a chain appears whose beginning was not heard
	maxChains   = 256
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 2 * time.Second
	maxPairs    = 1000 // of one question
	remembered  = 16384
)

// Tracker is one gateway's.
type Tracker struct {
	Deps
	in     chan api.Marks
	asks   chan struct{} // one token: since or pairs are set
	chains map[string]*chain
	m      metrics

	telling sync.Mutex // held while a mark is told, so that an older one never comes after it; before router.users

	mu    sync.Mutex
	last  time.Time // when anything was heard
	since time.Time // what moved since then is to be asked for; zero: nothing
	pairs map[api.Pair]struct{}
	told  *lru.LRU[markKey, int64]
}

// markKey names one mark.
type markKey struct{ event, user, peer string }

type chain struct {
	at     int64
	heard  time.Time
	silent bool
}

type metrics struct {
	lost, asked prometheus.Counter
}

// New makes a tracker; Run follows.
func New(d Deps) *Tracker {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_gateway_marks_" + name, Help: help})
		d.Registry.MustRegister(c)
		return c
	}
	told, _ := lru.NewLRU[markKey, int64](remembered, nil) // fails for sizes below 1 only
	return &Tracker{
		Deps: d, told: told, in: make(chan api.Marks, queueLength), asks: make(chan struct{}, 1), chains: map[string]*chain{}, last: time.Now(), pairs: map[api.Pair]struct{}{},
		m: metrics{
			lost:  counter("lost_total", "Times that announcements of marks were missing."),
			asked: counter("asked_total", "Marks that were told because history was asked for them."),
		},
	}
}

// Run tells of marks until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	unsubscribe, err := t.Bus.Subscribe(subject.Marks, t.receive)
	if err != nil {
		return fmt.Errorf("follow marks: %w", err)
	}
	defer unsubscribe()
	t.Bus.OnReconnect(func() {
		t.mu.Lock()
		last := t.last
		t.mu.Unlock()
		t.lost(last)
	})
	var wg sync.WaitGroup
	wg.Go(func() { t.runAsks(ctx) })
	defer wg.Wait()
	tick := time.NewTicker(silence / 3)
	defer tick.Stop()
	for {
		select {
		case a := <-t.in:
			t.announced(a, time.Now())
		case now := <-tick.C:
			t.listen(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// receive is called by NATS.
func (t *Tracker) receive(body []byte) {
	var a api.Marks
	if err := json.Unmarshal(body, &a); err != nil || a.Source == "" {
		t.Log.Warn("an announcement of marks could not be read", "error", err)
		return
	}
	select {
	case t.in <- a:
	default: // shows as a hole
	}
}

// announced takes one announcement.
func (t *Tracker) announced(a api.Marks, now time.Time) {
	c := t.chains[a.Source]
	switch {
	case c != nil && a.From != c.at:
		t.lost(c.heard)
	case c == nil && a.From > 0:
		t.lost(now.Add(-stranger))
	}
	if c == nil {
		c = &chain{}
		t.chains[a.Source] = c
	}
	c.at, c.heard, c.silent = a.To, now, false
	if a.Ended {
		delete(t.chains, a.Source)
	}
	t.mu.Lock()
	t.last = now
	t.mu.Unlock()
	for _, row := range a.Rows {
		t.tell(row, false)
	}
}

// listen looks for chains that have fallen silent. One that ended for good is kept for a while: it may only be this gateway that does not hear.
func (t *Tracker) listen(now time.Time) {
	for source, c := range t.chains {
		switch quiet := now.Sub(c.heard); {
		case quiet > time.Hour, quiet > silence && len(t.chains) > maxChains:
			delete(t.chains, source)
		case quiet > silence && !c.silent:
			c.silent = true
			t.lost(c.heard)
		}
	}
}

// lost says that announcements since then were not heard.
func (t *Tracker) lost(since time.Time) {
	t.m.lost.Inc()
	t.mu.Lock()
	if t.since.IsZero() || since.Before(t.since) {
		t.since = since
	}
	t.mu.Unlock()
	t.wake()
	t.Deaf()
}

// Shown has the marks told again of two users who may see each other now.
func (t *Tracker) Shown(user, peer string) {
	if peer < user {
		user, peer = peer, user
	}
	t.mu.Lock()
	if len(t.pairs) < maxPairs {
		t.pairs[api.Pair{User: user, Peer: peer}] = struct{}{}
	} else if t.since.IsZero() { // more than anybody takes back at a time
		t.since = time.Now().Add(-stranger)
	}
	t.mu.Unlock()
	t.wake()
}

func (t *Tracker) wake() {
	select {
	case t.asks <- struct{}{}:
	default:
	}
}

// runAsks asks history until ctx ends, one question at a time; one that fails is put again, and for longer and longer.
func (t *Tracker) runAsks(ctx context.Context) {
	wait := firstRetry
	for {
		select {
		case <-t.asks:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		since, pairs := t.since, t.pairs
		t.since, t.pairs = time.Time{}, map[api.Pair]struct{}{}
		t.mu.Unlock()
		if err := t.askAll(ctx, since, pairs); err == nil {
			wait = firstRetry
			continue
		} else if ctx.Err() == nil {
			t.Log.Debug("history did not say which marks have moved", "error", err)
		}
		t.mu.Lock()
		if t.since.IsZero() || !since.IsZero() && since.Before(t.since) {
			t.since = since
		}
		for p := range pairs {
			t.pairs[p] = struct{}{}
		}
		t.mu.Unlock()
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, lastRetry)
		t.wake()
	}
}

func (t *Tracker) askAll(ctx context.Context, since time.Time, pairs map[api.Pair]struct{}) error {
	if t.Members.Users() == 0 {
		return nil // who comes later reads for itself
	}
	if len(pairs) > 0 {
		req := api.MarksRequest{}
		for p := range pairs {
			req.Pairs = append(req.Pairs, p)
		}
		if err := t.askFor(ctx, req); err != nil {
			return err
		}
	}
	if since.IsZero() {
		return nil
	}
	return t.askFor(ctx, api.MarksRequest{AgeMS: (time.Since(since) + margin).Milliseconds()})
}

// askFor reads all pages of a question.
func (t *Tracker) askFor(ctx context.Context, req api.MarksRequest) error {
	for {
		resp, err := t.Ask(ctx, req)
		if err != nil {
			return err
		}
		for _, row := range resp.Rows {
			if t.tell(row, len(req.Pairs) > 0) {
				t.m.asked.Inc()
			}
		}
		if req.Cont = resp.Cont; req.Cont == "" {
			return nil
		}
	}
}

// tell tells the sessions of both users what is new, or everything again; it reports whether it told anybody.
func (t *Tracker) tell(row api.Mark, again bool) (any bool) {
	t.telling.Lock()
	defer t.telling.Unlock()
	own, others := t.Members.Members(row.User), t.Members.Members(row.Peer)
	if len(own)+len(others) == 0 {
		return false
	}
	rm, err := room.Of(row.User, row.Peer)
	if err != nil {
		return false
	}
	for event, seq := range map[string]int64{wire.EvDelivered: row.Delivered, wire.EvRead: row.Read} {
		if seq == 0 {
			continue
		}
		seq, news := t.advance(markKey{event, row.User, row.Peer}, seq)
		if !news && !again {
			continue
		}
		any = true
		e := &api.Ephemeral{Event: event, Username: row.User, Seq: seq, Session: row.Session}
		for _, m := range own {
			m.Notify(rm, e)
		}
		for _, m := range others {
			m.Notify(rm, e)
		}
	}
	return any
}

// advance notes how far a mark has got; it gives how far it has been told of, and reports whether that is news.
func (t *Tracker) advance(k markKey, seq int64) (far int64, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.told.Get(k); ok && old >= seq {
		return old, false
	}
	t.told.Add(k, seq)
	return seq, true
}
