package session

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"parley.example/client/wire"
	"parley.example/pkg/api"
)

// Where everybody is a contact and they are too many to be told of, a session gets the presence of those who are near: with whom its user
// talks, and whom the user's clients listed last, at whatever gateway. Of all others it is told that nothing is known.

// nearUsers is of how many users a gateway remembers whom they listed.
const nearUsers = 1024

// nearby remembers whom users listed last, at most wire.MaxWatchedUsers each.
type nearby struct {
	mu   sync.Mutex
	rows *simplelru.LRU[string, []string]
}

func newNearby() *nearby {
	rows, _ := simplelru.NewLRU[string, []string](nearUsers, nil) // fails for sizes below 1 only
	return &nearby{rows: rows}
}

// add puts names before those listed earlier. What list gave is never changed.
func (n *nearby) add(user string, names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, _ := n.rows.Get(user)
	have := make(map[string]struct{}, len(names))
	all := make([]string, 0, min(len(names)+len(old), wire.MaxWatchedUsers))
	for _, list := range [][]string{names, old} {
		for _, name := range list {
			if _, twice := have[name]; !twice && len(all) < wire.MaxWatchedUsers {
				have[name] = struct{}{}
				all = append(all, name)
			}
		}
	}
	n.rows.Add(user, all)
}

func (n *nearby) list(user string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, _ := n.rows.Get(user)
	return names
}

// NamesListed notes whom a client of user was shown, at any gateway.
func (h *Hub) NamesListed(user string, names []string) {
	h.near.add(user, names)
	for _, m := range h.Router.Members(user) {
		if s, ok := m.(*Session); ok {
			s.mu.Lock()
			if s.met != nil {
				s.widen()
			}
			s.mu.Unlock()
		}
	}
}

func (w *watching) comesNear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.near = true
}

// meet finds out with whom the user talks, once, when the session needs to know.
func (s *Session) meet() {
	_, small := s.hub.Directory.SmallDirectory()
	if small || s.hub.Directory.Sight(s.user).Mode != api.Everyone {
		return
	}
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.near || w.meeting || s.ctx.Err() != nil {
		return
	}
	w.meeting = true
	s.hub.wg.Add(1)
	go func() {
		defer s.hub.wg.Done()
		s.meetAll(nil) // whom it listed is known already
		if s.hub.Peers == nil {
			return
		}
		for wait := firstLook; ; wait = min(2*wait, lastLook) {
			peers, err := s.hub.Peers(s.ctx, s.user)
			if err == nil {
				s.meetAll(peers)
				return
			}
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
				return
			}
		}
	}()
}

func (s *Session) meetAll(peers []string) {
	peers = append(peers, s.peers()...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.met == nil {
		s.met = make(map[string]struct{}, len(peers))
	}
	for _, p := range peers {
		if len(s.met) < wire.MaxWatchedUsers {
			s.met[p] = struct{}{}
		}
	}
	s.widen()
}

// meets notes somebody with whom the user talks. It needs mu.
func (s *Session) meets(peer string) {
	if s.met == nil || len(s.met) >= wire.MaxWatchedUsers {
		return
	}
	if _, ok := s.met[peer]; !ok {
		s.met[peer] = struct{}{}
		s.widen()
	}
}

// widen has those who are near be watched. It needs mu, and does not wait.
func (s *Session) widen() {
	if s.widening || s.closed {
		return
	}
	s.widening = true
	s.hub.wg.Add(1)
	go func() {
		defer s.hub.wg.Done()
		s.mu.Lock()
		s.widening = false
		names := make([]string, 0, len(s.met))
		for p := range s.met {
			names = append(names, p)
		}
		s.mu.Unlock()
		names = append(names, s.hub.near.list(s.user)...)
		slices.Sort(names)
		s.watchPeers(slices.Compact(names))
	}()
}
