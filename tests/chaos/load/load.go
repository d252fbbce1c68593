// Package load is hundreds of people who chat: with the Go SDK, with clients that know nothing of resume, with the old Socket.IO clients;
// on several devices; who come and go. Everything that they see is recorded.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client"
	"parley.example/tests/chaos/checker"
)

// Site is a deployment that people chat on.
type Site interface {
	// Door is where clients connect: whatever balances them.
	Door() string
	// Doors are those of the single gateways, for plain HTTP and for Options.Pinned. Where they cannot be told apart there is one.
	Doors() []string
	// Token signs an access token of a login of its own.
	Token(user, login, scope string) string
	// WaitCalm waits until every process is ready and SQL has what the streams have.
	WaitCalm(within time.Duration)
}

// Options of a World.
type Options struct {
	Users int
	Names string  // what the users' names begin with; "": u
	Rate  float64 // messages a second of all together
	Stay  time.Duration
	Seed  uint64
	// Resend: after an acceptance, people now and then send the same again under the same id, as who never got it would.
	Resend bool
	// Pinned: device i connects to gateway i mod the number of doors only, past the balancer. Mute: those at the last gateway only listen.
	Pinned, Mute bool
	Pad          int // bytes that each message has beside its text
	// Acts is what they do beside chatting, a second, all together: read, and write to one with whom they part and reunite. 0: neither, and what
	// they are told of contacts and marks is not looked at. Roster: the deployment's contacts are by consent.
	Acts   float64
	Roster bool
}

// World is all people and what they have seen.
type World struct {
	t     testing.TB
	c     Site
	o     Options
	start time.Time
	ctx   context.Context // of the people: ends with Close
	end   context.CancelFunc
	http  *http.Client
	wg    sync.WaitGroup

	quiet   atomic.Bool // nobody sends or leaves any more
	sending sync.WaitGroup

	mu      sync.Mutex
	history checker.History
	pad     string
	visits  int
	counts  [checker.Kinds]int // of events, by kind
	people  []*person
	devices []*device
	pairs   []*quarrel
	parted  map[string]bool // who has left for good: only Finish writes it
	asking  chan struct{}   // slots for those who ask HTTP what there is
}

// person is one user.
type person struct {
	name    string
	rooms   []string
	peers   []string
	devices []*device
	quarrel *quarrel // nil for most
	mu      sync.Mutex
	wanted  int64 // logins of old clients so far
}

// sort of a device.
type sort int

const (
	sdk     sort = iota // the Go SDK
	named               // no resume, but the server knows the device
	unnamed             // no resume at all
	old                 // Socket.IO
)

var sortNames = [...]string{"sdk", "named", "plain", "old"}

// crew says which devices user i has.
func crew(i int) []sort {
	switch i % 6 {
	case 0:
		return []sort{sdk, named}
	case 1:
		return []sort{unnamed, unnamed}
	case 2:
		return []sort{old}
	case 3:
		return []sort{sdk, sdk}
	case 4:
		return []sort{named, unnamed}
	default:
		return []sort{old, unnamed}
	}
}

// device is one client of one person. Its fields are of its own goroutine but for those under mu.
type device struct {
	w        *World
	p        *person
	name     string
	sort     sort
	r        *rand.Rand // of who talks
	pause    *rand.Rand // of who keeps the connection: how long it stays, how it ends, when it comes back
	acts     *rand.Rand // of who reads
	session  atomic.Int64
	number   int // of the last message
	ventures int // of those to whom it may have parted from
	seen     map[string]bool
	resume   string
	base     string // where a visitor connects; "": the balancer

	mu      sync.Mutex
	line    line // nil: not connected
	up      chan struct{}
	left    bool // and its last connection has ended
	away    bool // it left of its own will, at the end
	online  map[string]bool
	unknown bool
	top     map[string]int64
	lastID  map[string]lastSent
	errs    []string        // what the server said that answers nothing
	leave   chan bool       // true: with a good-bye
	ws      *websocket.Conn // of a visitor
	view    view
}

// line is one connection, whatever carries it.
type line interface {
	// send tells the outcome: the seq, or why there is none. ctx bounds the waiting.
	send(ctx context.Context, room, content, id string, retry bool) (seq int64, err error)
	read(ctx context.Context, room string, seq int64) error
	// bye says good-bye and closes; drop only closes.
	bye()
	drop()
}

// refusal is a definite no.
type refusal struct{ code string }

func (r refusal) Error() string { return "refused: " + r.code }

// New registers people; Start lets them in.
func New(t testing.TB, c Site, o Options) *World {
	t.Helper()
	w := &World{t: t, c: c, o: o, start: time.Now(), parted: map[string]bool{}, asking: make(chan struct{}, 8), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 20 * time.Second}}
	w.ctx, w.end = context.WithCancel(context.Background())
	if o.Pad > 0 {
		w.pad = " " + strings.Repeat("x", o.Pad)
	}
	if o.Names == "" {
		o.Names = "u"
	}
	for i := range o.Users {
		w.people = append(w.people, &person{name: fmt.Sprintf("%s%03d", o.Names, i)})
	}
	for i, p := range w.people {
		for _, step := range []int{1, 5} {
			if o.Users <= 2*step {
				continue
			}
			q := w.people[(i+step)%o.Users]
			room := client.Room(p.name, q.name)
			p.rooms, q.rooms = append(p.rooms, room), append(q.rooms, room)
			p.peers, q.peers = append(p.peers, q.name), append(q.peers, p.name)
		}
		for n, s := range crew(i) {
			w.add(p, s, fmt.Sprintf("%s%d", sortNames[s], n))
		}
	}
	w.each(func(p *person) {
		if err := w.register(p.name); err != nil {
			t.Errorf("register %s: %v", p.name, err)
		}
	})
	if o.Acts > 0 {
		w.quarrels()
	}
	if o.Roster {
		w.each(func(p *person) {
			for _, q := range p.friends() {
				if err := w.relate(http.MethodPut, "contacts", p.name, q); err != nil {
					t.Errorf("%s asks for %s: %v", p.name, q, err)
				}
			}
		})
	}
	t.Cleanup(w.Close)
	return w
}

// each does something for all people, a few at a time.
func (w *World) each(do func(p *person)) {
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, p := range w.people {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			do(p)
		})
	}
	wg.Wait()
}

func (w *World) register(name string) error {
	body, _ := json.Marshal(map[string]string{"username": name, "password": "correct horse battery"}) // strings: cannot fail
	resp, err := w.http.Post(w.c.Doors()[0]+"/v1/users", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%d %s", resp.StatusCode, b)
	}
	return nil
}

func (w *World) add(p *person, s sort, name string) *device {
	n := uint64(len(w.devices))
	d := &device{w: w, p: p, name: name, sort: s, r: rand.New(rand.NewPCG(w.o.Seed, n)), pause: rand.New(rand.NewPCG(w.o.Seed, n+1<<32)), acts: rand.New(rand.NewPCG(w.o.Seed, n+1<<35)), view: newView(), seen: map[string]bool{}, up: make(chan struct{}),
		online: map[string]bool{}, top: map[string]int64{}, lastID: map[string]lastSent{}, leave: make(chan bool, 1)}
	p.devices = append(p.devices, d)
	w.devices = append(w.devices, d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.Devices = append(w.history.Devices, checker.Device{User: p.name, Name: name, Dedupes: s == sdk, Keeps: s == sdk || s == named, Echoes: s == old})
	if w.o.Pinned {
		doors := w.c.Doors()
		d.base = doors[n%uint64(len(doors))]
	}
	return d
}

// entry is where the device connects.
func (d *device) entry() string {
	if d.base != "" {
		return d.base
	}
	return d.w.c.Door()
}

// Start lets everybody in, waits until all have caught up, and then lets them talk.
func (w *World) Start() {
	w.t.Helper()
	for _, d := range w.devices {
		w.wg.Go(d.live)
	}
	w.Wait("everybody is there", 2*time.Minute, w.AllThere)
	w.Talk()
}

// Wait polls, and says at the end of its patience who is not there.
func (w *World) Wait(what string, within time.Duration, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			var missing []string
			for _, d := range w.devices {
				if !d.there() {
					missing = append(missing, d.p.name+"/"+d.name)
				}
			}
			w.t.Fatalf("not within %s: %s; %d are not there: %v", within, what, len(missing), missing[:min(len(missing), 12)])
		}
		time.Sleep(50 * time.Millisecond) // polling interval
	}
}

// AllThere reports that every device that wants to be is connected.
func (w *World) AllThere() bool {
	for _, d := range w.devices {
		if !d.there() {
			return false
		}
	}
	return true
}

func (d *device) there() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.line != nil || d.away
}

// Since is the history's clock.
func (w *World) Since() time.Duration { return time.Since(w.start) }

func (w *World) record(e checker.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.At = time.Since(w.start)
	w.history.Events = append(w.history.Events, e)
	w.counts[e.Kind]++
}

func (d *device) record(e checker.Event) {
	e.User, e.Device, e.Session = d.p.name, d.name, int(d.session.Load())
	d.w.record(e)
}

// attach begins a session: the line can be used from now on.
func (d *device) attach(l line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line = l
	close(d.up)
}

func (d *device) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.line != nil {
		d.line = nil
		d.up = make(chan struct{})
	}
}

// waitLine waits for a connection.
func (d *device) waitLine(ctx context.Context) (line, error) {
	for {
		d.mu.Lock()
		l, up := d.line, d.up
		d.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// live keeps the device connected, with pauses, until the end.
func (d *device) live() {
	for backoff := 100 * time.Millisecond; d.w.ctx.Err() == nil; {
		err := d.once()
		d.detach()
		if d.w.ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		away := d.away
		d.left = away
		d.mu.Unlock()
		if away {
			return
		}
		wait := time.Duration(d.pause.Int64N(int64(backoff)))
		if err == nil {
			backoff = 100 * time.Millisecond
		} else {
			backoff = min(2*backoff, 2*time.Second)
		}
		select {
		case <-time.After(wait):
		case <-d.w.ctx.Done():
		}
	}
}

func (d *device) once() error {
	switch d.sort {
	case sdk:
		return d.sdkOnce()
	case old:
		return d.oldOnce()
	default:
		return d.plainOnce()
	}
}

// stay is when this connection shall end by the person's will; a closed channel's reader never comes.
func (d *device) stay() <-chan time.Time {
	if d.w.o.Stay == 0 {
		return nil
	}
	stay := d.w.o.Stay/2 + time.Duration(d.pause.Int64N(int64(d.w.o.Stay)))
	if d.pause.IntN(3) == 0 {
		stay *= 4 // long enough for what is late to have come: the checker looks at such a session for itself
	}
	return time.After(stay)
}

// talk sends, one message after the other, until it is quiet.
func (d *device) talk() {
	mean := float64(len(d.w.devices)) / d.w.o.Rate
	for d.w.pause(time.Duration(min(d.r.ExpFloat64(), 5) * mean * float64(time.Second))) {
		room := d.p.rooms[d.r.IntN(len(d.p.rooms))]
		switch n := d.r.IntN(200); n {
		case 0:
			d.trespass()
		case 1:
			d.reuse(room)
		default:
			d.say(room, n < 10)
		}
	}
}

// patience of one attempt; the server gives up after about ten seconds.
const patience = 20 * time.Second

// say sends a message until it has an outcome; careless people do not ask again.
func (d *device) say(room string, careless bool) {
	d.number++
	began := time.Now()
	id := fmt.Sprintf("%s-%d", d.name, d.number)
	e := checker.Event{Room: room, Sender: d.p.name, ID: id, Content: fmt.Sprintf("%s says %d", d.name, d.number) + d.w.pad}
	again := d.w.o.Resend && d.r.IntN(3) == 0
	for retry := false; d.w.ctx.Err() == nil; retry = true {
		l, err := d.waitLine(d.w.ctx)
		if err != nil {
			return
		}
		e.Kind = checker.Sent
		d.record(e)
		ctx, cancel := context.WithTimeout(d.w.ctx, patience)
		seq, err := l.send(ctx, room, e.Content, id, retry)
		cancel()
		r, refused := err.(refusal)
		switch {
		case err == nil:
			e.Kind, e.Seq = checker.Accepted, seq
			d.record(e)
			d.mu.Lock()
			d.lastID[room] = lastSent{id, began}
			d.mu.Unlock()
			if !again {
				return
			}
			again = false
			continue
		case refused && r.code != "unavailable" && !(retry && r.code == "rate_limited"):
			e.Kind = checker.Refused
			d.record(e)
			d.w.t.Errorf("%s/%s: a good message was refused: %s", d.p.name, d.name, r.code)
			return
		}
		e.Kind, e.GaveUp = checker.Unknown, careless
		d.record(e)
		if careless {
			return
		}
		select {
		case <-time.After(time.Duration(50+d.r.IntN(450)) * time.Millisecond):
		case <-d.w.ctx.Done():
		}
	}
}

// trespass sends to a room of others: it must be refused, and nobody may see it.
func (d *device) trespass() {
	other := d.w.people[d.r.IntN(len(d.w.people))]
	if other == d.p {
		return
	}
	for _, room := range other.rooms {
		if client.Peer(room, d.p.name) == d.p.name || client.Peer(room, other.name) == d.p.name {
			continue
		}
		d.number++
		d.mustRefuse(checker.Event{Room: room, Sender: d.p.name, ID: fmt.Sprintf("%s-%d", d.name, d.number), Content: "let me in"})
		return
	}
}

type lastSent struct {
	id string
	at time.Time // of the first try
}

// dedupe is the server's window: an id that is used for another text is noticed within it. The gateway may try for ten seconds, from when the frame has come.
const dedupe = 30 * time.Second

// reuse gives the id of the last message to another text.
func (d *device) reuse(room string) {
	d.mu.Lock()
	l := d.lastID[room]
	d.mu.Unlock()
	if l.id != "" && time.Since(l.at) < dedupe/4 {
		d.mustRefuse(checker.Event{Room: room, Sender: d.p.name, ID: l.id, Content: "something else"})
	}
}

func (d *device) mustRefuse(e checker.Event) {
	if became, _ := d.sendOnce(e); became == checker.Accepted {
		d.w.t.Errorf("%s/%s: %q in %s as %s was accepted, and had to be refused", d.p.name, d.name, e.Content, e.Room, e.ID)
	}
}

// sendOnce sends a message a single time. It becomes Accepted, Refused with a code or, also when there is no connection, Unknown.
func (d *device) sendOnce(e checker.Event) (became checker.Kind, code string) {
	ctx, cancel := context.WithTimeout(d.w.ctx, dedupe/4)
	l, err := d.waitLine(ctx)
	cancel()
	if err != nil {
		return checker.Unknown, ""
	}
	// Who does not wait for the answer misses it when it comes, and a message that is accepted is not received as well.
	ctx, cancel = context.WithTimeout(d.w.ctx, patience)
	defer cancel()
	e.Kind = checker.Sent
	d.record(e)
	seq, err := l.send(ctx, e.Room, e.Content, e.ID, false)
	r, refused := err.(refusal)
	switch {
	case err == nil:
		e.Kind, e.Seq = checker.Accepted, seq
	case refused && r.code != "unavailable":
		e.Kind = checker.Refused
	default:
		e.Kind, e.GaveUp = checker.Unknown, true
	}
	d.record(e)
	return e.Kind, r.code
}

// received notes a message. An SDK client that begins anew knows nothing of what it had: that is the application's to remember.
func (d *device) received(room, sender, id, content string, seq int64, late bool) {
	d.mu.Lock()
	d.top[room] = max(d.top[room], seq)
	d.mu.Unlock()
	d.record(checker.Event{Kind: checker.Received, Room: room, Sender: sender, ID: id, Content: content, Seq: seq, Late: late})
}

func (d *device) begin(fresh bool) {
	d.session.Add(1)
	d.forget()
	d.record(checker.Event{Kind: checker.Connected, Fresh: fresh})
}

func (d *device) over() { d.record(checker.Event{Kind: checker.Disconnected}) }

// get asks over HTTP, patiently.
func (w *World) get(user, path string, out any) error {
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && w.ctx.Err() == nil; {
		last = w.getOnce(user, path, out)
		if last == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) // polling interval
	}
	return last
}

func (w *World) getOnce(user, path string, out any) error {
	b, err := w.ask(http.MethodGet, user, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// ask asks one of the gateways.
func (w *World) ask(method, user, path string) ([]byte, error) {
	doors := w.c.Doors()
	req, err := http.NewRequestWithContext(w.ctx, method, doors[rand.IntN(len(doors))]+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.c.Token(user, "http-"+user, "native"))
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %d %s", path, resp.StatusCode, b)
	}
	return b, err
}

func roomPath(room string) string { return "/v1/rooms/" + url.PathEscape(room) + "/messages" }

func (d *device) refused(code string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errs = append(d.errs, code)
}

func (d *device) refusals() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.errs...)
}
