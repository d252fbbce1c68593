package directory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
)

// entry is one user who is connected here.
type entry struct {
	user   string
	refs   int  // under Directory.mu
	queued bool // under Directory.mu

	loading sync.Mutex // held by the one who asks auth, so that an old answer never follows a younger one
	rel     atomic.Pointer[relations]
	loaded  atomic.Bool   // rel was read since the user connected; before that it is what was known when the user left
	checked atomic.Int64  // version that rel is known to have
	tried   chan struct{} // closed after the first try, successful or not, since the user connected
	once    sync.Once
	done    atomic.Bool // tried is closed
}

// relations are replaced, never changed. Sorted lists take less memory than sets, and there is one a user.
type relations struct {
	mode     api.Mode
	disabled bool
	contacts []string
	blocked  []string // either way
	more     bool     // blocked is not complete: the other one's lists must be looked at as well
}

var (
	errForbidden = wire.E(wire.Forbidden, "you cannot talk to this user")
	errSelf      = wire.E(wire.InvalidArgument, "there is no room with oneself")
)

// Acquire says that a session of user opened: the user's relations are fetched and kept fresh. It does not wait.
func (d *Directory) Acquire(user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acquire(user)
}

func (d *Directory) acquire(user string) *entry {
	if v, ok := d.held.Load(user); ok {
		e := v.(*entry) //nolint:forcetypeassert // held has nothing else
		e.refs++
		return e
	}
	e := &entry{user: user, refs: 1, tried: make(chan struct{})}
	if old, ok := d.released.Get(user); ok {
		d.released.Remove(user)
		e.rel.Store(old)
	}
	d.held.Store(user, e)
	d.enqueue(e)
	return e
}

// Release takes an Acquire back.
func (d *Directory) Release(user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.held.Load(user)
	if !ok {
		return
	}
	e := v.(*entry) //nolint:forcetypeassert // held has nothing else
	if e.refs--; e.refs > 0 {
		return
	}
	d.held.Delete(user)
	delete(d.loads.failed, e)
	if rel := e.rel.Load(); rel != nil {
		d.released.Add(user, rel)
	}
}

func (d *Directory) entry(user string) *entry {
	v, ok := d.held.Load(user)
	if !ok {
		return nil
	}
	return v.(*entry) //nolint:forcetypeassert // held has nothing else
}

// Authorize gives the registered form of a name that user may talk to. Errors are *wire.Error. Among everybody: unknown_user, or
// forbidden when one blocked the other. In a roster: forbidden for whoever is not a contact, whatever the reason.
func (d *Directory) Authorize(ctx context.Context, user, spelling string) (string, error) {
	registered, err := d.Resolve(ctx, spelling)
	if err != nil {
		var e *wire.Error
		if d.Mode() == api.Roster && errors.As(err, &e) && e.Code == wire.UnknownUser {
			return "", errForbidden
		}
		return "", err
	}
	if registered == user {
		return "", errSelf
	}
	e, done := d.hold(user)
	defer done()
	if err := d.allowed(ctx, e, registered); err != nil {
		return "", err
	}
	return registered, nil
}

// hold gives the entry of a user, who may not be connected here, until done is called.
func (d *Directory) hold(user string) (e *entry, done func()) {
	if e := d.entry(user); e != nil {
		return e, func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.acquire(user), func() { d.Release(user) }
}

// allowed says why the user of e and one with this registered name may not talk to each other; nil when they may.
func (d *Directory) allowed(ctx context.Context, e *entry, registered string) error {
	rel, err := e.wait(ctx)
	if err != nil {
		return err
	}
	if rel == nil {
		return d.unchecked(e.user, registered)
	}
	if !rel.allow(registered) {
		return errForbidden
	}
	if rel.more {
		blocks, err := d.blocks(ctx, registered, e.user)
		if err != nil {
			return err
		}
		if blocks {
			return errForbidden
		}
	}
	return nil
}

// allow is what these relations say; those with more do not say everything.
func (r *relations) allow(peer string) bool {
	return !r.disabled && !contains(r.blocked, peer) && (r.mode != api.Roster || contains(r.contacts, peer))
}

// Sees reports whether a connected user may learn what peer, by its registered name, does: what it reads and receives, that it types. That
// is so between users who may talk to each other, as it is with presence. It asks nobody; when that would be needed, sure is false and Authorize tells.
func (d *Directory) Sees(user, peer string) (ok, sure bool) {
	e := d.entry(user)
	if e == nil {
		return false, false
	}
	rel := e.rel.Load()
	if rel == nil || !e.done.Load() { // what was known when the user left may be old: auth is asked now
		return false, false
	}
	ok = rel.allow(peer)
	return ok, !ok || !rel.more
}

// Unseen are those of peers whose doings the user, connected here or not, may not learn. Who cannot be asked about is one of them.
func (d *Directory) Unseen(ctx context.Context, user string, peers []string) map[string]bool {
	if len(peers) == 0 {
		return nil
	}
	e, done := d.hold(user)
	defer done()
	unseen := map[string]bool{}
	for _, p := range peers {
		if d.allowed(ctx, e, p) != nil {
			unseen[p] = true
		}
	}
	return unseen
}

// wait gives what is known after auth was asked at least once since the user came; nil when nothing is.
func (e *entry) wait(ctx context.Context) (*relations, error) {
	if !e.done.Load() {
		select {
		case <-e.tried:
		case <-ctx.Done():
			return nil, rpc.ErrUnavailable
		}
	}
	return e.rel.Load(), nil
}

// unchecked decides about a user of whom nothing is known, because auth is away since before they came. Consent cannot
// be assumed. Among everybody, chat goes on: what is known of the peer still counts.
func (d *Directory) unchecked(user, peer string) error {
	if d.Mode() != api.Everyone {
		return rpc.ErrUnavailable
	}
	if rel := d.known(peer); rel != nil && contains(rel.blocked, user) {
		return errForbidden
	}
	d.m.unchecked.Inc()
	return nil
}

// blocks asks whether peer and user block each other, for a user whom too many block.
func (d *Directory) blocks(ctx context.Context, peer, user string) (bool, error) {
	d.mu.Lock()
	e := d.acquire(peer)
	d.mu.Unlock()
	defer d.Release(peer)
	rel, err := e.wait(ctx)
	if err == nil && rel == nil {
		err = rpc.ErrUnavailable
	}
	return rel != nil && contains(rel.blocked, user), err
}

// Sight is whose presence a user may see. The lists are sorted; the caller must not change them.
type Sight struct {
	Mode     api.Mode // "" while nothing is known, and nothing may be seen
	Contacts []string // in a roster
	Hidden   []string // who blocked the user or was blocked
	// More: Hidden is not complete, so Authorize has to be asked about each one.
	More bool
}

// Sight of a connected user.
func (d *Directory) Sight(user string) Sight {
	e := d.entry(user)
	if e == nil {
		return Sight{}
	}
	rel := e.rel.Load()
	if rel == nil || rel.disabled {
		return Sight{}
	}
	return Sight{Mode: rel.mode, Contacts: rel.contacts, Hidden: rel.blocked, More: rel.more}
}

// load has the relations of a user read soon.
func (d *Directory) load(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.enqueue(e)
}

// enqueue needs mu. The queue has each connected user at most once.
func (d *Directory) enqueue(e *entry) {
	if e.queued || e.refs < 1 {
		return
	}
	e.queued = true
	d.loads.queue = append(d.loads.queue, e)
	if d.loads.workers < maxCalls {
		d.loads.workers++
		go d.work()
	}
}

// work loads until nothing is left to load.
func (d *Directory) work() {
	for {
		d.mu.Lock()
		if len(d.loads.queue) == 0 {
			d.loads.workers--
			d.loads.queue = nil
			d.mu.Unlock()
			return
		}
		e := d.loads.queue[0]
		d.loads.queue[0] = nil
		d.loads.queue = d.loads.queue[1:]
		e.queued = false
		gone := e.refs < 1
		d.mu.Unlock()
		if gone {
			e.finish()
			continue
		}
		d.fetch(e)
	}
}

// fetch asks auth for the relations of a user, and reports whether there was an answer; without one it is tried again soon. What differs is told
// before the next one asks, so that nothing older is told after it.
func (d *Directory) fetch(e *entry) (answered bool) {
	e.loading.Lock()
	defer e.loading.Unlock()
	defer e.finish()
	err := error(rpc.ErrUnavailable)
	var r api.Relations
	if d.auth.available() {
		ctx, cancel := context.WithTimeout(d.base, d.times.call)
		r, err = question(&d.auth, func() (api.Relations, error) {
			return api.AuthRelations.Call(ctx, d.auth.services, api.RelationsRequest{Username: e.user})
		})
		cancel()
	}
	var we *wire.Error
	switch {
	case err == nil:
		d.mode.Store(&r.Mode)
		d.loaded(e, newRelations(r), r.Version)
	case errors.As(err, &we) && we.Code == wire.UnknownUser: // erased
		e.rel.Store(&relations{disabled: true, mode: d.Mode()})
		e.checked.Store(d.version.Load())
	default:
		d.mu.Lock()
		if e.refs > 0 {
			d.loads.failed[e] = struct{}{}
		}
		d.mu.Unlock()
		return false
	}
	return true
}

// loaded takes what auth says of a user, and tells what is new in it. What the first answer has, sessions that have just come ask for themselves;
// but when it did not come at the first try they may have heard something in between that nobody here knows, so all is told then.
func (d *Directory) loaded(e *entry, rel *relations, version int64) {
	old := e.rel.Swap(rel)
	e.checked.Store(version)
	before, late := e.loaded.Swap(true), e.done.Load()
	e.finish() // what follows may take a while
	if !rel.same(old) {
		d.listeners.sight(e.user)
	}
	switch {
	case before:
		d.differ(e.user, old, rel, false)
	case late:
		d.differ(e.user, old, rel, true)
	}
}

func (e *entry) finish() {
	e.once.Do(func() {
		e.done.Store(true)
		close(e.tried)
	})
}

func newRelations(r api.Relations) *relations {
	rel := &relations{mode: r.Mode, disabled: r.Disabled, more: r.BlockedByMore, contacts: r.Contacts}
	if r.Mode == api.Roster && rel.contacts == nil {
		rel.contacts = []string{}
	}
	slices.Sort(rel.contacts)
	if len(r.Blocked)+len(r.BlockedBy) > 0 {
		rel.blocked = slices.Concat(r.Blocked, r.BlockedBy)
		slices.Sort(rel.blocked)
	}
	return rel
}

// same compares what decides, not how old it is.
func (r *relations) same(old *relations) bool {
	return old != nil && r.mode == old.mode && r.disabled == old.disabled && r.more == old.more &&
		slices.Equal(r.contacts, old.contacts) && slices.Equal(r.blocked, old.blocked)
}

func contains(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}

// reload reads a user's relations after they changed, and forgets those of one who is not connected.
func (d *Directory) reload(user string) (answered bool) {
	if e := d.entry(user); e != nil {
		answered = d.fetch(e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.released.Remove(user)
	return answered
}

// retryFailed loads again what failed. While auth is away the first failure makes the others fail at once.
func (d *Directory) retryFailed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := range d.loads.failed {
		delete(d.loads.failed, e)
		d.enqueue(e)
	}
}

// outdated are the connected users whose relations may have changed since they were read: urgent, when the answer to a look that had asked what
// changed since a version names them; rest, when it does not tell.
func (d *Directory) outdated(since int64, r api.DirectoryResponse) (urgent, rest []*entry) {
	changed := make(map[string]struct{}, len(r.Changed))
	for _, u := range r.Changed {
		changed[u] = struct{}{}
	}
	d.held.Range(func(_, v any) bool {
		e := v.(*entry) //nolint:forcetypeassert // held has nothing else
		had := e.checked.Load()
		_, named := changed[e.user]
		switch {
		case e.rel.Load() != nil && had == r.Version && had != 0:
		case !r.ChangedKnown || had < since || had > r.Version || e.rel.Load() == nil:
			rest = append(rest, e)
		case named:
			urgent = append(urgent, e)
		default:
			e.checked.CompareAndSwap(had, r.Version)
		}
		return true
	})
	return urgent, rest
}

// differ tells how a user's contacts differ from what they were: in a roster those agreed on, else everybody but those who block one another.
// With all, those are told as well who did not change.
func (d *Directory) differ(user string, old, now *relations, all bool) {
	if old == nil && all {
		old = &relations{mode: now.mode}
	}
	if old == nil || old.mode != now.mode || old.disabled || now.disabled {
		return
	}
	tell := func(list, less []string, added bool) {
		for _, peer := range list {
			if !contains(less, peer) {
				d.listeners.listed(user, peer, added)
			}
		}
	}
	known := old // what is no news
	if all {
		known = &relations{}
	}
	if now.mode == api.Roster {
		tell(now.contacts, known.contacts, true)
		tell(old.contacts, now.contacts, false)
	} else if !old.more && !now.more {
		gone := func(peer string) bool { return !contains(now.blocked, peer) && !d.exists(peer) }
		tell(slices.DeleteFunc(slices.Clone(old.blocked), gone), now.blocked, true)
		tell(now.blocked, known.blocked, false)
	}
}

// exists reports whether somebody who is no longer blocked has not just been erased, which also ends blocks.
func (d *Directory) exists(name string) bool {
	if l := d.small.Load(); l != nil {
		_, ok := l.exact[name]
		return ok
	}
	ctx, cancel := context.WithTimeout(d.base, d.times.call)
	defer cancel()
	_, err := d.Resolve(ctx, name)
	return err == nil
}

// reloadPair reads the relations of the two users of an event. Whoever's were not read before has no difference: what is so now is told then,
// which a late event may no longer say. What is told counts here as well, also while auth does not answer: whoever is told that a contact is over
// may not write either, and of a new one nobody is told before auth says so.
func (d *Directory) reloadPair(ev api.DirectoryEvent) {
	for _, u := range [][2]string{{ev.Username, ev.Peer}, {ev.Peer, ev.Username}} {
		if u[0] == "" {
			continue
		}
		e := d.entry(u[0])
		fresh := e != nil && !e.loaded.Load()
		answered := d.reload(u[0])
		added, removed := ev.Kind == api.EventContactAdded, ev.Kind == api.EventContactRemoved
		switch {
		case e != nil && removed && !answered:
			d.part(e, u[1])
		case fresh && answered && (added || removed):
			d.tellPair(e, u[1])
		}
	}
}

// part ends a contact that auth cannot be asked about.
func (d *Directory) part(e *entry, peer string) {
	e.loading.Lock()
	defer e.loading.Unlock()
	if rel := e.rel.Load(); rel != nil {
		next := *rel
		next.contacts = slices.DeleteFunc(slices.Clone(rel.contacts), func(c string) bool { return c == peer })
		e.rel.Store(&next)
		d.listeners.sight(e.user)
	}
	d.listeners.listed(e.user, peer, false)
}

// tellPair tells whether peer is a contact of a user whose relations were read.
func (d *Directory) tellPair(e *entry, peer string) {
	e.loading.Lock()
	defer e.loading.Unlock()
	d.listeners.listed(e.user, peer, e.rel.Load().allow(peer))
}

// known are the relations of a user as far as they are known, nil for not at all.
func (d *Directory) known(user string) *relations {
	if e := d.entry(user); e != nil {
		return e.rel.Load()
	}
	rel, _ := d.released.Peek(user)
	return rel
}
