package presence

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley.example/tests/harness"
)

// crowdSize users are on one gateway, and watched from two others.
const crowdSize = 2000

// crowd is many users and those who watch them: on each of two gateways, as many as it takes to have everybody on a watch list.
type crowd struct {
	all     *testing.T // its connections outlive a subtest
	v       *harness.View
	users   []*harness.User
	conns   []*harness.WS // nil: not connected
	viewers []*picture
}

// watchMost names are on one watch list at most.
const watchMost = 1000

func newCrowd(t *testing.T, v *harness.View) *crowd {
	t.Helper()
	c := &crowd{all: t, v: v, users: v.Accounts[:crowdSize], conns: make([]*harness.WS, crowdSize)}
	for i, u := range v.Accounts[crowdSize:] {
		of := c.users[i%2*watchMost : (i%2+1)*watchMost]
		p := viewer(t, u.In(t), at(v, i/2*2), names(of)...) // gateways 0 and 2; the crowd is on 1
		p.name = fmt.Sprintf("viewer %d", i)
		c.viewers = append(c.viewers, p)
	}
	return c
}

// in hands the crowd to a subtest.
func (c *crowd) in(t *testing.T) *crowd {
	for _, p := range c.viewers {
		p.t = t
		p.forget()
	}
	return &crowd{c.all, c.v, c.users, c.conns, c.viewers}
}

// come connects users from ≤ i < to.
func (c *crowd) come(t *testing.T, from, to int, base string) {
	t.Helper()
	copy(c.conns[from:to], connected(c.all, c.users[from:to], func(int) string { return base }))
}

// leave says good-bye for users from ≤ i < to.
func (c *crowd) leave(from, to int) {
	leave(c.conns[from:to]...)
	clear(c.conns[from:to])
}

// right waits until every viewer's picture is known and has exactly who is connected, and reports how long after since that was.
func (c *crowd) right(t *testing.T, since time.Time, within time.Duration) time.Duration {
	t.Helper()
	for i, p := range c.viewers {
		var want []string
		for j, u := range c.users[i%2*watchMost : (i%2+1)*watchMost] {
			if c.conns[i%2*watchMost+j] != nil {
				want = append(want, u.Name)
			}
		}
		p.sees(within-time.Since(since), want...)
	}
	return time.Since(since)
}

// changed checks how many changes each viewer was told of each user.
func (c *crowd) changed(t *testing.T, want func(i int) (least, most int)) {
	t.Helper()
	bad := 0
	for v, p := range c.viewers {
		p.follow()
		for j, u := range c.users[v%2*watchMost : (v%2+1)*watchMost] {
			least, most := want(v%2*watchMost + j)
			if n := p.changes[u.Name]; n < least || n > most {
				if bad++; bad <= 5 {
					t.Errorf("%s was told %d changes of %s, want %d to %d", p.name, n, u.Name, least, most)
				}
			}
		}
	}
	if bad > 5 {
		t.Errorf("and %d more", bad-5)
	}
}

// TestPresenceCrowd goes through faults one after the other, on one deployment: each leaves it healed.
func TestPresenceCrowd(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 3, Presence: 2, Accounts: crowdSize + 4, Settings: map[string]string{"directory-limit": "20"}})
	c := newCrowd(t, s.For(t))
	for _, f := range []struct {
		name string
		run  func(t *testing.T, c *crowd)
	}{
		{"a presence replica is killed in a login storm", replicaKilled},
		{"Redis is emptied", redisEmptied},
		{"Redis is away", redisAway},
		{"a gateway is killed", gatewayKilled},
	} {
		if !t.Run(f.name, func(t *testing.T) { c.v = s.For(t); f.run(t, c.in(t)) }) {
			t.Fatal("what comes after would fail as well")
		}
	}
}

// replicaKilled: nothing is lost, nothing is doubled.
func replicaKilled(t *testing.T, c *crowd) {
	began := time.Now()
	half := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		<-half
		c.v.Presence[0].Kill()
	}()
	c.come(t, 0, crowdSize/2, at(c.v, 1))
	close(half) // the first half is still being told of
	c.come(t, crowdSize/2, crowdSize, at(c.v, 1))
	<-killed
	connectedAt := time.Now()
	t.Logf("%d connected in %s; all are seen %s later", crowdSize, time.Since(began).Round(time.Millisecond), c.right(t, connectedAt, crashBound).Round(time.Millisecond))
	c.changed(t, func(int) (int, int) { return 1, 1 })
	frames := 0
	for _, p := range c.viewers {
		frames += p.read
	}
	if frames > len(c.viewers)*crowdSize/4 {
		t.Errorf("%d frames for %d changes to %d viewers: changes do not travel in batches", frames, crowdSize, len(c.viewers))
	}
	c.v.RestartPresence(0)
}

// redisEmptied: FLUSHALL. Who stays is not told of; who comes and goes right after it is.
func redisEmptied(t *testing.T, c *crowd) {
	fault := time.Now()
	c.v.Redis.Must("FLUSHALL")
	c.leave(0, 20)
	c.right(t, fault, redisBound)
	took := time.Since(fault)
	c.come(t, 0, 20, at(c.v, 0))
	c.right(t, time.Now(), enough)
	t.Logf("right again after %s", took.Round(time.Millisecond))
	c.changed(t, func(i int) (int, int) {
		if i < 20 {
			return 2, 2
		}
		return 0, 0
	})
}

// awayFor is how long Redis stays away: a minute in the long run, and else long enough for every lease, grace and time-out here.
func awayFor() time.Duration {
	if long() {
		return time.Minute
	}
	return 15 * time.Second
}

// unknownBound: without an answer for 6 s presence is unknown, and that is told.
const unknownBound = 10 * time.Second

// redisAway: chat goes on, presence is unknown, and then right.
func redisAway(t *testing.T, c *crowd) {
	a, b := c.users[0], c.users[1]
	room := harness.Room(a, b)
	wa, wb := c.conns[0], c.conns[1]
	chat := func(text string) {
		t.Helper()
		wa.MustSend(room, text)
		wb.Message(text)
	}
	chat("before")
	c.v.Redis.Stop()
	fault := time.Now()
	eventually(t, "presence is unknown", unknownBound, func() bool {
		for _, p := range c.viewers {
			if p.follow(); !p.unknown {
				return false
			}
		}
		return true
	})
	t.Logf("unknown after %s", time.Since(fault).Round(time.Millisecond))
	for _, row := range contacts(t, c.v, c.users[0].In(t), at(c.v, 0), 1000)[:10] {
		if row.Online != nil {
			t.Errorf("the contacts tell that %s is online=%t", row.Username, *row.Online)
		}
	}
	late := viewer(t, c.users[2].In(c.all), at(c.v, 2), a.Name)
	for i := 0; time.Since(fault) < awayFor(); i++ {
		chat(fmt.Sprintf("without Redis %d", i))
		for _, g := range c.v.Gateways {
			if !c.v.Ready(g.Admin) {
				t.Fatal("a gateway is not ready without Redis")
			}
		}
		time.Sleep(50 * time.Millisecond) // the pace of the chat
	}
	// Some go and some come meanwhile.
	c.leave(100, 150)
	c.leave(1100, 1150)
	c.come(t, 1100, 1120, at(c.v, 0))
	late.follow()
	if !late.unknown {
		t.Error("who came meanwhile was not told that presence is unknown")
	}
	for _, p := range c.viewers {
		if p.follow(); !p.unknown {
			t.Errorf("%s: known while Redis is away", p.name)
		}
	}
	c.v.Redis.Start()
	healed := time.Now()
	t.Logf("right again %s after Redis is back", c.right(t, healed, redisBound).Round(time.Millisecond))
	late.sees(enough, a.Name)
	c.changed(t, func(i int) (int, int) {
		switch {
		case i >= 100 && i < 150, i >= 1120 && i < 1150:
			return 1, 1
		}
		return 0, 0
	})
	chat("after")
	c.come(t, 100, 150, at(c.v, 1))
	c.come(t, 1120, 1150, at(c.v, 1))
	c.right(t, time.Now(), enough)
}

// gatewayKilled: kill -9 of the gateway that has the crowd, some of which move at once.
func gatewayKilled(t *testing.T, c *crowd) {
	const moved = 300
	for _, p := range c.viewers {
		p.forget()
	}
	c.v.KillGateway(1)
	fault := time.Now()
	clear(c.conns)
	moving := time.Now()
	c.come(t, 0, moved/2, at(c.v, 0))
	c.come(t, watchMost, watchMost+moved/2, at(c.v, 2))
	took := time.Since(moving)
	isMoved := func(i int) bool { return i%watchMost < moved/2 }
	t.Logf("%d moved in %s; all are offline or moved %s after the kill", moved, took.Round(time.Millisecond), c.right(t, fault, crashBound).Round(time.Millisecond))
	c.changed(t, func(i int) (int, int) {
		switch {
		case i < 20 || i >= 1100 && i < 1120: // were on another gateway anyway
			return 0, 1
		case !isMoved(i):
			return 1, 1
		case took < 4*time.Second: // within the grace
			return 0, 0
		}
		return 0, 2
	})
	// last_seen is that of the last heartbeat, not of the discovery.
	for _, row := range contacts(t, c.v, c.users[0].In(t), at(c.v, 0), 1000) {
		if i := slices.IndexFunc(c.users, func(u *harness.User) bool { return u.Name == row.Username }); i >= 1200 {
			if row.LastSeen.IsZero() || row.LastSeen.After(fault.Add(time.Second)) || row.LastSeen.Before(fault.Add(-4*time.Second)) {
				t.Errorf("%s, whose gateway was killed at %s, was last seen at %v", row.Username, fault.UTC().Format(time.StampMilli), row.LastSeen)
				break
			}
		}
	}
	c.v.RestartGateway(1)
}
