package session

import (
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

// notices are those of which it must be asked first whether the session may be told. Of each kind and room the last one waits, so that a mark never
// goes back and none is lost while nobody knows.
type notices struct {
	mu     sync.Mutex // also orders what is told
	wait   map[notice]*api.Ephemeral
	asking bool // askAll runs
}

// notice is what a session may be told of the other one of a room.
type notice struct {
	room  room.Room
	event string
}

const (
	// maxNotices bounds those that wait; more than a user has rooms in which something moves at a time. Others are not told.
	maxNotices = 4096
	// askAgain is how long it takes to ask a directory again that knew nothing.
	askAgain = time.Second
	// typingGood is how long a client shows that somebody types.
	typingGood = 5 * time.Second
)

func over(e *api.Ephemeral) bool { return e.At > 0 && time.Since(time.UnixMilli(e.At)) > typingGood }

// Notify implements router.Member.
func (s *Session) Notify(r room.Room, e *api.Ephemeral) {
	own := e.Username == s.user
	if e.Session == s.name() || e.Event == wire.EvTyping && own || over(e) { // over: it waited somewhere
		return
	}
	ok, sure := true, true
	if !own {
		// The one gate of all that tells what the other one does: whoever may not see a user's presence learns of no marker either.
		ok, sure = s.hub.Directory.Sees(s.user, e.Username)
	}
	n := &s.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !sure:
		if n.add(notice{r, e.Event}, e) && s.ctx.Err() == nil {
			n.asking = true
			s.hub.Go(s.askAll)
		}
	case ok:
		if !own {
			delete(n.wait, notice{r, e.Event}) // what waits is older
		}
		s.tell(r, e)
	}
}

// add needs mu. It has a notice wait; ask says that somebody has to ask.
func (n *notices) add(k notice, e *api.Ephemeral) (ask bool) {
	if old := n.wait[k]; old != nil && old.Seq > e.Seq || old == nil && len(n.wait) >= maxNotices {
		return false
	}
	if n.wait == nil {
		n.wait = map[notice]*api.Ephemeral{}
	}
	n.wait[k] = e
	return !n.asking
}

// askAll asks the directory until no notice waits.
func (s *Session) askAll() {
	n := &s.notices
	for {
		n.mu.Lock()
		peer := ""
		for k := range n.wait {
			peer = k.room.Peer(s.user)
			break
		}
		if s.ctx.Err() != nil || peer == "" {
			n.wait, n.asking = nil, false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		_, err := s.hub.Directory.Authorize(s.ctx, s.user, peer)
		if err != nil && wire.AsError(err).Code == wire.Unavailable { // it will be known, and the mark still counts then
			select {
			case <-time.After(askAgain):
			case <-s.ctx.Done():
			}
			continue
		}
		n.mu.Lock()
		for k, e := range n.wait {
			if k.room.Peer(s.user) != peer {
				continue
			}
			delete(n.wait, k)
			if err == nil && !over(e) {
				s.tell(k.room, e)
			}
		}
		n.mu.Unlock()
	}
}

// tell needs notices.mu. It sends a notice to a session that joined its room.
func (s *Session) tell(r room.Room, e *api.Ephemeral) {
	if s.in.Has(r) {
		s.Send(e.Event, wire.Marker{Room: r.String(), Username: e.Username, Seq: e.Seq}, "")
	}
}
