package scope

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/presence"
)

func TestMain(m *testing.M) { testx.Main(m) }

func TestNearbyKeepsTheLastNamesOnce(t *testing.T) {
	n := newListed()
	n.add("Lisa", []string{"Avi", "Era"})
	n.add("Lisa", []string{"Mia", "Avi"})
	if got := n.of("Lisa"); !slices.Equal(got, []string{"Mia", "Avi", "Era"}) {
		t.Errorf("listed %q", got)
	}
	many := make([]string, wire.MaxWatchedUsers+10)
	for i := range many {
		many[i] = fmt.Sprint("u", i)
	}
	before := n.of("Lisa")
	n.add("Lisa", many)
	if got := n.of("Lisa"); !slices.Equal(got, many[:wire.MaxWatchedUsers]) {
		t.Errorf("%d names are kept", len(got))
	}
	if !slices.Equal(before, []string{"Mia", "Avi", "Era"}) {
		t.Errorf("what was given before is %q now", before)
	}
	for i := range listedUsers {
		n.add(fmt.Sprint("other", i), nil)
	}
	if got := n.of("Lisa"); got != nil {
		t.Errorf("of more than %d users, one is remembered with %d names", listedUsers, len(got))
	}
}

func TestNearbyIsWhoeverOneTalksWithUpToALimit(t *testing.T) {
	var n near
	if news := n.meets("Avi"); news || n.met != nil {
		t.Error("a session that need not know notes whom it meets")
	}
	n.add(nil)
	if !n.meets("Avi") || n.meets("Avi") {
		t.Error("somebody is news once")
	}
	for i := range wire.MaxWatchedUsers + 10 {
		n.meets(fmt.Sprint("u", i))
	}
	if len(n.met) != wire.MaxWatchedUsers {
		t.Errorf("%d are near", len(n.met))
	}
}

// slow is a directory that answers when it is let, a presence, and a session.
type slow struct {
	ctx   context.Context
	let   chan struct{}
	asked chan string

	mu      sync.Mutex
	watched [][]string
	acks    []string
	log     []string
}

func (d *slow) Authorize(_ context.Context, _, name string) (string, error) {
	d.asked <- name
	<-d.let
	return name, nil
}
func (d *slow) User() string                     { return "Lisa" }
func (d *slow) Context() context.Context         { return d.ctx }
func (d *slow) SmallDirectory() ([]string, bool) { return nil, true }
func (d *slow) Sight(string) directory.Sight     { return directory.Sight{Mode: api.Everyone} }
func (d *slow) Unwatch(presence.Watcher)         {}
func (d *slow) Peers() []string                  { return nil }
func (d *slow) Watch(_ presence.Watcher, _ string, names, _ []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watched, d.log = append(d.watched, names), append(d.log, fmt.Sprint("watch ", names))
}
func (d *slow) Send(_ string, _ any, re string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acks, d.log = append(d.acks, re), append(d.log, "ack "+re)
}

// However fast lists come, one look runs at a time, the last list is in force in the end, and each has its answer, before the picture.
func TestTheLastListCounts(t *testing.T) {
	d := &slow{let: make(chan struct{}), asked: make(chan string, 100)}
	var wg sync.WaitGroup
	var w Scope
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.ctx = ctx
	w.Open(NewDesk(&Desk{Directory: d, Presence: d, Go: wg.Go}), d)
	for i := range 20 {
		if err := w.Watch([]string{fmt.Sprint("u", i)}, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if first := <-d.asked; first != "u0" {
				t.Fatalf("asked for %s", first)
			}
		}
	}
	close(d.let)
	testx.Eventually(t, "all are answered", 10*time.Second, func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.acks) == 20 })
	wg.Wait()
	if want := [][]string{{"u0"}, {"u19"}}; !slices.EqualFunc(d.watched, want, slices.Equal) {
		t.Errorf("watched %q", d.watched)
	}
	if d.log[0] != "ack 0" || d.log[1] != "watch [u0]" || d.log[21] != "watch [u19]" {
		t.Errorf("%q", d.log)
	}
	if err := w.Watch(make([]string, wire.MaxWatchedUsers+1), ""); err == nil {
		t.Error("a list of any length is taken")
	}
}
