package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/services/gateway/internal/directory"
)

// watching is whose presence a session gets. Presence.Watch is called under mu, which comes before Session.mu; nobody is asked
// anything under it.
type watching struct {
	mu      sync.Mutex
	asked   []string // by watch_presence, as the client wrote them; nil: it has not asked
	peers   []string // of a session that gets them where everybody would be too many
	near    bool     // it is to get those with whom its user talks, and those listed last (near.go)
	meeting bool     // it is finding out who they are, or has
	next    uint64   // number of the youngest look
	done    uint64   // number of the youngest look that counts

	running bool     // a goroutine works off watch_presence
	acks    []string // frames that wait for it

	waits time.Duration // until a look that failed is repeated; 0: none is

	set    bool // the rest is in force
	known  bool
	names  []string // nil: everybody but hidden
	hidden []string
}

// asks begins a look: f changes what is wanted.
func (w *watching) asks(f func()) (number uint64, asked, peers []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f != nil {
		f()
	}
	w.next++
	return w.next, w.asked, w.peers
}

// Watch narrows presence to some users. Names that nobody has, or that the user may not see, are passed over: the answer must not tell.
// The last list counts, however fast they come: one that came meanwhile takes the place of those that wait.
func (s *Session) Watch(names []string, re string) error {
	if len(names) > wire.MaxWatchedUsers {
		return wire.E(wire.InvalidArgument, "at most 1000 users can be watched")
	}
	s.hub.lookOut(s)
	running := false
	s.watch.asks(func() {
		running = s.watch.running
		s.watch.asked, s.watch.running = append([]string{}, names...), true
		s.watch.acks = append(s.watch.acks, re)
	})
	if running {
		return nil
	}
	s.hub.wg.Add(1)
	go func() {
		defer s.hub.wg.Done()
		for s.workOff() {
		}
	}()
	return nil
}

// workOff does what Watch was asked for until now; it reports whether more came meanwhile.
func (s *Session) workOff() bool {
	var acks []string
	number, asked, peers := s.watch.asks(func() { acks, s.watch.acks = s.watch.acks, nil })
	sc := s.scope(s.ctx, asked, peers)
	for _, re := range acks {
		s.ack(wire.Ack{}, re)
	}
	s.apply(number, sc, true)
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.running = len(s.watch.acks) > 0 && s.ctx.Err() == nil
	return s.watch.running
}

// watchPeers has a session get the presence of some users where it would get nobody's otherwise.
func (s *Session) watchPeers(names []string) {
	number, asked, peers := s.watch.asks(func() { s.watch.peers = names })
	s.apply(number, s.scope(s.ctx, asked, peers), false)
}

// look finds out anew whose presence the session may get; when that is what it gets already, nothing happens.
func (s *Session) look() {
	number, asked, peers := s.watch.asks(nil)
	s.apply(number, s.scope(s.ctx, asked, peers), false)
}

// show gives the session that joins its picture.
func (s *Session) show() {
	w := &s.watch
	w.mu.Lock()
	set := w.set
	if set {
		s.begin()
	}
	w.mu.Unlock()
	if !set {
		s.look()
	}
}

// scope is whose presence a session may get.
type scope struct {
	known  bool
	names  []string // nil: everybody but hidden
	hidden []string
	again  bool // auth could not tell: it is to be found out later
}

// scope finds out: those of asked whom the user may see; without it the contacts in a roster, everybody in a small directory, and
// where everybody would be too many, peers. While nothing is known about the user (auth is away since before it came), nobody.
func (s *Session) scope(ctx context.Context, asked, peers []string) scope {
	sight := s.hub.Directory.Sight(s.user)
	_, small := s.hub.Directory.SmallDirectory()
	switch {
	case sight.Mode == "":
		return scope{}
	case asked != nil:
		return s.visible(ctx, asked)
	case sight.Mode == api.Roster:
		return scope{known: true, names: append([]string{}, sight.Contacts...)}
	case small && !sight.More:
		return scope{known: true, hidden: sight.Hidden}
	case sight.More:
		return s.visible(ctx, peers)
	}
	return scope{known: true, names: except(peers, sight)}
}

// visible gives the registered form of those names that the user may talk to.
func (s *Session) visible(ctx context.Context, names []string) scope {
	list := make([]string, 0, len(names))
	have := make(map[string]struct{}, len(names))
	for _, n := range names {
		registered, err := s.hub.Directory.Peer(ctx, s.user, n)
		var no *wire.Error
		switch {
		case errors.As(err, &no) && no.Code != wire.Unavailable && no.Code != wire.Internal:
			continue // nobody has this name, or it must not be told
		case err != nil:
			return scope{again: true}
		}
		if _, twice := have[registered]; !twice {
			have[registered] = struct{}{}
			list = append(list, registered)
		}
	}
	return scope{known: true, names: list}
}

func except(names []string, sight directory.Sight) []string {
	list := make([]string, 0, len(names))
	for _, n := range names {
		if _, hidden := slices.BinarySearch(sight.Hidden, n); !hidden {
			list = append(list, n)
		}
	}
	return list
}

// apply puts the outcome of a look into force, unless a younger one is. Again: the client gets a picture also when nothing is new.
func (s *Session) apply(number uint64, sc scope, again bool) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if number < w.done {
		return
	}
	w.done = number
	if sc.again {
		s.lookLater()
		if w.set && w.known {
			return // what is in force is as true as it was
		}
	} else {
		w.waits = 0
	}
	same := w.set && w.known == sc.known && (w.names == nil) == (sc.names == nil) && slices.Equal(w.names, sc.names) && slices.Equal(w.hidden, sc.hidden)
	if same && !again {
		return
	}
	w.set, w.known, w.names, w.hidden = true, sc.known, sc.names, sc.hidden
	s.begin()
}

// A look that failed is repeated, after longer and longer.
const (
	firstLook = 250 * time.Millisecond
	lastLook  = 8 * time.Second
)

// lookLater needs watch.mu.
func (s *Session) lookLater() {
	w := &s.watch
	w.waits = min(max(2*w.waits, firstLook), lastLook)
	wait, number := w.waits/2+rand.N(w.waits), w.done
	s.hub.wg.Add(1)
	go func() {
		defer s.hub.wg.Done()
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
		w.mu.Lock()
		latest := w.done == number
		w.mu.Unlock()
		if latest { // else a younger look has come to its own end
			s.look()
		}
	}()
}

// begin needs watch.mu.
func (s *Session) begin() {
	w := &s.watch
	if !w.known {
		s.PresenceUpdate(nil, nil, true, true, false)
		return
	}
	s.hub.Presence.Watch(s, s.user, w.names, w.hidden)
	// gone may have run in between.
	if s.ctx.Err() != nil {
		s.hub.Presence.Unwatch(s)
	}
}

// lookOut remembers a session that watches before it has joined: Router has only the others.
func (h *Hub) lookOut(s *Session) {
	if s.isActive() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lookers[s] = struct{}{}
}

func (h *Hub) forget(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lookers, s)
}

// SightChanged has the sessions of a user ("": of all) find out anew whose presence they may get.
func (h *Hub) SightChanged(user string) {
	var list []*Session
	if user == "" {
		for _, c := range h.connections() {
			if s := c.session(); s != nil {
				list = append(list, s)
			}
		}
	} else {
		for _, m := range h.Router.Members(user) {
			if s, ok := m.(*Session); ok {
				list = append(list, s)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.lookers {
		if s.user == user {
			list = append(list, s)
		}
	}
	if len(list) == 0 || h.draining {
		return
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		for _, s := range list {
			// Not before it has a picture to be changed.
			if s.watch.begun() && s.ctx.Err() == nil {
				s.look()
				s.meet()
			}
		}
	}()
}

func (w *watching) begun() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set || w.next > 0
}

// peers are the other users of the rooms that a session has joined, or is about to.
func (s *Session) peers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	peers := make([]string, 0, len(s.rooms))
	for r := range s.rooms {
		peers = append(peers, r.Peer(s.user))
	}
	for _, j := range s.jobs { // not in rooms before their catch-up begins
		for _, r := range j.rooms {
			peers = append(peers, r.Peer(s.user))
		}
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}
