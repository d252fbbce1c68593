package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/router"
)

// joinJob is one join that the catch-up goroutine has to work off.
type joinJob struct {
	all    bool
	rooms  []room.Room
	since  map[string]int64
	vector []int64
	device string
	other  bool // the device is another one than that of the join before
}

// plain jobs start from what was confirmed, so several make one.
func (j joinJob) plain() bool { return j.since == nil && j.vector == nil && j.device == "" }

// again reports whether the join asks for what the session may have been sent of a room already.
func (j joinJob) again(r room.Room) bool {
	if j.vector != nil || j.other {
		return true
	}
	_, ok := j.since[r.String()]
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
	live     map[room.Room]int64    // with all: those that are live; it is Session.rooms, which stays as it is meanwhile
	hold     bool
	queue    []*router.Delivery
	overflow bool
}

// isLive needs Session.mu.
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
	job, joined, refused, err := s.readJoin(j)
	if err != nil {
		return err
	}
	s.mu.Lock()
	full := len(s.jobs) >= maxJobs
	n := len(s.rooms)
	for _, r := range job.rooms {
		if !s.joined(r) {
			n++
		}
	}
	s.mu.Unlock()
	if full {
		return errBusy
	}
	if n > wire.MaxJoinRooms && len(job.rooms) > 0 {
		return wire.E(wire.InvalidArgument, `too many rooms; join "*" instead`)
	}
	s.ack(wire.Ack{Joined: joined, Refused: refused}, re)
	if re == "" && len(refused) > 0 { // there is no ack that could tell
		s.sendError(wire.E(refused[0].Code, "not joined: "+refused[0].Room), "")
	}
	if err := s.join(job); err != nil {
		return err
	}
	s.watch.comesNear()
	s.meet()
	return nil
}

// ownRooms are what names of rooms turned out to be.
type ownRooms struct {
	rooms   []room.Room
	told    []string       // how the answer names them
	refused []wire.Refusal // what is no room of the user's
	why     error          // of the first that is none
}

// roomsOf reads names of rooms of one's own. It fails when it cannot be known.
func (s *Session) roomsOf(names []string) (own ownRooms, err error) {
	seen := make(map[room.Room]struct{}, len(names))
	for _, n := range names {
		r, err := s.ownRoom(n)
		var no *wire.Error
		switch {
		case errors.As(err, &no) && no.Code != wire.Unavailable && no.Code != wire.Internal:
			own.refused = append(own.refused, wire.Refusal{Room: n, Code: no.Code})
			if own.why == nil {
				own.why = err
			}
			continue
		case err != nil:
			return own, err
		}
		if _, twice := seen[r]; !twice {
			seen[r] = struct{}{}
			own.rooms = append(own.rooms, r)
			own.told = append(own.told, s.told(r, n))
		}
	}
	return own, nil
}

func (s *Session) readJoin(j wire.Join) (job joinJob, joined []string, refused []wire.Refusal, err error) {
	one, many := j.Room != "", !j.Rooms.IsZero()
	if one == many {
		return job, nil, nil, wire.E(wire.InvalidArgument, `join has either "room" or "rooms"`)
	}
	names := j.Rooms.List
	if one {
		names = []string{j.Room}
	}
	job.all = j.Rooms.All
	if !job.all && len(names) == 0 || len(names) > wire.MaxJoinRooms {
		return job, nil, nil, wire.E(wire.InvalidArgument, "rooms has 1 to 5000 rooms")
	}
	if len(j.Since) > wire.MaxSinceRooms {
		return job, nil, nil, wire.E(wire.InvalidArgument, "since has at most 500 rooms")
	}
	if utf8.RuneCountInString(j.Device) > wire.MaxIDChars || strings.ContainsFunc(j.Device, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return job, nil, nil, wire.E(wire.InvalidArgument, "device is at most 64 characters of text")
	}
	job.device = j.Device
	own, err := s.roomsOf(names)
	if err != nil {
		return job, nil, nil, err
	}
	if job.rooms, joined, refused = own.rooms, own.told, own.refused; job.all {
		joined = []string{"*"}
	} else if len(job.rooms) == 0 {
		return job, nil, nil, own.why
	}
	more, err := s.readSince(&job, j.Since)
	if err != nil {
		return job, nil, nil, err
	}
	for _, m := range more {
		if !slices.Contains(refused, m) {
			refused = append(refused, m)
		}
	}
	if j.Resume != "" {
		if job.vector, err = decodeResume(j.Resume, s.hub.Router.Partitions()); err != nil {
			return job, nil, nil, err
		}
	}
	return job, joined, refused, nil
}

// readSince passes over rooms that are none of the user's, as a list of rooms does.
func (s *Session) readSince(job *joinJob, since map[string]int64) (refused []wire.Refusal, err error) {
	if len(since) == 0 {
		return nil, nil
	}
	job.since = make(map[string]int64, len(since))
	for n, seq := range since {
		if seq < 0 {
			return nil, wire.E(wire.InvalidArgument, "since has rooms and the last seq seen in each")
		}
		r, err := room.Parse(n)
		if err != nil || !r.Has(s.user) { // it may be written in another case
			own, err := s.roomsOf([]string{n})
			if err != nil {
				return nil, err
			}
			if refused = append(refused, own.refused...); len(own.rooms) == 0 {
				continue
			}
			r = own.rooms[0]
		}
		job.since[r.String()] = seq
	}
	return refused, nil
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
		job.other = job.device != s.device
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
		if s.reached != nil {
			s.reached = maxVector(s.reached, s.hub.Router.Checked()) // as Alive has it
		}
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
		c := s.startCatching(job)
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

// startCatching needs mu. From here on the rooms of job are joined, and what comes live for those that were not joined before is read.
func (s *Session) startCatching(job joinJob) *catching {
	c := &catching{all: job.all, wasAll: s.all}
	s.catching = c
	if job.all {
		s.all = true
		c.live = s.rooms
		return c
	}
	c.rooms = make(map[room.Room]struct{}, len(job.rooms))
	if s.rooms == nil {
		s.rooms = make(map[room.Room]int64, len(job.rooms))
	}
	for _, r := range job.rooms {
		if !s.joined(r) {
			c.rooms[r] = struct{}{}
			s.rooms[r] = 0
		}
	}
	return c
}

// catchUp reads what job missed. It returns false when the session has ended.
//
// Messages up to V, the router's position now, are read on the job's terms. What comes after is read too, until the rest
// is small; then live messages are held while the last stretch, up to L, is read; then the session is live above L.
// When history does not answer in time, live comes first and the rest follows as late. Rooms that were joined before are live all the while:
// of them only what the job asks for once more is read.
func (s *Session) catchUp(job joinJob, c *catching, start time.Time) bool {
	r := &reader{s: s, c: c, job: job, patience: start.Add(s.hub.cfg.CatchUpPatience)}
	r.plan()
	v := s.hub.Router.Position()
	r.target = v
	if job.vector != nil {
		r.beginAt(job.vector)
	}
	if !r.nothing {
		item := api.CatchUpItem{User: s.user, Rooms: r.rooms, Since: job.since, Vector: job.vector, Upto: v, Device: job.device, Begin: job.vector == nil}
		if !r.readAll(item, v) {
			return false
		}
	} else if !r.begun {
		r.beginAt(v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.catching = nil
	s.reached = r.target
	if r.base != nil { // of rooms that were live before, all is known to have come up to here
		s.reached = minVector(r.target, maxVector(r.base, s.hub.Router.Checked()))
	}
	// With another join to be worked off this is not the end: the token would be above what that one misses.
	if len(s.jobs) == 0 {
		s.wire.Send(wire.EvCaughtUp, wire.CaughtUp{Resume: encodeResume(s.reached)}, "")
	}
	return true
}

// readAll reads on item's terms up to v, and on from there until the session is live.
func (r *reader) readAll(item api.CatchUpItem, v []int64) (ok bool) {
	pages, ok := r.read(item, v)
	if !ok {
		return false
	}
	r.more = true
	s, c := r.s, r.c
	from := v
	if r.job.vector != nil {
		from = maxVector(v, r.job.vector)
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
	switch {
	case c.wasAll:
	case c.all:
		s.floor = to
	default:
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
	nothing  bool    // all rooms are live, and nothing of them is asked for once more
	more     bool    // what the job asks for has been read; what is read now came meanwhile
	base     []int64 // Session.reached when the job began
	begun    bool    // catching_up has been said, or is not to be
}

// plan sees which rooms are to be read.
func (r *reader) plan() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r.base, s.reached = s.reached, nil
	if r.job.all {
		r.nothing = r.c.wasAll && r.job.vector == nil && r.job.since == nil && !r.job.other
		return
	}
	for _, rm := range r.job.rooms {
		if !r.c.isLive(rm) || r.job.again(rm) {
			r.rooms = append(r.rooms, rm.String())
		}
	}
	r.nothing = len(r.rooms) == 0
}

// beginAt says where the catch-up begins: who comes again with that token misses nothing. It needs Session.mu not.
func (r *reader) beginAt(v []int64) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.begin(v)
}

// begin needs Session.mu. nil: it cannot be told, and what the client has is still good.
func (r *reader) begin(v []int64) {
	s := r.s
	r.begun = true
	if v == nil || s.closed {
		return
	}
	if r.base != nil {
		v = minVector(r.base, v)
	}
	s.reached = v
	if len(s.jobs) == 0 { // the next one may begin anywhere
		s.wire.Send(wire.EvCatchingUp, wire.CatchingUp{Resume: encodeResume(v)}, "")
	}
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
		r.hand(res)
		item.Begin = false
		if r.s.wire.Wait(r.s.ctx) != nil {
			return pages, false
		}
		if res.Cont == "" {
			return pages, true
		}
		item.Cont = res.Cont
	}
}

// hand hands a page over.
func (r *reader) hand(res api.CatchUpResult) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if !r.begun {
		r.begin(res.Begin)
	}
	for i := range res.Messages {
		if r.s.closed {
			return
		}
		m := &res.Messages[i]
		rm := room.Room{A: m.A, B: m.B}
		was := r.c.isLive(rm)
		if was && (r.more || !r.job.again(rm)) || r.s.isOwn(m) {
			continue
		}
		d := router.FromStored(m)
		d.Message.Late = r.late || was // younger ones have come
		r.s.deliver(d, true)
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
