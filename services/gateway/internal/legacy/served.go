package legacy

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Bounds of what is remembered about contacts lists.
const (
	servedUsers = 1024
	servedFor   = 5 * time.Minute
)

// served remembers who was online in the contacts list that an old client fetched, by HTTP, at any gateway. Such a client keeps a list of
// its own, and some of them keep a name twice that is announced twice: it is told only what differs.
type served struct {
	mu   sync.Mutex
	rows *simplelru.LRU[string, servedList]
}

type servedList struct {
	online []string
	at     time.Time
}

func newServed() *served {
	rows, _ := simplelru.NewLRU[string, servedList](servedUsers, nil) // fails for sizes below 1 only
	return &served{rows: rows}
}

// Served notes that a contacts list was served to user, with these online.
func (l *Legacy) Served(user string, online []string) {
	l.served.mu.Lock()
	defer l.served.mu.Unlock()
	l.served.rows.Add(user, servedList{online, time.Now()})
}

// take gives the last list and forgets it.
func (s *served) take(user string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.rows.Get(user)
	s.rows.Remove(user)
	if !ok || time.Since(list.at) > servedFor {
		return nil
	}
	return list.online
}
