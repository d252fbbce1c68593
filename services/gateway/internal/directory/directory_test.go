package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// fakeAuth is an auth whose users and outages the test decides about.
type fakeAuth struct {
	mu        sync.Mutex
	mode      api.Mode
	limit     int
	version   int64
	users     []string
	erased    []string
	relations map[string]api.Relations
	away      bool
	broken    bool          // every second question comes to a replica without SQL
	changed   []string      // whose relations did; nil: it does not say
	hang      chan struct{} // while not nil, calls wait for it to be closed

	resolves, loads, looks atomic.Int64

	on        func([]byte)
	reconnect func()
}

func (a *fakeAuth) begin(ctx context.Context) error {
	a.mu.Lock()
	hang, away := a.hang, a.away
	a.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return rpc.ErrUnavailable
		}
	}
	if away {
		return rpc.ErrUnavailable
	}
	return nil
}

func (a *fakeAuth) services() rpc.Caller {
	return rpc.Caller{Timeout: time.Minute, Conn: rpc.Local(api.AuthResolve.Handle(a.resolve), api.AuthRelations.Handle(a.load), api.AuthDirectory.Handle(a.look))}
}

func (a *fakeAuth) resolve(ctx context.Context, req api.ResolveRequest) (api.ResolveResponse, error) {
	n := a.resolves.Add(1)
	if err := a.begin(ctx); err != nil {
		return api.ResolveResponse{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken && n%2 == 1 {
		return api.ResolveResponse{}, rpc.ErrUnavailable
	}
	find := func(users []string) []string {
		out := make([]string, len(req.Names))
		for i, n := range req.Names {
			for _, u := range users {
				if room.Fold(u) == room.Fold(n) {
					out[i] = u
				}
			}
		}
		return out
	}
	return api.ResolveResponse{Usernames: find(a.users), Erased: find(a.erased)}, nil
}

func (a *fakeAuth) load(ctx context.Context, req api.RelationsRequest) (api.Relations, error) {
	n := a.loads.Add(1)
	if err := a.begin(ctx); err != nil {
		return api.Relations{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken && n%2 == 1 {
		return api.Relations{}, rpc.ErrUnavailable
	}
	if !slices.Contains(a.users, req.Username) {
		return api.Relations{}, wire.E(wire.UnknownUser, "no")
	}
	r := a.relations[req.Username]
	r.Mode, r.Version = a.mode, a.version
	r.Contacts, r.Blocked, r.BlockedBy = slices.Clone(r.Contacts), slices.Clone(r.Blocked), slices.Clone(r.BlockedBy)
	return r, nil
}

func (a *fakeAuth) look(ctx context.Context, _ api.DirectoryRequest) (api.DirectoryResponse, error) {
	defer a.looks.Add(1)
	if err := a.begin(ctx); err != nil {
		return api.DirectoryResponse{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := api.DirectoryResponse{Mode: a.mode, Total: len(a.users), Limit: a.limit, Version: a.version, Changed: a.changed, ChangedKnown: a.changed != nil}
	if len(a.users) <= a.limit {
		r.Usernames = slices.Clone(a.users)
	}
	return r, nil
}

func (a *fakeAuth) Subscribe(_ string, f func([]byte)) (func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.on = f
	return func() {}, nil
}

func (a *fakeAuth) OnReconnect(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reconnect = f
}

func (a *fakeAuth) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *fakeAuth) announce(e api.DirectoryEvent) {
	body, _ := json.Marshal(e)
	a.mu.Lock()
	on := a.on
	a.mu.Unlock()
	on(body)
}

// rig runs a Directory on a fakeAuth.
type rig struct {
	*Directory
	t      *testing.T
	auth   *fakeAuth
	events chan api.DirectoryEvent
}

func newRig(t *testing.T, a *fakeAuth, change func(*times)) *rig {
	t.Helper()
	if a.limit == 0 {
		a.limit = 1000
	}
	if a.version == 0 {
		a.version = 1
	}
	r := &rig{t: t, auth: a, events: make(chan api.DirectoryEvent, 100)}
	r.Directory = New(a.services(), a, Config{}, testx.Quiet(), prometheus.NewRegistry())
	r.times.retry, r.times.away, r.times.patience, r.times.spread = 10*time.Millisecond, 5*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	if change != nil {
		change(&r.times)
	}
	r.OnChange(func(e api.DirectoryEvent) { r.events <- e })
	return r
}

func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
}

// started runs a Directory that has had its first look.
func started(t *testing.T, a *fakeAuth, change func(*times)) *rig {
	t.Helper()
	r := newRig(t, a, change)
	r.run()
	testx.Eventually(t, "the mode is known", 5*time.Second, func() bool { return r.Mode() != "" })
	return r
}

func (r *rig) change(e api.DirectoryEvent, f func()) {
	r.t.Helper()
	r.auth.set(f)
	r.auth.announce(e)
	select {
	case got := <-r.events:
		if got != e {
			r.t.Fatalf("event %+v", got)
		}
	case <-time.After(5 * time.Second):
		r.t.Fatal("no event")
	}
}

func (r *rig) resolves(spelling, want string) {
	r.t.Helper()
	if got, err := r.Resolve(r.t.Context(), spelling); err != nil || got != want {
		r.t.Fatalf("%q is %q, %v; want %q", spelling, got, err, want)
	}
}

func (r *rig) unresolved(spelling string, code wire.Code) {
	r.t.Helper()
	got, err := r.Resolve(r.t.Context(), spelling)
	r.code(code, got, err)
}

func (r *rig) may(user, peer, want string) {
	r.t.Helper()
	if got, err := r.Authorize(r.t.Context(), user, peer); err != nil || got != want {
		r.t.Fatalf("%s to %s: %q, %v; want %q", user, peer, got, err, want)
	}
}

func (r *rig) mayNot(user, peer string, code wire.Code) *wire.Error {
	r.t.Helper()
	got, err := r.Authorize(r.t.Context(), user, peer)
	return r.code(code, got, err)
}

func (r *rig) code(code wire.Code, got string, err error) *wire.Error {
	r.t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code {
		r.t.Fatalf("%q, %v; want %s", got, err, code)
	}
	return e
}

func TestNames(t *testing.T) {
	for _, limit := range []int{1, 1000} { // with and without a list of everybody
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			r := started(t, &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa", "Straße"}, limit: limit}, func(ti *times) { ti.negative = 30 * time.Millisecond })
			for range 3 {
				r.resolves("Avi", "Avi")
				r.resolves("aVI", "Avi")
				r.resolves("STRASSE", "Straße")
				r.unresolved("Nobody", wire.UnknownUser)
			}
			for _, n := range []string{"", "*", ">", "a&b", "../x", "😀"} {
				r.unresolved(n, wire.UnknownUser)
			}
			if n := r.auth.resolves.Load(); n > 8 {
				t.Fatalf("asked %d times", n)
			}
			r.auth.set(func() { r.auth.users = append(r.auth.users, "Nobody") })
			testx.Eventually(t, "a new name is found", 5*time.Second, func() bool { n, _ := r.Resolve(t.Context(), "nobody"); return n == "Nobody" })
		})
	}
}

// For whom it is a room of one's own, the name of somebody who was erased is what it was, in each spelling. For all others it is nobody's.
func TestNamesErasedAreRecalled(t *testing.T) {
	for _, limit := range []int{1, 1000} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			r := started(t, &fakeAuth{mode: api.Everyone, users: []string{"Lisa"}, erased: []string{"Avi"}, limit: limit}, func(ti *times) { ti.fresh = 10 * time.Millisecond })
			recalls := func(spelling, want string, wantGone bool) {
				t.Helper()
				if got, gone, err := r.Recall(t.Context(), spelling); got != want || gone != wantGone || err != nil {
					t.Errorf("%q is %q, gone %v, %v", spelling, got, gone, err)
				}
			}
			for range 2 {
				recalls("avi", "Avi", true)
				recalls("AVI", "Avi", true)
				recalls("Nobody", "Nobody", true)
				recalls("LISA", "Lisa", false)
				r.unresolved("Avi", wire.UnknownUser)
				r.unresolved("avi", wire.UnknownUser)
				r.mayNot("Lisa", "avi", wire.UnknownUser)
			}
			r.auth.set(func() { r.auth.away = true })
			testx.Eventually(t, "auth is asked in vain", 5*time.Second, func() bool { _, _, err := r.Recall(t.Context(), "Another"); return err != nil })
			recalls("avi", "Avi", true) // old is better than nothing
		})
	}
}

func TestNamesStayGoodWhileAuthIsAway(t *testing.T) {
	r := started(t, &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, limit: 1}, func(ti *times) { ti.fresh = 10 * time.Millisecond })
	r.resolves("avi", "Avi")
	r.auth.set(func() { r.auth.away = true })
	after := time.Now().Add(50 * time.Millisecond)
	for time.Now().Before(after) {
		r.resolves("avi", "Avi")
	}
	r.unresolved("lisa", wire.Unavailable)

	// An auth that does not answer at all costs a moment.
	hang := make(chan struct{})
	r.auth.set(func() { r.auth.away, r.auth.hang = false, hang })
	for range 5 {
		r.resolves("avi", "Avi")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	got, err := r.Resolve(ctx, "lisa")
	r.code(wire.Unavailable, got, err)
	close(hang)
	testx.Eventually(t, "auth is asked again", 5*time.Second, func() bool { n, _ := r.Resolve(t.Context(), "lisa"); return n == "Lisa" })
}

// One replica of two that has no SQL answers half of the questions with unavailable; names are asked of the other one then.
func TestNamesWhileOneReplicaIsBroken(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, limit: 1, broken: true, relations: map[string]api.Relations{"User0": {Blocked: []string{"User1"}}}}
	for i := range 50 {
		a.users = append(a.users, fmt.Sprint("User", i))
	}
	r := started(t, a, func(ti *times) { ti.away = time.Minute })
	r.Directory.auth.answered.Store(time.Now().UnixNano())
	for _, u := range a.users {
		r.resolves(u, u)
	}
	r.Acquire("User0")
	r.mayNot("User0", "User1", wire.Forbidden) // at once, although the first answer did not say so
	a.set(func() { a.away = true })
	r.Directory.auth.answered.Store(time.Now().Add(-2 * time.Minute).UnixNano())
	r.unresolved("User50", wire.Unavailable)
	asked := a.resolves.Load()
	r.unresolved("User51", wire.Unavailable)
	if n := a.resolves.Load() - asked; n != 0 {
		t.Errorf("an auth that is away was asked %d times more", n)
	}
}

func TestNamesManyAskOnce(t *testing.T) {
	hang := make(chan struct{})
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, limit: 1}
	r := started(t, a, nil)
	a.set(func() { a.hang = hang })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if n, err := r.Resolve(context.Background(), "avi"); n != "Avi" {
				t.Errorf("%q, %v", n, err)
			}
		})
	}
	testx.Eventually(t, "somebody asks", 5*time.Second, func() bool { return a.resolves.Load() > 0 })
	close(hang)
	wg.Wait()
	if n := a.resolves.Load(); n > 5 {
		t.Fatalf("asked %d times", n)
	}
}

func TestRelationsOfEveryone(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa", "Era"}, relations: map[string]api.Relations{}}
	r := started(t, a, nil)
	r.Acquire("Avi")
	r.may("Avi", "lisa", "Lisa")
	r.may("Lisa", "AVI", "Avi") // not connected here
	r.mayNot("Avi", "Nobody", wire.UnknownUser)
	r.mayNot("Avi", "avi", wire.InvalidArgument)

	blocks := api.DirectoryEvent{Kind: api.EventRelations, Username: "Lisa", Peer: "Avi"}
	r.change(blocks, func() {
		a.version++
		a.relations["Avi"] = api.Relations{BlockedBy: []string{"Lisa"}}
		a.relations["Lisa"] = api.Relations{Blocked: []string{"Avi"}}
	})
	r.mayNot("Avi", "Lisa", wire.Forbidden)
	r.mayNot("Lisa", "Avi", wire.Forbidden)
	if ok, sure := r.Sees("Avi", "Lisa"); ok || !sure {
		t.Fatal("Avi learns what Lisa does, who blocked him")
	}
	if ok, sure := r.Sees("Avi", "Era"); !ok || !sure {
		t.Fatal("Avi does not learn what Era does")
	}
	for _, u := range []string{"Avi", "Lisa"} { // Lisa is not connected here
		if got := r.Unseen(context.Background(), u, []string{"Avi", "Lisa", "Era"}); !got["Avi"] && !got["Lisa"] || got["Era"] {
			t.Fatal(u, got)
		}
	}
	r.may("Avi", "Era", "Era")
	r.change(blocks, func() { a.version++; clear(a.relations) })
	r.may("Avi", "Lisa", "Lisa")

	if l, ok := r.SmallDirectory(); !ok || !slices.Equal(l, []string{"Avi", "Era", "Lisa"}) {
		t.Fatal(l, ok)
	}
	r.change(api.DirectoryEvent{Kind: api.EventRegistered, Username: "Bea"}, func() { a.users = append(a.users, "Bea") })
	if l, ok := r.SmallDirectory(); !ok || !slices.Equal(l, []string{"Avi", "Bea", "Era", "Lisa"}) {
		t.Fatal(l, ok)
	}
	r.change(api.DirectoryEvent{Kind: api.EventErased, Username: "Avi"}, func() { a.users = slices.DeleteFunc(a.users, func(s string) bool { return s == "Avi" }) })
	if l, ok := r.SmallDirectory(); !ok || !slices.Equal(l, []string{"Bea", "Era", "Lisa"}) {
		t.Fatal(l, ok)
	}
	r.mayNot("Era", "Avi", wire.UnknownUser)
	r.mayNot("Avi", "Era", wire.Forbidden)
	r.Release("Avi")
	if r.entry("Avi") != nil {
		t.Fatal("a user is held for ever")
	}
}

func TestRelationsRosterAnswersAlike(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa", "Era", "Bea"}, relations: map[string]api.Relations{
		"Avi": {Contacts: []string{"Lisa", "Bea"}, BlockedBy: []string{"Bea"}},
	}}
	r := started(t, a, nil)
	r.Acquire("Avi")
	r.may("Avi", "LISA", "Lisa")
	unknown, blocked, other := r.mayNot("Avi", "Nobody", wire.Forbidden), r.mayNot("Avi", "Bea", wire.Forbidden), r.mayNot("Avi", "Era", wire.Forbidden)
	if *unknown != *blocked || *blocked != *other {
		t.Fatalf("%v, %v, %v", unknown, blocked, other)
	}
	if _, ok := r.SmallDirectory(); ok {
		t.Fatal("everybody is listed in a roster")
	}
	if c := r.Sight("Avi").Contacts; !slices.Equal(c, []string{"Bea", "Lisa"}) {
		t.Fatal(c)
	}
	r.change(api.DirectoryEvent{Kind: api.EventContactAdded, Username: "Era", Peer: "Avi"}, func() {
		a.version++
		a.relations["Avi"] = api.Relations{Contacts: []string{"Lisa", "Era"}}
	})
	r.may("Avi", "era", "Era")
	if c := r.Sight("Avi").Contacts; !slices.Equal(c, []string{"Era", "Lisa"}) {
		t.Fatal(c)
	}
	if c := r.Sight("Lisa").Contacts; c != nil {
		t.Fatal(c)
	}
}

// stale are those whose relations are older than the last look.
func stale(r *rig) []*entry {
	_, rest := r.outdated(0, api.DirectoryResponse{Version: r.version.Load()})
	return rest
}

// Without events, a change is known after a look at the directory; without a change nobody is asked about.
func TestRelationsLostEvents(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, relations: map[string]api.Relations{}, version: 1}
	r := started(t, a, func(ti *times) { ti.refresh = 10 * time.Millisecond })
	r.Acquire("Avi")
	r.may("Avi", "Lisa", "Lisa")
	testx.Eventually(t, "relations are up to date", 5*time.Second, func() bool { return len(stale(r)) == 0 })
	loads, looks := a.loads.Load(), a.looks.Load()
	testx.Eventually(t, "several looks", 5*time.Second, func() bool { return a.looks.Load() > looks+5 })
	if n := a.loads.Load(); n != loads {
		t.Fatalf("%d loads for nothing", n-loads)
	}
	a.set(func() {
		a.version++
		a.users = append(a.users, "Era")
		a.relations["Avi"] = api.Relations{BlockedBy: []string{"Lisa"}}
	})
	testx.Eventually(t, "the block counts", 5*time.Second, func() bool { _, err := r.Authorize(t.Context(), "Avi", "Lisa"); return err != nil })
	testx.Eventually(t, "the new user is listed", 5*time.Second, func() bool { l, _ := r.SmallDirectory(); return len(l) == 3 })
}

// What happened while no event was heard is told as the difference, at once, and only those are asked about whom auth names.
func TestRelationsMissedAreToldAsDifferences(t *testing.T) {
	for _, mode := range []api.Mode{api.Roster, api.Everyone} {
		t.Run(string(mode), func(t *testing.T) {
			a := &fakeAuth{mode: mode, users: []string{"Avi", "Lisa", "Era", "Bea"}, version: 1, relations: map[string]api.Relations{
				"Avi": {Contacts: []string{"Bea"}, Blocked: []string{"Era"}}, "Bea": {Contacts: []string{"Avi"}},
			}}
			told := make(chan string, 100)
			r := newRig(t, a, nil)
			r.OnListed(func(user, peer string, added bool) { told <- fmt.Sprint(user, " ", peer, " ", added) })
			r.OnChange(func(e api.DirectoryEvent) { told <- e.Kind + " " + e.Username })
			r.run()
			r.Acquire("Avi")
			r.Acquire("Bea")
			testx.Eventually(t, "both are known", 10*time.Second, func() bool { return r.known("Avi") != nil && r.known("Bea") != nil && r.version.Load() == 1 })
			loads := a.loads.Load()
			a.set(func() {
				a.version, a.changed = 2, []string{"Avi", "Lisa", "Era"}
				a.users = []string{"Avi", "Lisa", "Era", "Mia"}
				if a.relations["Avi"] = (api.Relations{Contacts: []string{"Lisa"}}); mode == api.Everyone {
					a.relations["Avi"] = api.Relations{BlockedBy: []string{"Lisa"}}
				}
			})
			a.reconnect()
			want := []string{"Avi Era true", "Avi Lisa false", "erased Bea", "registered Mia"}
			if mode == api.Roster {
				want = []string{"Avi Bea false", "Avi Lisa true"}
			}
			var got []string
			for range want {
				select {
				case s := <-told:
					got = append(got, s)
				case <-time.After(10 * time.Second):
					t.Fatalf("told %q, want %q", got, want)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
			if n := a.loads.Load() - loads; n != 1 {
				t.Errorf("%d users were read again, want the one who is here and has changed", n)
			}
		})
	}
}

// heard makes a rig whose OnListed is read by expect.
func heard(t *testing.T, a *fakeAuth) (r *rig, expect func(want ...string)) {
	told := make(chan string, 100)
	r = newRig(t, a, func(ti *times) { ti.retry, ti.away = 10*time.Millisecond, time.Millisecond })
	r.OnListed(func(user, peer string, added bool) { told <- fmt.Sprint(user, " ", peer, " ", added) })
	r.run()
	return r, func(want ...string) {
		t.Helper()
		var got []string
		for range want {
			select {
			case s := <-told:
				got = append(got, s)
			case <-time.After(10 * time.Second):
				t.Fatalf("told %q, want %q", got, want)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
}

// A user comes back while auth is away, asks for the contacts through another gateway before this one is answered, and what changes then is missed
// here. What was known when the user left is nothing to compare with.
func TestRelationsAreAllToldWhenTheFirstAnswerIsLate(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa", "Era", "Bea"}, relations: map[string]api.Relations{"Avi": {Contacts: []string{"Bea", "Era"}}}}
	r, expect := heard(t, a)
	r.Acquire("Avi")
	testx.Eventually(t, "Avi is known", 10*time.Second, func() bool { return r.known("Avi") != nil })
	r.Release("Avi")
	a.set(func() { a.away = true })
	loads := a.loads.Load()
	r.Acquire("Avi")
	testx.Eventually(t, "auth was asked", 10*time.Second, func() bool { return a.loads.Load() > loads && r.entry("Avi").done.Load() })
	a.set(func() { a.away, a.relations["Avi"] = false, api.Relations{Contacts: []string{"Bea", "Lisa"}} })
	expect("Avi Bea true", "Avi Era false", "Avi Lisa true")
	a.set(func() { a.relations["Avi"] = api.Relations{Contacts: []string{"Bea"}} })
	a.announce(api.DirectoryEvent{Kind: api.EventContactRemoved, Username: "Avi", Peer: "Lisa"})
	expect("Avi Lisa false")
}

// What was known when a user left is no answer about one who is back, while auth is being asked.
func TestRelationsAreUnknownBeforeAuthWasAsked(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa"}, relations: map[string]api.Relations{"Avi": {}}}
	r := started(t, a, nil)
	r.Acquire("Avi")
	r.mayNot("Avi", "Lisa", wire.Forbidden)
	r.Release("Avi")
	hang := make(chan struct{})
	a.set(func() { a.hang, a.relations["Avi"] = hang, api.Relations{Contacts: []string{"Lisa"}} })
	r.Acquire("Avi")
	if ok, sure := r.Sees("Avi", "Lisa"); ok || sure {
		t.Errorf("sees %t, for sure %t", ok, sure)
	}
	close(hang)
	r.may("Avi", "Lisa", "Lisa")
	if ok, sure := r.Sees("Avi", "Lisa"); !ok || !sure {
		t.Errorf("then it sees %t, for sure %t", ok, sure)
	}
}

// Whoever is told that a contact has ended may not write to it, though auth does not answer.
func TestRelationsPartedWhileAuthIsAway(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa", "Bea"}, relations: map[string]api.Relations{"Avi": {Contacts: []string{"Bea", "Lisa"}}}}
	r, expect := heard(t, a)
	r.Acquire("Avi")
	r.may("Avi", "Lisa", "Lisa")
	r.may("Avi", "Bea", "Bea")
	a.set(func() { a.away = true })
	a.announce(api.DirectoryEvent{Kind: api.EventContactRemoved, Username: "Lisa", Peer: "Avi"})
	expect("Avi Lisa false")
	r.mayNot("Avi", "Lisa", wire.Forbidden)
	r.may("Avi", "Bea", "Bea")
	a.set(func() { a.away = false }) // and auth knows better
	expect("Avi Lisa true")
}

// Whoever is told of a contact may write to it: while auth has not answered since the user came, what an event says is not told.
func TestRelationsAddedWhileAuthIsAway(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa", "Bea"}, relations: map[string]api.Relations{"Avi": {Contacts: []string{"Bea"}}}}
	r, expect := heard(t, a)
	r.Acquire("Avi")
	r.mayNot("Avi", "Lisa", wire.Forbidden)
	r.Release("Avi")
	a.set(func() { a.away = true })
	loads := a.loads.Load()
	r.Acquire("Avi")
	testx.Eventually(t, "auth was asked", 10*time.Second, func() bool { return a.loads.Load() > loads && r.entry("Avi").done.Load() })
	a.announce(api.DirectoryEvent{Kind: api.EventContactAdded, Username: "Avi", Peer: "Lisa"})
	a.announce(api.DirectoryEvent{Kind: api.EventContactRemoved, Username: "Avi", Peer: "Bea"}) // told, and so after the one before
	expect("Avi Bea false")
	a.set(func() { a.away, a.relations["Avi"] = false, api.Relations{Contacts: []string{"Lisa"}} })
	expect("Avi Lisa true")
	r.may("Avi", "Lisa", "Lisa")
}

// An event of the time before the first answer says what was; the answer, what is.
func TestRelationsLateEventTellsWhatIsSoNow(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa", "Bea"}, relations: map[string]api.Relations{"Avi": {Contacts: []string{"Bea"}}}}
	r, expect := heard(t, a)
	r.Acquire("Avi")
	testx.Eventually(t, "Avi is known", 10*time.Second, func() bool { return r.known("Avi") != nil })
	r.tellPair(r.entry("Avi"), "Lisa")
	expect("Avi Lisa false")
	r.tellPair(r.entry("Avi"), "Bea")
	expect("Avi Bea true")
}

// Who is told of a change is told before the next one is asked for.
func TestRelationsAreToldInTheirOrder(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa"}, relations: map[string]api.Relations{"Avi": {}}}
	r := newRig(t, a, nil)
	told := make(chan bool, 2)
	var again sync.WaitGroup
	r.OnListed(func(_, _ string, added bool) {
		if added {
			a.set(func() { a.relations["Avi"] = api.Relations{} })
			over := make(chan struct{})
			again.Go(func() { r.reload("Avi"); close(over) })
			select {
			case <-over: // it was told already that this is over
			case <-time.After(200 * time.Millisecond):
			}
		}
		told <- added
	})
	r.run()
	r.Acquire("Avi")
	testx.Eventually(t, "Avi is known", 10*time.Second, func() bool { return r.known("Avi") != nil })
	a.set(func() { a.relations["Avi"] = api.Relations{Contacts: []string{"Lisa"}} })
	r.reload("Avi")
	again.Wait()
	if first, second := <-told, <-told; !first || second {
		t.Errorf("told %t, then %t", first, second)
	}
}

func TestRelationsAreReadAtOnceAfterAReconnect(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi"}}
	r := started(t, a, nil)
	looks := a.looks.Load()
	a.reconnect()
	testx.Eventually(t, "a look", 5*time.Second, func() bool { return a.looks.Load() > looks })
	_ = r
}

func TestRelationsChatGoesOnWithoutAuth(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa", "Era", "Bea"}, relations: map[string]api.Relations{
		"Avi": {Blocked: []string{"Bea"}}, "Bea": {BlockedBy: []string{"Avi"}},
	}}
	r := started(t, a, func(ti *times) { ti.refresh = 10 * time.Millisecond })
	r.Acquire("Avi")
	r.may("Avi", "Lisa", "Lisa")
	a.set(func() { a.away = true })
	looks := a.looks.Load()
	testx.Eventually(t, "looks fail", 5*time.Second, func() bool { return a.looks.Load() > looks+2 })
	r.may("Avi", "era", "Era")
	r.mayNot("Avi", "Bea", wire.Forbidden)
	// Who comes now is let through, but for what is known of the other side.
	r.Acquire("Lisa")
	r.may("Lisa", "Avi", "Avi")
	r.Acquire("Bea")
	r.mayNot("Bea", "Avi", wire.Forbidden)
	// Who leaves and comes back is remembered.
	r.Release("Avi")
	r.mayNot("Bea", "Avi", wire.Forbidden)
	r.Acquire("Avi")
	r.mayNot("Avi", "Bea", wire.Forbidden)

	a.set(func() { a.away = false; a.version++; a.relations["Lisa"] = api.Relations{BlockedBy: []string{"Era"}} })
	testx.Eventually(t, "the block counts when auth is back", 5*time.Second, func() bool { _, err := r.Authorize(t.Context(), "Lisa", "Era"); return err != nil })
}

func TestRelationsConsentIsNotAssumed(t *testing.T) {
	a := &fakeAuth{mode: api.Roster, users: []string{"Avi", "Lisa"}, relations: map[string]api.Relations{"Avi": {Contacts: []string{"Lisa"}}}}
	r := started(t, a, nil)
	a.set(func() { a.away = true })
	r.Acquire("Avi")
	r.mayNot("Avi", "Lisa", wire.Unavailable)
	a.set(func() { a.away = false })
	testx.Eventually(t, "the contact is known", 5*time.Second, func() bool { n, _ := r.Authorize(t.Context(), "Avi", "Lisa"); return n == "Lisa" })
}

func TestRelationsBeforeTheFirstAnswer(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, away: true}
	r := newRig(t, a, nil)
	r.run()
	r.Acquire("Avi")
	r.mayNot("Avi", "Lisa", wire.Unavailable)
	a.set(func() { a.away = false })
	testx.Eventually(t, "it heals", 5*time.Second, func() bool { n, _ := r.Authorize(t.Context(), "Avi", "Lisa"); return n == "Lisa" })
}

// The first message waits for the answer of auth; it is not let through before.
func TestRelationsTheFirstMessageWaits(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, relations: map[string]api.Relations{"Avi": {BlockedBy: []string{"Lisa"}}}}
	r := started(t, a, nil)
	hang := make(chan struct{})
	a.set(func() { a.hang = hang })
	r.Acquire("Avi")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := r.Authorize(ctx, "Avi", "Lisa")
	r.code(wire.Unavailable, got, err)
	result := make(chan error, 1)
	go func() { _, err := r.Authorize(context.Background(), "Avi", "Lisa"); result <- err }()
	close(hang)
	r.code(wire.Forbidden, "", <-result)
}

// A user whom more block than one answer names.
func TestRelationsManyBlocks(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa", "Era"}, relations: map[string]api.Relations{
		"Avi": {BlockedByMore: true}, "Lisa": {Blocked: []string{"Avi"}},
	}}
	r := started(t, a, nil)
	r.Acquire("Avi")
	r.mayNot("Avi", "Lisa", wire.Forbidden)
	r.may("Avi", "Era", "Era")
}

// Many users come at once, while auth is away, and leave in the middle.
func TestRelationsManyUsers(t *testing.T) {
	a := &fakeAuth{mode: api.Everyone, limit: 10, away: true}
	r := newRig(t, a, nil)
	for i := range 2000 {
		a.users = append(a.users, fmt.Sprint("u", i))
	}
	r.run()
	for _, u := range a.users {
		r.Acquire(u)
		r.Acquire(u)
	}
	for i, u := range a.users {
		r.Release(u)
		if i%2 == 0 {
			r.Release(u)
		}
	}
	a.set(func() { a.away = false })
	testx.Eventually(t, "all relations are known", 20*time.Second, func() bool { return r.Mode() != "" && len(stale(r)) == 0 })
	held := 0
	r.held.Range(func(_, _ any) bool { held++; return true })
	if held != 1000 {
		t.Fatalf("%d users are held", held)
	}
	for _, u := range a.users {
		r.Release(u)
		r.Release(u)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.loads.failed) != 0 || r.released.Len() > maxReleased {
		t.Fatalf("%d failed, %d released", len(r.loads.failed), r.released.Len())
	}
}

func BenchmarkPeer(b *testing.B) {
	a := &fakeAuth{mode: api.Everyone, users: []string{"Avi", "Lisa"}, limit: 1, version: 1}
	d := New(a.services(), a, Config{}, testx.Quiet(), prometheus.NewRegistry())
	b.Cleanup(d.cancel)
	d.Acquire("Avi")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := d.Authorize(context.Background(), "Avi", "Lisa"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
