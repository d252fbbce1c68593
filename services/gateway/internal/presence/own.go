package presence

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"parley.example/pkg/api"
)

// own is the table of the sessions of this gateway: what presence was told of, and what it is yet to be told.
type own struct {
	mu sync.Mutex
	// told has the sessions that presence knows (or should know, if a request failed) and that are still here.
	told [api.PresenceShards]map[uint64]string
	// sums are the digests of told and of the sessions whose end waits in queue: what presence should have.
	sums  [api.PresenceShards]api.ShardDigest
	queue []api.SessionChange // ID 0: withdrawn
	first int                 // number of queue[0]
	// waiting has the numbers of those in queue that came.
	waiting map[uint64]int
	resync  uint16 // shards that presence asked for
	// absent are the shards in which presence lacks sessions from here, as far as the last heartbeat and what was sent since tell. What
	// presence says of such a shard is wrong about our own users.
	absent uint16
}

func (o *own) init() {
	for i := range o.told {
		o.told[i] = map[uint64]string{}
	}
	o.waiting = map[uint64]int{}
}

// Online says that a session is active here. Repeating it does nothing; an id that went must not be used again.
func (m *Mirror) Online(sid uint64, user string) {
	if m.own.online(sid, user) {
		wake(m.send)
	}
}

// Gone says that a session ended; deliberate when its user said good-bye. Repeating it does nothing.
func (m *Mirror) Gone(sid uint64, user string, deliberate bool) {
	if m.own.gone(sid, user, deliberate) {
		wake(m.send)
	}
}

func (o *own) online(sid uint64, user string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sid == 0 || user == "" {
		return false
	}
	if _, ok := o.waiting[sid]; ok {
		return false
	}
	if _, ok := o.told[api.PresenceShard(user)][sid]; ok {
		return false
	}
	o.waiting[sid] = o.first + len(o.queue)
	o.queue = append(o.queue, api.SessionChange{ID: sid, User: user})
	return true
}

func (o *own) gone(sid uint64, user string, deliberate bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i, ok := o.waiting[sid]; ok {
		// Nobody was told of it.
		delete(o.waiting, sid)
		o.queue[i-o.first] = api.SessionChange{}
		return false
	}
	told := o.told[api.PresenceShard(user)]
	if _, ok := told[sid]; !ok {
		return false
	}
	delete(told, sid)
	o.queue = append(o.queue, api.SessionChange{ID: sid, User: user, Gone: true, Deliberate: deliberate})
	return true
}

// take removes up to max changes from the queue; from now on presence should have them.
func (o *own) take(max int) []api.SessionChange {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []api.SessionChange
	n := 0
	for n < len(o.queue) && len(list) < max {
		c := o.queue[n]
		n++
		if c.ID == 0 {
			continue
		}
		shard := api.PresenceShard(c.User)
		if c.Gone {
			o.sums[shard].Remove(c.ID)
		} else {
			delete(o.waiting, c.ID)
			o.told[shard][c.ID] = c.User
			o.sums[shard].Add(c.ID)
		}
		list = append(list, c)
	}
	o.first += n
	if o.queue = o.queue[n:]; len(o.queue) == 0 {
		o.queue = nil // frees what a storm left
	}
	return list
}

// pending is how many changes wait.
func (o *own) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue)
}

func (o *own) digests() [api.PresenceShards]api.ShardDigest {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sums
}

// compared takes the outcome of a comparison: the shards to send again.
func (o *own) compared(mask uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.resync |= mask
	o.absent = mask
}

// registered says that a shard was sent again as a whole; it reports whether that was the last one.
func (o *own) registered(shard int) (all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.absent &^= 1 << shard
	return o.absent == 0
}

func (o *own) isAbsent(shard int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.absent&(1<<shard) != 0
}

// nextResync is a shard to send again, -1 for none.
func (o *own) nextResync() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range api.PresenceShards {
		if o.resync&(1<<i) != 0 {
			o.resync &^= 1 << i
			return i
		}
	}
	return -1
}

// all makes the requests that say everything that presence should have of a shard, each for a range of ids.
func (o *own) all(gateway string, shard, max int) []api.ResyncRequest {
	o.mu.Lock()
	list := make([]api.SessionChange, 0, len(o.told[shard]))
	for id, user := range o.told[shard] {
		list = append(list, api.SessionChange{ID: id, User: user})
	}
	for _, c := range o.queue {
		if c.Gone && api.PresenceShard(c.User) == shard {
			list = append(list, api.SessionChange{ID: c.ID, User: c.User})
		}
	}
	o.mu.Unlock()
	slices.SortFunc(list, func(a, b api.SessionChange) int { return cmp.Compare(a.ID, b.ID) })
	var reqs []api.ResyncRequest
	for from := uint64(0); ; {
		req := api.ResyncRequest{Gateway: gateway, Shard: shard, From: from, Sessions: list}
		if len(list) <= max {
			return append(reqs, req)
		}
		req.Sessions, req.To = list[:max], list[max-1].ID
		list = list[max:]
		reqs = append(reqs, req)
		if req.To == math.MaxUint64 {
			return reqs
		}
		from = req.To + 1
	}
}

// holds reports whether presence may have sessions of this gateway in a shard.
func (o *own) holds(shard int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sums[shard].Count > 0
}
