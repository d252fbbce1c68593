package scope

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"parley.example/client/wire"
)

// listedUsers is of how many users a gateway remembers whom they listed.
const listedUsers = 1024

// listed remembers whom users listed last, at whatever gateway, at most wire.MaxWatchedUsers each.
type listed struct {
	mu   sync.Mutex
	rows *simplelru.LRU[string, []string]
}

func newListed() *listed {
	rows, _ := simplelru.NewLRU[string, []string](listedUsers, nil) // fails for sizes below 1 only
	return &listed{rows: rows}
}

// add puts names before those listed earlier. What of gave is never changed.
func (n *listed) add(user string, names []string) {
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

func (n *listed) of(user string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, _ := n.rows.Get(user)
	return names
}
