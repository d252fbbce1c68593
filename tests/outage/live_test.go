package outage

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/tests/harness"
	"parley.example/tests/picture"
)

// liveCuts is how often a gateway loses NATS: a few times in every run, twenty times with PARLEY_LONG=1 (make test-long).
func liveCuts() int {
	if os.Getenv("PARLEY_LONG") == "1" {
		return 20
	}
	return 5
}

const (
	// livePromise is how soon after a gateway has NATS again its clients know what HTTP says. It holds for half of the cuts at least, so that a busy
	// machine is no failure, and for every one with some patience.
	livePromise  = 3 * time.Second
	livePatience = 30 * time.Second
)

// TestLiveState: gateways lose NATS again and again while people read, receive, make and end contacts and block each other. After each time every
// client's picture, put together from what it was told, is what HTTP says.
func TestLiveState(t *testing.T) {
	for _, mode := range []string{"roster", "everyone"} {
		t.Run(mode, func(t *testing.T) {
			s := harness.New(t, harness.Options{Gateways: 3, CutNats: true, Settings: map[string]string{"directory-mode": mode}})
			newScene(t, s.For(t), mode == "roster").storm()
		})
	}
}

// person is a user with two clients, at two gateways.
type person struct {
	*harness.User
	i       int
	clients []*viewer
}

// viewer is one client, and what it knows.
type viewer struct {
	t    *testing.T
	name string
	ws   *harness.WS
	read int // frames

	*picture.Picture
}

// follow takes what has come.
func (p *viewer) follow() {
	frames := p.ws.Frames()
	for _, f := range frames[p.read:] {
		switch f.Event {
		case wire.EvContactAdded, wire.EvContactRemoved:
			p.Contact(harness.Data[wire.Contact](p.t, f).Username, f.Event == wire.EvContactAdded)
		case wire.EvRead, wire.EvDelivered:
			m := harness.Data[wire.Marker](p.t, f)
			p.Move(picture.Mark{Room: m.Room, User: m.Username, Read: f.Event == wire.EvRead}, m.Seq)
		}
	}
	p.read = len(frames)
}

// scene is people who do things; act is held for reading while somebody does one, and whole while nobody may.
type scene struct {
	t      *testing.T
	v      *harness.View
	roster bool
	people []*person
	act    sync.RWMutex

	mu      sync.Mutex
	sent    map[string]map[string][]int64 // room → sender → seqs
	blocked map[string]bool               // rooms
	done    map[string]int
}

func newScene(t *testing.T, v *harness.View, roster bool) *scene {
	c := &scene{t: t, v: v, roster: roster, sent: map[string]map[string][]int64{}, blocked: map[string]bool{}, done: map[string]int{}}
	for i := range 6 {
		c.people = append(c.people, &person{User: v.User(fmt.Sprintf("p%d", i)), i: i})
	}
	for i, p := range c.people {
		for _, q := range c.people[:i] {
			c.befriend(p, q)
		}
	}
	for i, p := range c.people {
		for k := range 2 {
			ws := p.Joined(at(v, i+k))
			p.clients = append(p.clients, &viewer{t: t, name: fmt.Sprintf("%s at %d", p.Name, (i+k)%3), ws: ws, Picture: picture.Of(p.Name, c.contacts(p), nil)})
		}
	}
	return c
}

// did counts what was done.
func (c *scene) did(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what]++
}

// relation changes a contact or a block, at a gateway that works.
func (c *scene) relation(method, kind string, of, to *person) {
	for g := of.i; ; g++ {
		a, err := c.v.Try(method, at(c.v, g)+"/v1/"+kind+"/"+url.PathEscape(to.Name), of.Tokens.AccessToken, nil)
		if err == nil && a.Status < 300 {
			break
		}
		time.Sleep(50 * time.Millisecond) // until a gateway does
	}
	c.did(kind)
}

func (c *scene) befriend(a, b *person) {
	if c.roster {
		c.relation(http.MethodPut, "contacts", a, b)
		c.relation(http.MethodPut, "contacts", b, a)
	}
}

// storm cuts gateways off while people do things.
func (c *scene) storm() {
	t := c.t
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, p := range c.people {
		wg.Go(func() { c.live(p, rand.New(rand.NewPCG(1, uint64(i))), stop) })
	}
	defer wg.Wait()
	defer close(stop)
	r := rand.New(rand.NewPCG(2, 3))
	var took []time.Duration
	for cut := range liveCuts() {
		g := c.v.Gateways[r.IntN(len(c.v.Gateways))]
		lasts := 500*time.Millisecond + time.Duration(r.Int64N(int64(7500*time.Millisecond)))
		g.ToNats.Cut()
		time.Sleep(lasts) // the length of the fault
		g.ToNats.Heal()
		c.v.WaitReady(g.Admin)
		ready := time.Now()
		c.act.Lock() // what is under way ends
		c.equal(cut, ready)
		c.act.Unlock()
		took = append(took, time.Since(ready))
		if t.Failed() {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(took)
	t.Logf("%v; equal after %s in the median, %s at most", c.done, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	if m := took[len(took)/2]; m > livePromise {
		t.Errorf("in half of the cuts the clients' pictures were wrong for longer than %s", m)
	}
	for _, what := range []string{"contacts", "blocks", "reads", "messages"} {
		if c.done[what] < liveCuts() && (c.roster || what != "contacts") {
			t.Errorf("too little happened: %v", c.done)
			return
		}
	}
}

// live does one thing after the other.
func (c *scene) live(p *person, r *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+r.IntN(150)) * time.Millisecond): // people pause
		}
		q := c.people[r.IntN(len(c.people))]
		if q == p {
			continue
		}
		pic := p.clients[r.IntN(len(p.clients))]
		c.act.RLock()
		switch n := r.IntN(20); {
		case n == 0:
			c.block(p, q)
		case n == 1 && c.roster && p.i > q.i:
			c.relation(http.MethodDelete, "contacts", p, q)
			c.befriend(p, q)
		case n < 10:
			c.say(p, q, pic)
		default:
			c.read(p, q, pic)
		}
		c.act.RUnlock()
	}
}

// block blocks, or takes a block back.
func (c *scene) block(p, q *person) {
	if p.i < q.i {
		return // one of a pair does it, so that it is known whether there is one
	}
	room := harness.Room(p.User, q.User)
	c.mu.Lock()
	blocked := c.blocked[room]
	c.mu.Unlock()
	if blocked {
		c.relation(http.MethodDelete, "blocks", p, q)
		c.befriend(p, q)
	} else {
		c.relation(http.MethodPut, "blocks", p, q)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocked[room] = !blocked
}

func (c *scene) say(p, q *person, pic *viewer) {
	room := harness.Room(p.User, q.User)
	m, err := pic.ws.TrySend(room, "hello", "", false)
	if err != nil {
		return // no NATS, or no permission
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent[room] == nil {
		c.sent[room] = map[string][]int64{}
	}
	c.sent[room][p.Name] = append(c.sent[room][p.Name], m.Seq)
	c.done["messages"]++
}

// read reads up to the peer's last message, again until it is answered.
func (c *scene) read(p, q *person, pic *viewer) {
	room := harness.Room(p.User, q.User)
	c.mu.Lock()
	seqs := c.sent[room][q.Name]
	c.mu.Unlock()
	if len(seqs) == 0 {
		return
	}
	seq := seqs[len(seqs)-1]
	for {
		f := pic.ws.Answer(pic.ws.Say(wire.EvRead, wire.Marker{Room: room, Seq: seq}))
		if f.Event == wire.EvAck {
			break
		}
		if harness.Data[wire.Error](c.t, f).Code != wire.Unavailable {
			return
		}
		time.Sleep(100 * time.Millisecond) // a client's pause between two tries
	}
	c.did("reads")
	c.mu.Lock()
	defer c.mu.Unlock()
	pic.Move(picture.Mark{Room: room, User: p.Name, Read: true}, seq)
}

// equal waits until every picture is what HTTP says.
func (c *scene) equal(cut int, since time.Time) {
	for {
		wrong := ""
		for _, p := range c.people {
			wrong += c.compare(p)
		}
		if wrong == "" {
			return
		}
		if time.Since(since) > livePatience {
			c.t.Errorf("cut %d: after %s\n%s", cut, livePatience, wrong)
			return
		}
		time.Sleep(50 * time.Millisecond) // polling interval
	}
}

// compare says how the pictures of a person's clients differ from HTTP.
func (c *scene) compare(p *person) (wrong string) {
	says := picture.Of(p.Name, c.contacts(p), c.conversations(p))
	seqs := func(m picture.Mark) []int64 { return c.sent[m.Room][client.Peer(m.Room, m.User)] }
	hidden := func(room string) bool { return c.blocked[room] } // what may be seen of each other then is another test
	among := func(name string) bool {
		return slices.ContainsFunc(c.people, func(q *person) bool { return q.Name == name })
	}
	for _, pic := range p.clients {
		pic.follow()
		for _, w := range pic.Wrong(says, seqs, hidden, among) {
			wrong += pic.name + ": " + w.Text + "\n"
		}
	}
	return wrong
}

func (c *scene) contacts(p *person) []client.Contact {
	var page client.ContactsPage
	c.get(p, "/v1/contacts?limit=100", &page)
	return page.Contacts
}

func (c *scene) conversations(p *person) []client.Conversation {
	var page client.ConversationsPage
	c.get(p, "/v1/conversations?limit=100", &page)
	return page.Conversations
}

func (c *scene) get(p *person, path string, v any) {
	for {
		a, err := c.v.Try(http.MethodGet, at(c.v, p.i)+path, p.Tokens.AccessToken, nil)
		if err == nil && a.Status == http.StatusOK {
			if err := json.Unmarshal(a.Body, v); err != nil {
				c.t.Errorf("%s: %v", path, err)
			}
			return
		}
		if c.t.Failed() {
			return
		}
		time.Sleep(50 * time.Millisecond) // until the gateway works
	}
}
