package inbox

import (
	"context"
	"math/rand/v2"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/services/gateway/internal/router"
)

// catchUps works off the jobs, then ends.
func (in *Inbox) catchUps() {
	for {
		in.mu.Lock()
		if in.ended || len(in.jobs) == 0 {
			in.joining = false
			in.owner.CatchUp(false)
			in.mu.Unlock()
			return
		}
		job := in.jobs[0]
		if in.jobs = in.jobs[1:]; len(in.jobs) == 0 {
			in.jobs = nil
		}
		c := in.start(job)
		in.mu.Unlock()
		start := time.Now()
		if !in.catchUp(job, c, start) {
			in.mu.Lock()
			in.joining = false
			in.mu.Unlock()
			return
		}
		in.desk.CaughtUp(time.Since(start))
	}
}

// start needs mu. From here on the rooms of job are joined, and what comes live for those that were not joined before is read.
func (in *Inbox) start(job Job) *catching {
	c := &catching{all: job.All, wasAll: in.all}
	in.catching = c
	if job.All {
		in.all = true
		c.live = in.rooms
		return c
	}
	c.rooms = make(map[room.Room]struct{}, len(job.Rooms))
	if in.rooms == nil {
		in.rooms = make(map[room.Room]int64, len(job.Rooms))
	}
	for _, r := range job.Rooms {
		if !in.joined(r) {
			c.rooms[r] = struct{}{}
			in.rooms[r] = 0
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
func (in *Inbox) catchUp(job Job, c *catching, start time.Time) bool {
	r := &reader{in: in, c: c, job: job, patience: start.Add(in.desk.Patience)}
	r.plan()
	v := in.desk.Router.Routed()
	r.target = v
	if job.Vector != nil {
		r.beginAt(job.Vector)
	}
	if !r.nothing {
		item := api.CatchUpItem{User: in.owner.User(), Rooms: r.rooms, Since: job.Since, Vector: job.Vector, Upto: v, Device: job.Device, Begin: job.Vector == nil}
		if !r.readAll(item, v) {
			return false
		}
	} else if !r.begun {
		r.beginAt(v)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return false
	}
	in.catching = nil
	in.sent = r.target
	if r.base != nil { // of rooms that were live before, all is known to have come up to here
		in.sent = minVector(r.target, maxVector(r.base, in.desk.Router.Verified()))
	}
	// With another join to be worked off this is not the end: the token would be above what that one misses.
	if len(in.jobs) == 0 {
		in.owner.Send(wire.EvCaughtUp, wire.CaughtUp{Resume: encodeResume(in.sent)}, "")
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
	in, c := r.in, r.c
	from := v
	if r.job.Vector != nil {
		from = maxVector(v, r.job.Vector)
	}
	for !r.live {
		hold := pages <= 1
		if hold {
			in.mu.Lock()
			c.hold, c.overflow, c.queue = true, false, nil
			in.mu.Unlock()
		}
		to := in.desk.Router.Routed()
		r.target = to
		if pages, ok = r.readBetween(from, to); !ok {
			return false
		}
		from = maxVector(from, to)
		if hold && !r.live && in.goLive(c, to) {
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
func (in *Inbox) goLive(c *catching, to []int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if c.overflow {
		c.hold, c.overflow, c.queue = false, false, nil
		return false
	}
	switch {
	case c.wasAll:
	case c.all:
		in.read = to
	default:
		for r := range c.rooms {
			if in.rooms != nil {
				in.rooms[r] = to[subject.Partition(r, len(to))]
			}
		}
	}
	if in.ended {
		return true
	}
	in.catching = nil
	for _, d := range c.queue {
		if d.Message.Seq > to[d.P] {
			in.owner.Hand(d, false)
		}
	}
	c.queue = nil
	return true
}

// reader reads pages for one catch-up.
type reader struct {
	in       *Inbox
	c        *catching
	job      Job
	rooms    []string
	patience time.Time
	target   []int64 // where live begins
	live     bool    // the session is live above target
	late     bool    // and was so before all was read
	nothing  bool    // all rooms are live, and nothing of them is asked for once more
	more     bool    // what the job asks for has been read; what is read now came meanwhile
	base     []int64 // inbox.sent when the job began
	begun    bool    // catching_up has been said, or is not to be
	had      []int64 // what SQL had was handed over up to here while it lacked the rest
}

// plan sees which rooms are to be read.
func (r *reader) plan() {
	in := r.in
	in.mu.Lock()
	defer in.mu.Unlock()
	r.base, in.sent = in.sent, nil
	if r.job.All {
		r.nothing = r.c.wasAll && r.job.Vector == nil && r.job.Since == nil && !r.job.Other
		return
	}
	for _, rm := range r.job.Rooms {
		if !r.c.isLive(rm) || r.job.again(rm) {
			r.rooms = append(r.rooms, rm.String())
		}
	}
	r.nothing = len(r.rooms) == 0
}

// beginAt says where the catch-up begins: who comes again with that token misses nothing. It needs inbox.mu not.
func (r *reader) beginAt(v []int64) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.begin(v)
}

// begin needs inbox.mu. nil: it cannot be told, and what the client has is still good.
func (r *reader) begin(v []int64) {
	in := r.in
	r.begun = true
	if v == nil || in.ended {
		return
	}
	if r.base != nil {
		v = minVector(r.base, v)
	}
	in.sent = v
	if len(in.jobs) == 0 { // the next one may begin anywhere
		in.owner.Send(wire.EvCatchingUp, wire.CatchingUp{Resume: encodeResume(v)}, "")
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
	item := api.CatchUpItem{User: r.in.owner.User(), Rooms: r.rooms, Vector: from, Upto: to}
	// A client that has seen messages above the position said so.
	for n, seq := range r.job.Since {
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
		ctx, cancel := context.WithTimeout(r.in.owner.Context(), timeout)
		res, applied, err := r.in.desk.CatchUps.Ask(ctx, item, minApplied)
		cancel()
		if r.in.owner.Context().Err() != nil {
			return pages, false
		}
		if err != nil || !reached(applied, minApplied) {
			if err == nil && item.Cont == "" && r.had == nil && !r.takeApplied(item, res, applied) {
				return pages, false
			}
			if !r.live && time.Now().After(r.patience) {
				r.overtake()
			}
			select {
			case <-time.After(wait/2 + rand.N(wait)):
			case <-r.in.owner.Context().Done():
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
		if r.in.owner.Wait(r.in.owner.Context()) != nil {
			return pages, false
		}
		if res.Cont == "" {
			return pages, true
		}
		item.Cont = res.Cont
	}
}

// takeApplied hands over what SQL has of item, of which res is the first page: nobody waits for what was said long ago because SQL cannot take what was
// said just now.
func (r *reader) takeApplied(item api.CatchUpItem, res api.CatchUpResult, applied []int64) (ok bool) {
	item.Upto = minVector(item.Upto, applied)
	if res.Begin != nil { // what SQL lacks is missed as well
		res.Begin = minVector(res.Begin, applied)
	}
	r.hand(res)
	if r.in.owner.Wait(r.in.owner.Context()) != nil {
		return false
	}
	if res.Cont != "" {
		item.Cont, item.Begin = res.Cont, false
		if _, ok := r.read(item, nil); !ok {
			return false
		}
	}
	r.had = item.Upto
	return true
}

// hand hands a page over.
func (r *reader) hand(res api.CatchUpResult) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if !r.begun {
		r.begin(res.Begin)
	}
	for i := range res.Messages {
		if r.in.ended {
			return
		}
		m := &res.Messages[i]
		rm := room.Room{A: m.A, B: m.B}
		was := r.c.isLive(rm)
		if was && (r.more || !r.job.again(rm)) || r.had != nil && m.Seq <= r.had[m.P] || r.in.owner.Sent(m) {
			continue
		}
		d := router.FromStored(m)
		d.Message.Late = r.late || was // younger ones have come
		r.in.owner.Hand(d, true)
	}
}

// overtake makes the session live although history has not answered; the rest will be late.
func (r *reader) overtake() {
	in := r.in
	r.live, r.late = true, true
	in.desk.Overtaken()
	for {
		in.mu.Lock()
		held := r.c.hold && !r.c.overflow
		if !held {
			// Live messages were dropped until now: they lie at or below the position taken next.
			r.c.hold, r.c.overflow, r.c.queue = true, false, nil
		}
		in.mu.Unlock()
		if !held {
			r.target = in.desk.Router.Routed()
		}
		if in.goLive(r.c, r.target) {
			return
		}
	}
}
