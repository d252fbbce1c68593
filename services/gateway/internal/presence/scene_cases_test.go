package presence

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"parley.example/pkg/testx"
)

func TestOnlineAndOfflineAcrossGateways(t *testing.T) {
	on(t, func(t *testing.T, redis string, replicas int) {
		s := newScene(t, redis, replicas)
		a, b := s.gateway(), s.gateway()
		all, list := s.viewer(b, "lisa"), s.viewer(b, "noa", "avi", "lisa", "avi", "ghost")
		all.sees()
		phone, laptop := s.connect(a, "avi"), s.connect(b, "avi")
		s.connect(b, "lisa") // of whom lisa is not told
		all.sees("avi")
		list.sees("avi", "lisa")
		testx.Eventually(t, "the other gateway knows that avi is online", time.Minute, func() bool {
			on, known := a.IsOnline("avi")
			return on && known
		})
		phone.leave()
		s.connect(a, "tom")
		all.sees("avi", "tom") // tom's change came after avi's would have
		laptop.leave()
		all.sees("tom")
		list.sees("lisa")
		if n := all.changes("avi"); n != 2 {
			t.Fatalf("avi's two changes were told as %d", n)
		}
		late := s.viewer(a, "late")
		late.sees("lisa", "tom")
	})
}

func TestSessionLostThatComesBackIsNotTold(t *testing.T) {
	on(t, func(t *testing.T, redis string, replicas int) {
		s := newScene(t, redis, replicas)
		a, b := s.gateway(), s.gateway()
		v := s.viewer(b, "lisa")
		c := s.connect(a, "avi")
		v.sees("avi")
		c.lose()
		again := s.connect(b, "avi")
		s.connect(a, "tom")
		v.sees("avi", "tom")
		if n := v.changes("avi"); n != 1 {
			t.Fatalf("a reconnect was told: %d changes", n)
		}
		again.lose()
		v.sees("tom")
	})
}

func TestGatewayKilledTakesUsersOfflineUnlessTheyMoved(t *testing.T) {
	on(t, func(t *testing.T, redis string, replicas int) {
		s := newScene(t, redis, replicas)
		a, b := s.gateway(), s.gateway()
		v := s.viewer(b, "lisa")
		users := names("u", 300)
		for _, u := range users {
			s.connect(a, u)
		}
		v.sees(users...)
		a.kill()
		for _, u := range users[:100] {
			s.connect(b, u)
		}
		v.sees(users[:100]...)
		for i, u := range users {
			if n := v.changes(u); i < 100 && n != 1 || i >= 100 && n != 2 {
				t.Fatalf("%s had %d changes", u, n)
			}
		}
	})
}

func TestGatewayThatStopsSaysSo(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 1)
	a, b := s.gateway(), s.gateway()
	v := s.viewer(b, "lisa")
	s.connect(a, "avi")
	s.connect(a, "tom")
	v.sees("avi", "tom")
	a.stop()
	s.connect(b, "tom")
	v.sees("tom")
	if n := v.changes("tom"); n != 1 {
		t.Fatalf("tom moved within the grace, and %d changes were told", n)
	}
}

func TestGatewayThatWasCutOffRegistersAgain(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 2)
	a, b := s.gateway(), s.gateway()
	va, vb := s.viewer(a, "x"), s.viewer(b, "y")
	s.connect(a, "avi")
	gone := s.connect(a, "gone")
	s.connect(b, "lisa")
	va.sees("avi", "gone", "lisa")
	a.cut.Store(true)
	vb.sees("lisa")
	testx.Eventually(t, "who is cut off says that it does not know", time.Minute, func() bool { return va.picture() == "unknown" })
	gone.leave()
	s.connect(a, "noa")
	a.cut.Store(false)
	vb.sees("avi", "lisa", "noa")
	va.sees("avi", "lisa", "noa")
}

func TestRedisThatForgetsEverything(t *testing.T) {
	on(t, func(t *testing.T, addr string, replicas int) {
		s := newSettlingScene(t, addr, replicas, longSettle)
		a, b := s.gateway(), s.gateway()
		v := s.viewer(b, "lisa")
		users := names("u", 60)
		for _, u := range users {
			s.connect(a, u)
		}
		tom := s.connect(a, "tom")
		v.sees(append(users, "tom")...)
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		defer rdb.Close()
		if err := rdb.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		tom.leave()
		s.connect(b, "noa")
		v.sees(append(users, "noa")...)
		for _, u := range users {
			if n := v.changes(u); n != 1 {
				t.Fatalf("%s, who stayed, had %d changes", u, n)
			}
		}
	})
}

func TestRedisRestartsAndIsAway(t *testing.T) {
	r := testx.RedisServer(t)
	s := newSettlingScene(t, r.Addr, 2, longSettle)
	a, b := s.gateway(), s.gateway()
	v := s.viewer(b, "lisa")
	avi := s.connect(a, "avi")
	s.connect(a, "tom")
	v.sees("avi", "tom")
	r.Stop()
	testx.Eventually(t, "presence is unknown without Redis", time.Minute, func() bool { return v.picture() == "unknown" })
	avi.leave()
	s.connect(b, "noa")
	r.Start()
	v.sees("noa", "tom")
	if n := v.changes("tom"); n != 1 {
		t.Fatalf("tom, who stayed, had %d changes", n)
	}
}

func TestNatsRestarts(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 2)
	a, b := s.gateway(), s.gateway()
	v := s.viewer(b, "lisa")
	avi := s.connect(a, "avi")
	v.sees("avi")
	s.nats.Stop()
	testx.Eventually(t, "presence is unknown without NATS", time.Minute, func() bool { return v.picture() == "unknown" })
	avi.leave()
	s.connect(a, "tom")
	s.nats.Restart()
	v.sees("tom")
}

// While NATS is away nobody hears a heartbeat: that says nothing about the gateways, and nobody who stays is told to have gone, however
// long it takes.
func TestNatsAwayForLongAndNobodyFlickers(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(*scene) }{
		"restarted": {func(s *scene) { s.nats.Stop() }, func(s *scene) { s.nats.Restart() }},
		"frozen": {
			func(s *scene) {
				for _, l := range s.lines {
					l.hang()
				}
			},
			func(s *scene) {
				for _, l := range s.lines {
					l.goOn()
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, testx.RedisServer(t).Addr, 2)
			a, b := s.gateway(), s.gateway()
			va, vb := s.viewer(a, "x"), s.viewer(b, "y")
			users := names("u", 40)
			for i, u := range users {
				s.connect([]*gateway{a, b}[i%2], u)
			}
			avi := s.connect(a, "avi")
			va.sees(append(users, "avi")...)
			vb.sees(append(users, "avi")...)
			outage.begin(s)
			testx.Eventually(t, "presence is unknown without NATS", time.Minute, func() bool { return va.picture() == "unknown" && vb.picture() == "unknown" })
			avi.leave()
			s.connect(b, "tom")
			time.Sleep(lease + grace + 500*time.Millisecond) // so that everything runs out that runs while NATS is away
			outage.end(s)
			va.sees(append(users, "tom")...)
			vb.sees(append(users, "tom")...)
			for _, v := range []*viewer{va, vb} {
				for _, u := range users {
					if n := v.changes(u); n != 1 {
						t.Fatalf("%s, who stayed, had %d changes", u, n)
					}
				}
			}
		})
	}
}

// Who was cut off long enough to lose its lease takes nobody of its own for gone: it registers before it looks.
func TestGatewayThatWasCutOffForLongKeepsItsPicture(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 2)
	a, b := s.gateway(), s.gateway()
	va, vb := s.viewer(a, "x"), s.viewer(b, "y")
	users := names("u", 40)
	for _, u := range users {
		s.connect(a, u)
	}
	lisa := s.connect(b, "lisa")
	va.sees(append(users, "lisa")...)
	a.cut.Store(true)
	vb.sees("lisa")
	lisa.leave()
	s.connect(b, "noa")
	vb.sees("noa")
	a.slow.Store(int64(2 * a.cfg.Patience / 16)) // of each shard
	a.cut.Store(false)
	vb.sees(append(users, "noa")...)
	va.sees(append(users, "noa")...)
	for _, u := range users {
		if n := va.changes(u); n != 1 {
			t.Fatalf("%s, who stayed at this gateway, had %d changes", u, n)
		}
	}
}

// The replica may die after Redis has the change and before NATS has it; an event may also be lost on its way.
func TestEventLostIsFound(t *testing.T) {
	on(t, func(t *testing.T, redis string, replicas int) {
		s := newScene(t, redis, replicas)
		a, b := s.gateway(), s.gateway()
		v := s.viewer(b, "lisa")
		v.sees()
		lose := func() bool { return true }
		b.drop.Store(&lose)
		avi := s.connect(a, "avi")
		v.sees("avi") // by the version in a heartbeat's answer
		var n atomic.Int64
		half := func() bool { return n.Add(1)%2 == 0 }
		b.drop.Store(&half)
		for range 20 {
			avi.leave()
			v.sees()
			avi = s.connect(a, "avi")
			v.sees("avi")
		}
	})
}

func TestReplicaThatDiesInAStormLosesNothing(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 1)
	stop := s.replica()
	a, b := s.gateway(), s.gateway()
	v := s.viewer(b, "lisa")
	users := names("u", 2000)
	for i, u := range users {
		s.connect(a, u)
		if i == len(users)/2 {
			go stop()
		}
	}
	v.sees(users...)
	for _, u := range users {
		if n := v.changes(u); n != 1 {
			t.Fatalf("%s had %d changes", u, n)
		}
	}
}

func TestChaos(t *testing.T) {
	on(t, func(t *testing.T, addr string, replicas int) {
		s := newScene(t, addr, replicas-1)
		stop := s.replica()
		gateways := []*gateway{s.gateway(), s.gateway(), s.gateway()}
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		defer rdb.Close()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		users := names("u", 12)
		var open []session
		viewers := map[*viewer]*gateway{}
		for i, g := range gateways {
			viewers[s.viewer(g, "none")] = g
			viewers[s.viewer(g, users[i], users...)] = g
		}
		var lossy [3]atomic.Int64
		for round := range 6 {
			for range 60 {
				switch k := r.IntN(40); {
				case k < 20:
					open = append(open, s.connect(gateways[r.IntN(len(gateways))], users[r.IntN(len(users))]))
				case k < 36 && len(open) > 0:
					i := r.IntN(len(open))
					c := open[i]
					open = append(open[:i], open[i+1:]...)
					c.g.Gone(c.id, c.user, k%2 == 0)
					if k%3 == 0 {
						c.g.Gone(c.id, c.user, true) // twice
					}
				case k == 36:
					i := r.IntN(3)
					lose := func() bool { return lossy[i].Add(1)%3 == 0 }
					gateways[i].drop.Store(&lose)
				case k == 37:
					g := gateways[r.IntN(3)]
					g.cut.Store(!g.cut.Load())
				case k == 38 && round%2 == 1:
					_ = rdb.FlushAll(context.Background()).Err() // a fault among others
				case k == 39:
					stop()
					stop = s.replica()
				}
			}
			want := map[string]bool{}
			for _, g := range gateways {
				g.cut.Store(false)
			}
			for _, c := range open {
				want[c.user] = true
			}
			for v := range viewers {
				var list []string
				for u := range want {
					if u != v.name {
						list = append(list, u)
					}
				}
				v.sees(list...)
			}
		}
	})
}

func TestStartAndStop(t *testing.T) {
	s := newScene(t, testx.RedisServer(t).Addr, 1)
	for i := range 20 {
		g := s.gateway()
		v := s.viewer(g, "me")
		s.connect(g, "avi")
		if i%2 == 0 {
			v.sees("avi")
		}
		stop := s.replica()
		go g.stop()
		g.Gone(1, "nobody", true)
		stop()
		g.stop()
	}
}
