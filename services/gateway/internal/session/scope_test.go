package session

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session/sessiontest"
)

// Above the limit a session watches those it talks with, as history has them, those it lists, and those it meets.
func TestScopeWatchesThoseWhoAreNear(t *testing.T) {
	w := newWorld(t, nil)
	w.Large = true
	var asked atomic.Int64
	w.hub.sights.Peers = func(context.Context, string) ([]string, error) {
		if asked.Add(1) == 1 {
			return nil, errors.New("history cannot be asked yet")
		}
		return []string{"Era"}, nil
	}
	s, l := w.open("Lisa")
	defer s.Gone(true)
	var said []string
	watches := func(list string) {
		t.Helper()
		testx.Eventually(t, "it watches "+list, 20*time.Second, func() bool {
			said = append(said, w.Heard()...)
			return len(said) > 0 && said[len(said)-1] == "watch "+list
		})
	}
	if err := s.Join(sessiontest.Everyone, ""); err != nil {
		t.Fatal(err)
	}
	l.WaitCaughtUp(t)
	watches("Era")
	w.hub.NamesListed("Lisa", []string{"Mia", "Avi"})
	watches("Avi Era Mia")
	s.Deliver(router.FromStored(&api.StoredMessage{A: "Lisa", B: "Tom", Sender: "Tom", Seq: 1}))
	watches("Avi Era Mia Tom")
	w.hub.NamesListed("Zoe", []string{"Bob"}) // of somebody who is not here
	zoe, log := w.open("Zoe")
	defer zoe.Gone(true)
	if err := zoe.Join(sessiontest.Everyone, ""); err != nil {
		t.Fatal(err)
	}
	log.WaitCaughtUp(t)
	watches("Bob Era")
}
