// Package inbox is what a session is to get: the rooms that it joined, what it missed of them, read from history, and what comes live.
package inbox

import (
	"context"
	"slices"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/router"
)

// Desk is what the inboxes of a gateway share.
type Desk struct {
	Router    *router.Router
	CatchUps  *bus.CatchUps
	Patience  time.Duration // how long a join waits for history before live messages go first
	Go        func(func())
	CaughtUp  func(after time.Duration)
	Overtaken func() // a join went live before history had answered
}

// Owner is the session of an inbox. All but Wait and CatchUp are called under the inbox' lock.
type Owner interface {
	User() string
	// Context ends with the session.
	Context() context.Context
	// Send sends an event to the client.
	Send(event string, data any, re string)
	// Hand delivers a message to the client. read: the running catch-up has read it, and all before it.
	Hand(d *router.Delivery, read bool)
	// Sent reports that message_accepted stands for a message of the session's user that was read from history.
	Sent(m *api.StoredMessage) bool
	// CatchUp says that a catch-up begins or has ended.
	CatchUp(runs bool)
	// Wait returns when everything sent has been handed to the kernel.
	Wait(ctx context.Context) error
}

// Inbox is what a session is to get: the rooms that it joined, and what it missed of them.
type Inbox struct {
	desk  *Desk
	owner Owner

	mu       sync.Mutex // also orders what is delivered
	ended    bool
	all      bool
	joining  bool                // the catch-up goroutine runs
	rooms    map[room.Room]int64 // joined one by one → seq up to which history was read
	read     []int64             // of all: per partition, the seq up to which history was or will be read
	jobs     []Job
	catching *catching
	sent     []int64 // everything up to here was sent, of all rooms; nil while that is not known
}

// Open makes an inbox ready.
func (in *Inbox) Open(d *Desk, o Owner) { in.desk, in.owner = d, o }

// ErrBusy is what a client hears that asks for too much at a time.
var ErrBusy = &wire.Error{Code: wire.RateLimited, Message: "too many requests of this connection are under way", RetryAfterMS: 1000}

// Job is one join that the catch-up goroutine has to work off.
type Job struct {
	All    bool
	Rooms  []room.Room
	Since  map[string]int64
	Vector []int64
	Device string
	Other  bool // the device is another one than that of the join before
}

// plain jobs start from what was confirmed, so several make one.
func (j Job) plain() bool { return j.Since == nil && j.Vector == nil && j.Device == "" }

// again reports whether the join asks for what the session may have been sent of a room already.
func (j Job) again(r room.Room) bool {
	if j.Vector != nil || j.Other {
		return true
	}
	_, ok := j.Since[r.String()]
	return ok
}

const (
	maxJobs        = 256
	holdMessages   = 256 // held back while the last read of a join is under way
	catchUpTimeout = 5 * time.Second
)

// catching is the state of a running catch-up. Live messages of its rooms are dropped, because they are read from history; in its
// last moments (hold) they are kept. Rooms that were joined before are live all the while.
type catching struct {
	all      bool
	rooms    map[room.Room]struct{} // without those that are live
	wasAll   bool                   // all are live
	live     map[room.Room]int64    // with all: those that are live; it is inbox.rooms, which stays as it is meanwhile
	hold     bool
	queue    []*router.Delivery
	overflow bool
}

// isLive needs inbox.mu.
func (c *catching) isLive(r room.Room) bool {
	if c.wasAll {
		return true
	}
	if c.all {
		_, ok := c.live[r]
		return ok
	}
	_, ok := c.rooms[r]
	return !ok
}

func (c *catching) covers(r room.Room) bool {
	if c.all {
		return !c.isLive(r)
	}
	_, ok := c.rooms[r]
	return ok
}

func (c *catching) offer(d *router.Delivery) {
	switch {
	case !c.hold:
	case len(c.queue) >= holdMessages:
		c.overflow = true
	default:
		c.queue = append(c.queue, d)
	}
}

// readUpTo needs mu. It is the seq up to which a room's messages were or will be read from history.
func (in *Inbox) readUpTo(r room.Room, p int) int64 {
	if seq, ok := in.rooms[r]; ok {
		return seq
	}
	if in.read != nil {
		return in.read[p]
	}
	return 0
}

// joined needs mu.
func (in *Inbox) joined(r room.Room) bool {
	if in.all {
		return true
	}
	_, ok := in.rooms[r]
	return ok
}

// Has reports whether a room is joined.
func (in *Inbox) Has(r room.Room) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.joined(r)
}

// Covers reports whether a room is joined, or a catch-up runs that may be about to join it.
func (in *Inbox) Covers(r room.Room) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.joining || in.joined(r)
}

// Joins reports whether a room is joined, or about to be.
func (in *Inbox) Joins(r room.Room) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.joined(r) || slices.ContainsFunc(in.jobs, func(j Job) bool { return j.All || slices.Contains(j.Rooms, r) })
}

// CatchingUp reports whether the session reads what it missed.
func (in *Inbox) CatchingUp() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.joining
}

// Peers are the other users of the rooms that are joined, or about to be.
func (in *Inbox) Peers() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	peers := make([]string, 0, len(in.rooms))
	for r := range in.rooms {
		peers = append(peers, r.Peer(in.owner.User()))
	}
	for _, j := range in.jobs { // not in rooms before their catch-up begins
		for _, r := range j.Rooms {
			peers = append(peers, r.Peer(in.owner.User()))
		}
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}

// End drops what is under way; nothing is delivered any more.
func (in *Inbox) End() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended, in.catching, in.jobs = true, nil, nil
}

// Live reports whether a room's messages come live, whatever is still to be read.
func (in *Inbox) Live(r room.Room) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.joined(r) && (in.catching == nil || !in.catching.covers(r))
}

// Take takes a message that the router brings.
func (in *Inbox) Take(d *router.Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended || !in.joined(d.Room) || d.Message.Seq <= in.readUpTo(d.Room, d.P) {
		return
	}
	if c := in.catching; c != nil && c.covers(d.Room) {
		c.offer(d)
		return
	}
	in.owner.Hand(d, false)
}

// Token is a resume token of now, "" while there is none.
func (in *Inbox) Token() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.sent == nil || len(in.jobs) > 0: // a join that waits may begin anywhere
		return ""
	case in.joining:
		return encodeResume(in.sent)
	}
	// Everything up to what the router has checked was handed to the wire before this answer.
	return encodeResume(maxVector(in.sent, in.desk.Router.Verified()))
}

// Refuses reports why a join is too much, nil when it is not.
func (in *Inbox) Refuses(job Job) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.rooms)
	for _, r := range job.Rooms {
		if !in.joined(r) {
			n++
		}
	}
	switch {
	case len(in.jobs) >= maxJobs:
		return ErrBusy
	case n > wire.MaxJoinRooms && len(job.Rooms) > 0:
		return wire.E(wire.InvalidArgument, `too many rooms; join "*" instead`)
	}
	return nil
}

// Join queues a job and sees that the catch-up goroutine runs.
func (in *Inbox) Join(job Job) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return
	}
	if n := len(in.jobs); n > 0 && job.plain() && in.jobs[n-1].plain() {
		last := &in.jobs[n-1]
		last.All = last.All || job.All
		last.Rooms = append(last.Rooms, job.Rooms...)
	} else {
		in.jobs = append(in.jobs, job)
	}
	if !in.joining {
		if in.sent != nil {
			in.sent = maxVector(in.sent, in.desk.Router.Verified()) // as Token has it
		}
		in.joining = true
		in.owner.CatchUp(true)
		in.desk.Go(in.catchUps)
	}
}
