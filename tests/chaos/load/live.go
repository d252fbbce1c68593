package load

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"parley.example/client"
	"parley.example/tests/chaos/checker"
	"parley.example/tests/picture"
)

// view is what a native client knows of contacts and marks: what HTTP said since the connection began, and what came on it.
type view struct {
	mu      sync.Mutex
	known   *picture.Picture
	told    map[picture.Mark]int64 // by the present session
	changes []change               // of contacts, while HTTP is asked
	asking  int                    // the session for which it is
}

func newView() view { return view{known: picture.New(), told: map[picture.Mark]int64{}} }

type change struct {
	name string
	is   bool
}

// native reports whether the device is told of contacts and marks.
func (d *device) native() bool { return d.w.o.Acts > 0 && d.sort != old }

// contact takes in what came.
func (d *device) contact(name string, is bool) {
	if !d.native() {
		return
	}
	l := &d.view
	l.mu.Lock()
	l.known.Contact(name, is)
	l.changes = append(l.changes, change{name, is})
	l.mu.Unlock()
	if q := d.p.quarrel; q != nil && q.peer(d.p).name == name {
		kind := checker.ToldParted
		if is {
			kind = checker.ToldReunited
		}
		d.record(checker.Event{Kind: kind, Room: q.room})
	}
}

// mark takes in what came; behind what came before in the same session it must not be.
func (d *device) mark(m picture.Mark, seq int64) {
	if !d.native() {
		return
	}
	l := &d.view
	l.mu.Lock()
	back := seq < l.told[m]
	l.told[m] = max(seq, l.told[m])
	l.known.Move(m, seq)
	l.mu.Unlock()
	if back {
		d.record(checker.Event{Kind: checker.WentBack, Room: m.Room, Sender: m.User, Seq: seq})
	}
}

// look asks HTTP, as a client does that has connected, and puts on top of the answer what came since the question. It ends with the session.
func (d *device) look() {
	if !d.native() {
		return
	}
	l, session := &d.view, int(d.session.Load())
	l.mu.Lock()
	l.changes, l.asking = nil, session
	l.mu.Unlock()
	over := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.asking != session || d.w.ctx.Err() != nil
	}
	d.w.wg.Go(func() {
		d.w.asking <- struct{}{}
		defer func() { <-d.w.asking }()
		for !over() {
			says, err := d.w.says(d.p.name)
			if err != nil {
				continue // patience is in says
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.asking != session {
				return
			}
			l.known.Contacts = says.Contacts
			for _, c := range l.changes {
				l.known.Contact(c.name, c.is)
			}
			for m, seq := range says.Marks {
				l.known.Move(m, seq)
			}
			l.asking = 0
			return
		}
	})
}

// forget begins a session.
func (d *device) forget() {
	d.view.mu.Lock()
	defer d.view.mu.Unlock()
	clear(d.view.told)
	d.view.asking = 0
}

// says is what HTTP says to a user.
func (w *World) says(user string) (*picture.Picture, error) {
	var contacts []client.Contact
	for after := ""; ; {
		var page client.ContactsPage
		if err := w.get(user, "/v1/contacts?limit=1000&after="+after, &page); err != nil {
			return nil, err
		}
		contacts = append(contacts, page.Contacts...)
		if after = page.Next; after == "" {
			break
		}
	}
	conversations, err := w.conversations(user)
	return picture.Of(user, contacts, conversations), err
}

// act lets a device read now and then, until it is quiet.
func (d *device) act() {
	mean := float64(len(d.w.devices)) / d.w.o.Acts
	for d.w.pause(time.Duration(min(d.acts.ExpFloat64(), 5) * mean * float64(time.Second))) {
		rooms := d.p.rooms
		if q := d.p.quarrel; q != nil {
			if d.acts.IntN(3) == 0 {
				d.venture(q)
				continue
			}
			rooms = append(slices.Clone(rooms), q.room)
		}
		if d.sort == unnamed {
			continue // what is read has been delivered, and its place is its user's: what was late and lies below a mark would not come to it again
		}
		d.readUp(rooms[d.acts.IntN(len(rooms))])
	}
}

// pause waits, and reports whether people still talk.
func (w *World) pause(pause time.Duration) bool {
	for end := time.Now().Add(pause); time.Now().Before(end) && !w.quiet.Load(); {
		time.Sleep(min(time.Until(end), 200*time.Millisecond)) // the person's pace
	}
	return !w.quiet.Load()
}

// readUp reads a room as far as this device has it, again until that is acknowledged: whose mark may have been set and does not know is told of it
// by nobody.
func (d *device) readUp(room string) {
	d.mu.Lock()
	seq := d.top[room]
	d.mu.Unlock()
	for seq > 0 && d.w.ctx.Err() == nil {
		l, err := d.waitLine(d.w.ctx)
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(d.w.ctx, patience)
		err = l.read(ctx, room, seq)
		cancel()
		if err == nil {
			d.haveRead(room, seq)
			return
		}
		select {
		case <-time.After(time.Duration(50+d.acts.IntN(450)) * time.Millisecond):
		case <-d.w.ctx.Done():
		}
	}
}

// haveRead notes an acknowledged mark.
func (d *device) haveRead(room string, seq int64) {
	d.record(checker.Event{Kind: checker.MarkedRead, Room: room, Seq: seq})
	if d.native() {
		d.view.mu.Lock()
		defer d.view.mu.Unlock()
		d.view.known.Move(picture.Mark{Room: room, User: d.p.name, Read: true}, seq)
	}
}

// pictureBound is within which every picture has to be true when all is healed: what a gateway knows of contacts is at most about a minute old.
const pictureBound = 75 * time.Second

// pictures waits until what everybody knows is what HTTP says, as long as is promised, and records both as they are then.
func (w *World) pictures() {
	if w.o.Acts == 0 {
		return
	}
	began := time.Now()
	people := slices.Clone(w.people)
	says := map[*person]*picture.Picture{}
	for deadline := began.Add(pictureBound); ; time.Sleep(100 * time.Millisecond) { // polling interval
		seqs := w.seqs()
		people = slices.DeleteFunc(people, func(p *person) bool {
			now, err := w.says(p.name)
			if err != nil {
				w.t.Errorf("%s asks for contacts and conversations: %v", p.name, err)
				return true
			}
			says[p] = now
			return !slices.ContainsFunc(p.devices, func(d *device) bool { return d.native() && d.there() && len(d.wrong(now, seqs)) > 0 })
		})
		if len(people) == 0 || time.Now().After(deadline) {
			break
		}
	}
	w.t.Logf("what everybody knows of contacts and marks was compared for %.1f s; wrong is that of %d people", time.Since(began).Seconds(), len(people))
	for _, p := range w.people {
		w.record(checker.Event{Kind: checker.Says, User: p.name, Device: "http", Picture: says[p]})
		for _, d := range p.devices {
			if d.native() && d.there() {
				d.view.mu.Lock()
				known := d.view.known.Clone()
				d.view.mu.Unlock()
				d.record(checker.Event{Kind: checker.Knows, Picture: known})
			}
		}
	}
}

func (d *device) wrong(says *picture.Picture, seqs func(picture.Mark) []int64) []picture.Difference {
	d.view.mu.Lock()
	defer d.view.mu.Unlock()
	return d.view.known.Wrong(says, seqs, d.w.parting, func(string) bool { return true })
}

// seqs gives the messages that a mark is about.
func (w *World) seqs() func(picture.Mark) []int64 {
	type by struct{ room, sender string }
	of := map[by]map[int64]bool{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.history.Events {
		if e := &w.history.Events[i]; e.Kind == checker.Received || e.Kind == checker.Accepted {
			k := by{e.Room, e.Sender}
			if of[k] == nil {
				of[k] = map[int64]bool{}
			}
			of[k][e.Seq] = true
		}
	}
	return func(m picture.Mark) []int64 {
		return slices.Collect(maps.Keys(of[by{m.Room, client.Peer(m.Room, m.User)}]))
	}
}
