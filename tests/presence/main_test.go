// Package presence says that what clients see of each other equals what is connected: while processes are killed, Redis is emptied, fails
// over, is away or is a cluster, and for nobody whom it does not concern. The bounds are those that are promised, measured from the fault.
package presence

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The promises.
const (
	leaveBound = time.Second
	redisBound = 6 * time.Second  // Redis emptied or failed over
	crashBound = 12 * time.Second // a gateway killed
)

// enough is for what has no bound of its own.
const enough = harness.Within

// long reports whether the run may take minutes (make test-long).
func long() bool { return os.Getenv("PARLEY_LONG") == "1" }

// at is the URL of gateway i, counted round.
func at(v *harness.View, i int) string { return v.Gateways[i%len(v.Gateways)].URL }

// picture is what one connection was told, followed frame by frame.
type picture struct {
	t    *testing.T
	name string
	ws   *harness.WS
	read int // frames

	online    map[string]bool
	unknown   bool
	snapshots int
	changes   map[string]int // by user, since the last snapshot
}

func watch(t *testing.T, name string, ws *harness.WS) *picture {
	return &picture{t: t, name: name, ws: ws, online: map[string]bool{}, changes: map[string]int{}, unknown: true}
}

// follow takes what has come. Each user's online and offline must alternate.
func (p *picture) follow() {
	p.t.Helper()
	frames := p.ws.All(wire.EvPresence)
	for _, f := range frames[p.read:] {
		d := harness.Data[wire.Presence](p.t, f)
		switch {
		case d.Snapshot && p.snapshots > 0 && p.unknown && !d.Unknown:
			p.snapshots++
			p.again(d)
			p.unknown = false
			continue
		case d.Snapshot:
			p.snapshots++
			clear(p.online)
			clear(p.changes)
		case p.snapshots == 0:
			p.t.Errorf("%s: changes before the first picture", p.name)
		}
		p.unknown = d.Unknown
		for _, u := range d.Online {
			if p.online[u] {
				p.t.Errorf("%s: told twice that %s is online", p.name, u)
			}
			p.online[u] = true
			if !d.Snapshot {
				p.changes[u]++
			}
		}
		if d.Snapshot {
			continue // who is offline in it was never there
		}
		for _, o := range d.Offline {
			if !p.online[o.Username] {
				p.t.Errorf("%s: told that %s has gone, who was not there", p.name, o.Username)
			}
			delete(p.online, o.Username)
			p.changes[o.Username]++
		}
	}
	p.read = len(frames)
}

// again takes the snapshot that ends unknown: what differs from the picture are changes. It may say since when somebody is gone.
func (p *picture) again(d wire.Presence) {
	p.t.Helper()
	now := set(d.Online)
	if len(now) != len(d.Online) {
		p.t.Errorf("%s: a user is twice in a snapshot: %q", p.name, d.Online)
	}
	for _, o := range d.Offline {
		if now[o.Username] {
			p.t.Errorf("%s: a snapshot has %s both online and offline", p.name, o.Username)
		}
	}
	for u := range now {
		if !p.online[u] {
			p.changes[u]++
		}
	}
	for u := range p.online {
		if !now[u] {
			p.changes[u]++
		}
	}
	p.online = now
}

// shows reports whether the picture is known and has exactly these users.
func (p *picture) shows(want map[string]bool) bool {
	p.follow()
	return p.snapshots > 0 && !p.unknown && maps.Equal(p.online, want)
}

// forget counts changes anew.
func (p *picture) forget() {
	p.follow()
	clear(p.changes)
}

// sees waits until the picture has exactly these users.
func (p *picture) sees(within time.Duration, want ...string) {
	p.t.Helper()
	set := set(want)
	deadline := time.Now().Add(within)
	for !p.shows(set) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within %s; unknown=%t, %s", p.name, within, p.unknown, difference(p.online, set))
		}
		time.Sleep(10 * time.Millisecond) // polling interval
	}
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func difference(have, want map[string]bool) string {
	var more, less []string
	for u := range have {
		if !want[u] {
			more = append(more, u)
		}
	}
	for u := range want {
		if !have[u] {
			less = append(less, u)
		}
	}
	slices.Sort(more)
	slices.Sort(less)
	return fmt.Sprintf("%d wrongly online %.5q, %d missing %.5q", len(more), more, len(less), less)
}

func names(users []*harness.User) []string {
	out := make([]string, len(users))
	for i, u := range users {
		out[i] = u.Name
	}
	return out
}

// viewer joins a user and narrows its presence to some others, if any are named.
func viewer(t *testing.T, u *harness.User, base string, of ...string) *picture {
	t.Helper()
	ws := u.Joined(base)
	if len(of) > 0 {
		narrow(ws, of)
	}
	return watch(t, u.Name, ws)
}

func narrow(ws *harness.WS, of []string) {
	ws.Answer(ws.Say(wire.EvWatch, wire.Watch{Usernames: of}))
}

// together does f for each of n, some at a time.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// connected opens a connection for each user at a gateway, and joins.
func connected(t *testing.T, users []*harness.User, base func(i int) string) []*harness.WS {
	t.Helper()
	out := make([]*harness.WS, len(users))
	together(len(users), func(i int) {
		c, err := users[i].In(t).TryJoined(base(i))
		if err != nil {
			t.Errorf("connect %s: %v", users[i].Name, err)
			return
		}
		out[i] = c
	})
	if t.Failed() {
		t.FailNow()
	}
	return out
}

func leave(list ...*harness.WS) {
	for _, c := range list {
		c.Say(wire.EvDisconnection, nil)
	}
}

// contacts reads all pages of a user's contacts, limit a page.
func contacts(t *testing.T, v *harness.View, u *harness.User, base string, limit int) []client.Contact {
	t.Helper()
	var out []client.Contact
	for after := ""; ; {
		a := v.Do(http.MethodGet, fmt.Sprintf("%s/v1/contacts?limit=%d&after=%s", base, limit, url.QueryEscape(after)), u.Tokens.AccessToken, nil)
		if a.Status != http.StatusOK {
			t.Fatalf("contacts: %d %s", a.Status, a.Body)
		}
		var page client.ContactsPage
		if err := json.Unmarshal(a.Body, &page); err != nil {
			t.Fatalf("contacts: %v", err)
		}
		if len(page.Contacts) > limit {
			t.Errorf("a page of %d contacts, asked for %d", len(page.Contacts), limit)
		}
		out = append(out, page.Contacts...)
		if after = page.Next; after == "" {
			return out
		}
	}
}

// relation makes or ends a contact or a block.
func relation(t *testing.T, v *harness.View, method, kind string, of, to *harness.User) {
	t.Helper()
	a := v.Do(method, at(v, 0)+"/v1/"+kind+"/"+url.PathEscape(to.Name), of.Tokens.AccessToken, nil)
	if a.Status >= 300 {
		t.Fatalf("%s %s of %s to %s: %d %s", method, kind, of.Name, to.Name, a.Status, a.Body)
	}
}

func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	testx.Eventually(t, what, within, cond)
}
