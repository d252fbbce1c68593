package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

func TestNearbyKeepsTheLastNamesOnce(t *testing.T) {
	n := newNearby()
	n.add("Lisa", []string{"Avi", "Era"})
	n.add("Lisa", []string{"Mia", "Avi"})
	if got := n.list("Lisa"); !slices.Equal(got, []string{"Mia", "Avi", "Era"}) {
		t.Errorf("listed %q", got)
	}
	many := make([]string, wire.MaxWatchedUsers+10)
	for i := range many {
		many[i] = fmt.Sprint("u", i)
	}
	before := n.list("Lisa")
	n.add("Lisa", many)
	if got := n.list("Lisa"); !slices.Equal(got, many[:wire.MaxWatchedUsers]) {
		t.Errorf("%d names are kept", len(got))
	}
	if !slices.Equal(before, []string{"Mia", "Avi", "Era"}) {
		t.Errorf("what was given before is %q now", before)
	}
	for i := range nearUsers {
		n.add(fmt.Sprint("other", i), nil)
	}
	if got := n.list("Lisa"); got != nil {
		t.Errorf("of more than %d users, one is remembered with %d names", nearUsers, len(got))
	}
}

func TestWhoeverOneTalksWithIsNearUpToALimit(t *testing.T) {
	s := &Session{closed: true} // so that nothing is looked up
	if s.meets("Avi"); s.met != nil {
		t.Error("a session that need not know notes whom it meets")
	}
	s.met = map[string]struct{}{}
	for i := range wire.MaxWatchedUsers + 10 {
		s.meets(fmt.Sprint("u", i))
	}
	if len(s.met) != wire.MaxWatchedUsers {
		t.Errorf("%d are near", len(s.met))
	}
}

// Above the limit a session watches those it talks with, as history has them, those it lists, and those it meets.
func TestThoseWhoAreNearAreWatched(t *testing.T) {
	w := newSeedWorld(t, nil)
	w.large = true
	var asked atomic.Int64
	w.hub.Peers = func(context.Context, string) ([]string, error) {
		if asked.Add(1) == 1 {
			return nil, errors.New("history cannot be asked yet")
		}
		return []string{"Era"}, nil
	}
	s, l := w.open("Lisa")
	defer s.gone(true)
	var said []string
	watches := func(list string) {
		t.Helper()
		testx.Eventually(t, "it watches "+list, 20*time.Second, func() bool {
			said = append(said, w.heard()...)
			return len(said) > 0 && said[len(said)-1] == "watch "+list
		})
	}
	if err := s.Join(everyone, ""); err != nil {
		t.Fatal(err)
	}
	l.waitCaughtUp(t)
	watches("Era")
	w.hub.NamesListed("Lisa", []string{"Mia", "Avi"})
	watches("Avi Era Mia")
	s.mu.Lock()
	s.meets("Tom")
	s.mu.Unlock()
	watches("Avi Era Mia Tom")
	w.hub.NamesListed("Zoe", []string{"Bob"}) // of somebody who is not here
	if got := w.hub.near.list("Zoe"); !slices.Equal(got, []string{"Bob"}) {
		t.Errorf("remembered %q", got)
	}
}
