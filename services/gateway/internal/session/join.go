package session

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"parley/pkg/api"
	"parley/pkg/room"
	"parley/pkg/subject"
	"parley/pkg/wire"
	"parley/services/gateway/internal/router"
)

// joinJob is one join that the catch-up goroutine has to work off.
type joinJob struct {
	all    bool
	rooms  []room.Room
	since  map[string]int64
	vector []int64
	device string
}

// plain jobs start from what was confirmed, so several make one.
func (j joinJob) plain() bool { return j.since == nil && j.vector == nil && j.device == "" }

const (
	maxJobs        = 256
	holdMessages   = 256 // held back while the last read of a join is under way
	catchUpTimeout = 5 * time.Second
)

// catching is the state of a running catch-up. Live messages of its rooms are dropped, because they are read from history; in its
// last moments (hold) they are kept.
type catching struct {
	all      bool
	rooms    map[room.Room]struct{}
	hold     bool
	queue    []*router.Delivery
	overflow bool
}

func (c *catching) covers(r room.Room) bool {
	if c.all {
		return true
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

// floorOf needs mu.
func (s *Session) floorOf(r room.Room, p int) int64 {
	if f, ok := s.rooms[r]; ok {
		return f
	}
	if s.floor != nil {
		return s.floor[p]
	}
	return 0
}

// Join takes a join of the client: presence, what was missed and caught_up follow.
func (s *Session) Join(j wire.Join, re string) error {
	job, err := s.readJoin(j)
	if err != nil {
		return err
	}
	joined := []string{"*"}
	if !job.all {
		joined = joined[:0]
		for _, r := range job.rooms {
			joined = append(joined, r.String())
		}
	}
	s.mu.Lock()
	full := len(s.jobs) >= maxJobs
	tooMany := len(s.rooms)+len(job.rooms) > wire.MaxJoinRooms
	s.mu.Unlock()
	if full {
		return errBusy
	}
	if tooMany {
		return wire.E(wire.InvalidArgument, `too many rooms; join "*" instead`)
	}
	s.ack(wire.Ack{Joined: joined}, re)
	return s.join(job)
}

func (s *Session) readJoin(j wire.Join) (joinJob, error) {
	var job joinJob
	one, many := j.Room != "", !j.Rooms.IsZero()
	if one == many {
		return job, wire.E(wire.InvalidArgument, `join has either "room" or "rooms"`)
	}
	names := j.Rooms.List
	if one {
		names = []string{j.Room}
	}
	job.all = j.Rooms.All
	if !job.all && len(names) == 0 || len(names) > wire.MaxJoinRooms {
		return job, wire.E(wire.InvalidArgument, "rooms has 1 to 5000 rooms")
	}
	if len(j.Since) > wire.MaxSinceRooms {
		return job, wire.E(wire.InvalidArgument, "since has at most 500 rooms")
	}
	if utf8.RuneCountInString(j.Device) > wire.MaxIDChars || strings.ContainsFunc(j.Device, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return job, wire.E(wire.InvalidArgument, "device is at most 64 characters of text")
	}
	job.device = j.Device
	seen := map[room.Room]struct{}{}
	for _, n := range names {
		r, err := s.room(n)
		if err != nil {
			return job, err
		}
		if _, twice := seen[r]; !twice {
			seen[r] = struct{}{}
			job.rooms = append(job.rooms, r)
		}
	}
	if len(j.Since) > 0 {
		job.since = make(map[string]int64, len(j.Since))
		for n, seq := range j.Since {
			r, err := room.Parse(n)
			if err != nil || seq < 0 {
				return job, wire.E(wire.InvalidArgument, "since has rooms and the last seq seen in each")
			}
			if !r.Has(s.user) {
				// The client may have written the name in another case.
				if r, err = s.room(n); err != nil {
					return job, err
				}
			}
			job.since[r.String()] = seq
		}
	}
	if j.Resume != "" {
		v, err := decodeResume(j.Resume, s.hub.Router.Partitions())
		if err != nil {
			return job, err
		}
		job.vector = v
	}
	return job, nil
}

// join queues a job and sees that the catch-up goroutine runs. Called by the connection's reader.
func (s *Session) join(job joinJob) error {
	if err := s.activate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if job.device != "" {
		s.device = job.device
	}
	if n := len(s.jobs); n > 0 && job.plain() && s.jobs[n-1].plain() {
		last := &s.jobs[n-1]
		last.all = last.all || job.all
		last.rooms = append(last.rooms, job.rooms...)
	} else {
		s.jobs = append(s.jobs, job)
	}
	if !s.joining {
		s.joining = true
		s.hub.wg.Add(1)
		go s.catchUps()
	}
	return nil
}

// joinPending needs mu.
func (s *Session) joinPending(r room.Room) bool {
	for _, j := range s.jobs {
		if j.all {
			return true
		}
		for _, x := range j.rooms {
			if x == r {
				return true
			}
		}
	}
	return false
}

// catchUps works off the jobs, then ends.
func (s *Session) catchUps() {
	defer s.hub.wg.Done()
	for {
		s.mu.Lock()
		if s.closed || len(s.jobs) == 0 {
			s.joining, s.own = false, nil
			s.caughtUp()
			s.mu.Unlock()
			return
		}
		job := s.jobs[0]
		s.jobs = s.jobs[1:]
		if len(s.jobs) == 0 {
			s.jobs = nil
		}
		// From here on the rooms are joined, and what comes live for them is read below.
		c := &catching{all: job.all}
		s.catching = c
		if job.all {
			s.all = true
			s.rooms = nil
		} else {
			c.rooms = make(map[room.Room]struct{}, len(job.rooms))
			if s.rooms == nil {
				s.rooms = make(map[room.Room]int64, len(job.rooms))
			}
			for _, r := range job.rooms {
				c.rooms[r] = struct{}{}
				s.rooms[r] = 0
			}
		}
		s.mu.Unlock()
		start := time.Now()
		if !s.catchUp(job, c, start) {
			s.mu.Lock()
			s.joining = false
			s.mu.Unlock()
			return
		}
		s.hub.m.catchUps.Observe(time.Since(start).Seconds())
	}
}

// catchUp reads what job missed. It returns false when the session has ended.
//
// Messages up to V, the router's position now, are read on the job's terms. What comes after is read too, until the rest
// is small; then live messages are held while the last stretch, up to L, is read; then the session is live above L.
// When history does not answer in time, live comes first and the rest follows as late.
func (s *Session) catchUp(job joinJob, c *catching, start time.Time) bool {
	r := &reader{s: s, c: c, job: job, patience: start.Add(s.hub.cfg.CatchUpPatience)}
	if !job.all {
		for _, rm := range job.rooms {
			r.rooms = append(r.rooms, rm.String())
		}
	}
	v := s.hub.Router.Position()
	item := api.CatchUpItem{User: s.user, Rooms: r.rooms, Since: job.since, Vector: job.vector, Upto: v}
	if job.vector == nil {
		item.Device = job.device
	}
	pages, ok := r.read(item, v)
	if !ok {
		return false
	}
	from := v
	if job.vector != nil {
		from = maxVector(v, job.vector)
	}
	for !r.live {
		hold := pages <= 1
		if hold {
			s.mu.Lock()
			c.hold, c.overflow, c.queue = true, false, nil
			s.mu.Unlock()
		}
		to := s.hub.Router.Position()
		r.target = to
		if pages, ok = r.readBetween(from, to); !ok {
			return false
		}
		from = maxVector(from, to)
		if hold && !r.live && s.goLive(c, to) {
			r.live = true
			r.target = to
			from = to
		}
	}
	// Went live before all was read: what lies between is owed.
	if r.late {
		if _, ok = r.readBetween(from, r.target); !ok {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.reached = r.target
	s.wire.Send(wire.EvCaughtUp, wire.CaughtUp{Resume: encodeResume(r.target)}, "")
	return true
}

// goLive ends the catching state: everything up to `to` is or will be read, everything above is live. It returns false
// when more came meanwhile than could be held.
func (s *Session) goLive(c *catching, to []int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.overflow {
		c.hold, c.overflow, c.queue = false, false, nil
		return false
	}
	if c.all {
		s.floor = to
	} else {
		for r := range c.rooms {
			if s.rooms != nil {
				s.rooms[r] = to[subject.Partition(r, len(to))]
			}
		}
	}
	if s.closed {
		return true
	}
	s.catching = nil
	for _, d := range c.queue {
		if d.Message.Seq > to[d.P] {
			s.deliver(d, false)
		}
	}
	c.queue = nil
	return true
}

// reader reads pages for one catch-up.
type reader struct {
	s        *Session
	c        *catching
	job      joinJob
	rooms    []string
	patience time.Time
	target   []int64 // where live begins
	live     bool    // the session is live above target
	late     bool    // and was so before all was read
}

// readBetween reads what lies above from and at or below to.
func (r *reader) readBetween(from, to []int64) (pages int, ok bool) {
	more := false
	for p := range to {
		more = more || to[p] > from[p]
	}
	if !more {
		return 0, true
	}
	item := api.CatchUpItem{User: r.s.user, Rooms: r.rooms, Vector: from, Upto: to}
	// A client that has seen messages above the position said so.
	for n, seq := range r.job.since {
		rm, err := room.Parse(n)
		if err == nil && seq > from[subject.Partition(rm, len(from))] {
			if item.Since == nil {
				item.Since = map[string]int64{}
			}
			item.Since[n] = seq
		}
	}
	return r.read(item, to)
}

// read sends all pages of item, each when the one before has left. ok is false when the session has ended.
func (r *reader) read(item api.CatchUpItem, minApplied []int64) (pages int, ok bool) {
	wait := 10 * time.Millisecond
	for {
		timeout := catchUpTimeout
		if !r.live {
			timeout = min(timeout, max(time.Until(r.patience), 50*time.Millisecond))
		}
		ctx, cancel := context.WithTimeout(r.s.ctx, timeout)
		res, behind, err := r.s.hub.CatchUps.Ask(ctx, item, minApplied)
		cancel()
		if r.s.ctx.Err() != nil {
			return pages, false
		}
		if err != nil || behind {
			if !r.live && time.Now().After(r.patience) {
				r.overtake()
			}
			select {
			case <-time.After(wait/2 + rand.N(wait)):
			case <-r.s.ctx.Done():
				return pages, false
			}
			wait = min(2*wait, 5*time.Second)
			if !r.live {
				wait = min(wait, 250*time.Millisecond)
			}
			continue
		}
		pages++
		r.s.mu.Lock()
		for i := range res.Messages {
			if r.s.closed {
				break
			}
			if r.s.isOwn(&res.Messages[i]) {
				continue
			}
			d := router.FromStored(&res.Messages[i])
			d.Message.Late = r.late
			r.s.deliver(d, true)
		}
		r.s.mu.Unlock()
		if r.s.wire.Wait(r.s.ctx) != nil {
			return pages, false
		}
		if res.Cont == "" {
			return pages, true
		}
		item.Cont = res.Cont
	}
}

// overtake makes the session live although history has not answered; the rest will be late.
func (r *reader) overtake() {
	s := r.s
	r.live, r.late = true, true
	s.hub.m.overtaken.Inc()
	for {
		s.mu.Lock()
		held := r.c.hold && !r.c.overflow
		if !held {
			// Live messages were dropped until now: they lie at or below the position taken next.
			r.c.hold, r.c.overflow, r.c.queue = true, false, nil
		}
		s.mu.Unlock()
		if !held {
			r.target = s.hub.Router.Position()
		}
		if s.goLive(r.c, r.target) {
			return
		}
	}
}
