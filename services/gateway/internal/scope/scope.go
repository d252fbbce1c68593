// Package scope is whose presence a session gets.
package scope

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/presence"
)

// Directory decides who may talk to whom, and so who may see whom.
type Directory interface {
	Authorize(ctx context.Context, user, name string) (string, error)
	SmallDirectory() (names []string, ok bool)
	Sight(user string) directory.Sight
}

// Presence tells who is there.
type Presence interface {
	Watch(w presence.Watcher, self string, names, hidden []string)
	Unwatch(w presence.Watcher)
}

// Desk is what the scopes of a gateway share.
type Desk struct {
	Directory Directory
	Presence  Presence
	// Peers are those with whom a user talked last; nil: nobody knows.
	Peers func(ctx context.Context, user string) ([]string, error)
	Go    func(func())

	pictures pictures
	listed   *listed
}

// NewDesk makes a desk ready.
func NewDesk(d *Desk) *Desk {
	d.listed = newListed()
	return d
}

// Listed notes whom a client of user was shown, at any gateway.
func (d *Desk) Listed(user string, names []string) { d.listed.add(user, names) }

// Owner is the session of a scope.
type Owner interface {
	// Send sends an event to the client.
	Send(event string, data any, re string)
	User() string
	// Context ends with the session.
	Context() context.Context
	// Peers are the other users of the rooms that the session has joined, or is about to.
	Peers() []string
}

// Scope is whose presence a session gets. Who that may be is found out by looks, of which one runs at a time: the last wish counts, however fast they
// come, and one that came meanwhile takes the place of those that wait.
type Scope struct {
	desk  *Desk
	owner Owner

	looking sync.Mutex // held during a look, which may ask the directory
	near    near

	mu     sync.Mutex // held while what is in force changes; Presence.Watch is called under it
	wish   *wish      // nil until there is one: most sessions get what they get by themselves
	wishes uint32     // looks that were wanted
	seen   uint32     // and how many of these the last look covers
	soon   bool       // a goroutine is about to look

	set    bool // the rest is in force
	known  bool
	names  []string // nil: everybody but hidden
	hidden []string
}

// wish is what a session is asked to watch, and the looks for it that failed.
type wish struct {
	asked []string // by watch_presence, as the client wrote them; nil: it has not asked
	acks  []string // frames that wait for the next look
	peers []string // of a session that gets those where everybody would be too many
	waits time.Duration
	again bool // a look that failed will be repeated
}

// wished needs mu.
func (w *Scope) wished() *wish {
	if w.wish == nil {
		w.wish = &wish{}
	}
	return w.wish
}

// picture is whose presence a session may get.
type picture struct {
	known  bool
	names  []string // nil: everybody but hidden
	hidden []string
	again  bool // auth could not tell: it is to be found out later
}

// Watch narrows presence to some users. Names that nobody has, or that the user may not see, are passed over: the answer must not tell.
func (w *Scope) Watch(names []string, re string) error {
	if len(names) > wire.MaxWatchedUsers {
		return wire.E(wire.InvalidArgument, "at most 1000 users can be watched")
	}
	w.mu.Lock()
	wish := w.wished()
	wish.asked, wish.acks = append([]string{}, names...), append(wish.acks, re)
	w.mu.Unlock()
	w.LookSoon()
	return nil
}

// WatchPeers has the session get the presence of those whose rooms it has joined, or is about to, at most as many as most, where it would get nobody's
// otherwise.
func (w *Scope) WatchPeers(most int) {
	peers := w.owner.Peers()
	w.mu.Lock()
	w.wished().peers = peers[:min(len(peers), most)]
	w.mu.Unlock()
	w.Look()
}

// WatchesNobody reports whether the session gets the presence neither of everybody nor of a roster by itself.
func (w *Scope) WatchesNobody() bool {
	p := w.mayWatch(nil, nil)
	return p.names != nil && len(p.names) == 0
}

// Show gives the session that joins its picture.
func (w *Scope) Show() {
	w.mu.Lock()
	set := w.set
	if set {
		w.begin()
	}
	w.mu.Unlock()
	if !set {
		w.Look()
	}
}

// LookSoon is look in a goroutine.
func (w *Scope) LookSoon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.soon || w.owner.Context().Err() != nil {
		return
	}
	w.soon = true
	w.desk.Go(w.Look)
}

// Look finds out anew whose presence the session may get; when that is what it gets already, nothing happens.
func (w *Scope) Look() {
	w.mu.Lock()
	w.wishes++
	number := w.wishes
	w.mu.Unlock()
	w.looking.Lock()
	defer w.looking.Unlock()
	w.mu.Lock()
	if w.seen >= number { // one that began after the wish has come to its end
		w.mu.Unlock()
		return
	}
	var wish wish
	if w.wish != nil {
		wish = *w.wish
		w.wish.acks = nil
	}
	w.seen, w.soon = w.wishes, false
	w.mu.Unlock()
	if met := w.near.names(); met != nil {
		wish.peers = slices.Concat(met, w.desk.listed.of(w.owner.User()))
		slices.Sort(wish.peers)
		wish.peers = slices.Compact(wish.peers)
	}
	p := w.mayWatch(wish.asked, wish.peers)
	for _, re := range wish.acks {
		if re != "" {
			w.owner.Send(wire.EvAck, wire.Ack{}, re)
		}
	}
	w.apply(p, len(wish.acks) > 0)
}

// mayWatch finds out: those of asked whom the user may see; without it the contacts in a roster, everybody in a small directory, and
// where everybody would be too many, peers. While nothing is known about the user (auth is unreachable since before they came), nobody.
func (w *Scope) mayWatch(asked, peers []string) picture {
	sight := w.desk.Directory.Sight(w.owner.User())
	_, small := w.desk.Directory.SmallDirectory()
	switch {
	case sight.Mode == "":
		return picture{}
	case asked != nil:
		return w.visible(asked)
	case sight.Mode == api.Roster:
		return picture{known: true, names: append([]string{}, sight.Contacts...)}
	case small && !sight.More:
		return picture{known: true, hidden: sight.Hidden}
	case sight.More:
		return w.visible(peers)
	}
	return picture{known: true, names: except(peers, sight)}
}

// visible gives the registered form of those names that the user may talk to.
func (w *Scope) visible(names []string) picture {
	list := make([]string, 0, len(names))
	have := make(map[string]struct{}, len(names))
	for _, n := range names {
		registered, err := w.desk.Directory.Authorize(w.owner.Context(), w.owner.User(), n)
		switch {
		case definite(err):
			continue // nobody has this name, or it must not be told
		case err != nil:
			return picture{again: true}
		}
		if _, twice := have[registered]; !twice {
			have[registered] = struct{}{}
			list = append(list, registered)
		}
	}
	return picture{known: true, names: list}
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

// apply puts the outcome of a look into force. Anyway: the client gets a picture also when nothing is new.
func (w *Scope) apply(p picture, anyway bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.again {
		w.lookLater()
		if w.set && w.known {
			return // what is in force is as true as it was
		}
	} else if w.wish != nil {
		w.wish.waits = 0
	}
	same := w.set && w.known == p.known && (w.names == nil) == (p.names == nil) && slices.Equal(w.names, p.names) && slices.Equal(w.hidden, p.hidden)
	if same && !anyway {
		return
	}
	w.set, w.known, w.names, w.hidden = true, p.known, p.names, p.hidden
	w.begin()
}

// A look that failed is repeated, after longer and longer.
const (
	firstLook = 250 * time.Millisecond
	lastLook  = 8 * time.Second
)

// lookLater needs mu.
func (w *Scope) lookLater() {
	wish := w.wished()
	wish.waits = min(max(2*wish.waits, firstLook), lastLook)
	if wish.again {
		return
	}
	wish.again = true
	wait := wish.waits/2 + rand.N(wish.waits)
	w.desk.Go(func() {
		select {
		case <-time.After(wait):
		case <-w.owner.Context().Done():
			return
		}
		w.mu.Lock()
		wish.again = false
		w.mu.Unlock()
		w.Look()
	})
}

// begin needs mu.
func (w *Scope) begin() {
	if !w.known {
		w.PresenceUpdate(nil, nil, true, true, false)
		return
	}
	w.desk.Presence.Watch(w, w.owner.User(), w.names, w.hidden)
	// Gone may have run in between.
	if w.owner.Context().Err() != nil {
		w.desk.Presence.Unwatch(w)
	}
}

func (w *Scope) Begun() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wishes > 0 || w.soon
}

// near is with whom a session's user talks. Where everybody is a contact and they are too many to be told of, a session gets the presence of those, and
// of those whom the user's clients listed last. Of all others it is told that nothing is known.
type near struct {
	mu      sync.Mutex
	wanted  bool                // the session is to get those
	meeting bool                // it is found out who they are, or has been
	met     map[string]struct{} // nil: not known yet, or nobody wants to know
}

func (n *near) want() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted = true
}

// begin reports whether it is to be found out now who they are.
func (n *near) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	begin := n.wanted && !n.meeting
	n.meeting = n.meeting || begin
	return begin
}

// names are those who are met; nil while nobody wants to know.
func (n *near) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.met == nil {
		return nil
	}
	return slices.AppendSeq(make([]string, 0, len(n.met)), maps.Keys(n.met))
}

// add takes those who are met, up to the limit.
func (n *near) add(peers []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.met == nil {
		n.met = make(map[string]struct{}, len(peers))
	}
	for _, p := range peers {
		if len(n.met) < wire.MaxWatchedUsers {
			n.met[p] = struct{}{}
		}
	}
}

// meets notes somebody with whom the user talks, and reports whether that is news.
func (n *near) meets(peer string) (news bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.met == nil || len(n.met) >= wire.MaxWatchedUsers {
		return false
	}
	_, known := n.met[peer]
	n.met[peer] = struct{}{}
	return !known
}

// Meet finds out with whom the user talks, once, when the session needs to know.
func (w *Scope) Meet() {
	_, small := w.desk.Directory.SmallDirectory()
	if small || w.desk.Directory.Sight(w.owner.User()).Mode != api.Everyone || w.owner.Context().Err() != nil || !w.near.begin() {
		return
	}
	w.desk.Go(func() {
		w.meetAll(nil) // whom it listed is known already
		if w.desk.Peers == nil {
			return
		}
		for wait := firstLook; ; wait = min(2*wait, lastLook) {
			peers, err := w.desk.Peers(w.owner.Context(), w.owner.User())
			if err == nil {
				w.meetAll(peers)
				return
			}
			select {
			case <-time.After(wait):
			case <-w.owner.Context().Done():
				return
			}
		}
	})
}

func (w *Scope) meetAll(peers []string) {
	w.near.add(append(peers, w.owner.Peers()...))
	w.LookSoon()
}

// Listed has those watched whom a client of the user was shown, where that matters.
func (w *Scope) Listed() {
	if w.near.names() != nil {
		w.LookSoon()
	}
}

// Meets notes somebody with whom the user talks.
func (w *Scope) Meets(peer string) {
	if w.near.meets(peer) {
		w.LookSoon()
	}
}

// Near says that those are to be watched with whom the user talks, where everybody would be too many.
func (w *Scope) Near() {
	w.near.want()
	w.Meet()
}

// Open makes a scope ready.
func (w *Scope) Open(d *Desk, o Owner) { w.desk, w.owner = d, o }

// End has the session watch nobody.
func (w *Scope) End() { w.desk.Presence.Unwatch(w) }

// PresenceUpdate implements presence.Watcher.
func (w *Scope) PresenceUpdate(online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) {
	w.owner.Send(wire.EvPresence, w.desk.pictures.of(online, offline, unknown, snapshot, partial), "")
}

// definite reports whether an error says what is so, and not that it could not be found out.
func definite(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Code != wire.Unavailable && e.Code != wire.Internal
}
