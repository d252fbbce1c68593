package presence

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// TestPresenceFailoverToAReplicaThatLagged: Redis' replica gets no more, users come and go, the master is killed, Sentinel promotes the replica,
// which believes in what was. The services know Sentinel only.
func TestPresenceFailoverToAReplicaThatLagged(t *testing.T) {
	r := testx.RedisReplicated(t)
	s := harness.New(t, harness.Options{Gateways: 2, Presence: 2, Accounts: 101, Settings: map[string]string{
		"directory-limit": "20", "redis-addrs": r.Sentinel.Addr, "redis-sentinel-master": r.Name,
	}})
	v := s.For(t)
	users := v.Accounts[:100]
	p := viewer(t, v.Accounts[100].In(t), at(v, 0), names(users)...)
	conns := connected(t, users[:60], func(i int) string { return at(v, i) })
	p.sees(enough, names(users[:60])...)
	eventually(t, "the replica has it all", enough, func() bool {
		return r.Master.Must("DBSIZE") == r.Replica.Must("DBSIZE")
	})

	r.Lag()
	leave(conns[:30]...)
	conns = append(conns, connected(t, users[60:80], func(i int) string { return at(v, i) })...)
	p.sees(enough, names(users[30:80])...)
	p.forget()
	killed := time.Now()
	r.FailOver()
	fault := time.Now()
	leave(conns[30:40]...)
	p.sees(redisBound-time.Since(fault), names(users[40:80])...)
	t.Logf("promoted %s after the kill, right again %s later", fault.Sub(killed).Round(time.Millisecond), time.Since(fault).Round(time.Millisecond))
	for i, u := range users {
		want := 0
		if i >= 30 && i < 40 {
			want = 1
		}
		if n := p.changes[u.Name]; n != want {
			t.Errorf("%d changes of %s were told, want %d", n, u.Name, want)
		}
	}
	connected(t, users[:10], func(i int) string { return at(v, i) })
	p.sees(enough, append(names(users[:10]), names(users[40:80])...)...)
}

// TestPresenceRedisCluster: the whole service on a Redis Cluster of three nodes, which is emptied, and one of whose nodes is away for a while.
func TestPresenceRedisCluster(t *testing.T) {
	nodes := testx.RedisCluster(t, 3)
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Addr)
	}
	s := harness.New(t, harness.Options{Gateways: 2, Presence: 2, Accounts: 201, Settings: map[string]string{
		"directory-limit": "20", "redis-addrs": strings.Join(addrs, ","),
	}})
	v := s.For(t)
	users := v.Accounts[:200] // of all shards
	p := viewer(t, v.Accounts[200].In(t), at(v, 0), names(users)...)
	conns := connected(t, users[:150], func(i int) string { return at(v, i) })
	p.sees(enough, names(users[:150])...)
	leave(conns[:30]...)
	p.sees(enough, names(users[30:150])...)
	for _, n := range nodes {
		if size, err := strconv.Atoi(n.Must("DBSIZE")); err != nil || size == 0 {
			t.Errorf("a node of the cluster has %d keys: %v", size, err)
		}
	}

	t.Run("it is emptied", func(t *testing.T) {
		p.t = t
		p.forget()
		fault := time.Now()
		for _, n := range nodes {
			n.Must("FLUSHALL")
		}
		leave(conns[30:40]...)
		p.sees(redisBound-time.Since(fault), names(users[40:150])...)
		t.Logf("right again after %s", time.Since(fault).Round(time.Millisecond))
		if n := len(p.changes); n != 10 {
			t.Errorf("changes of %d users were told, want 10", n)
		}
	})
	t.Run("a node is away", func(t *testing.T) {
		p.t = t
		p.forget()
		nodes[1].Stop()
		eventually(t, "presence is unknown", unknownBound, func() bool { p.follow(); return p.unknown })
		leave(conns[40:60]...)
		nodes[1].Start()
		eventually(t, "the cluster is whole", enough, func() bool {
			info, err := nodes[0].Do("CLUSTER", "INFO")
			return err == nil && strings.Contains(info, "cluster_state:ok")
		})
		p.sees(enough, names(users[60:150])...)
		for _, u := range users[60:150] {
			if n := p.changes[u.Name]; n != 0 {
				t.Errorf("%s, who stayed, had %d changes", u.Name, n)
			}
		}
	})
	t.Run("a gateway is killed", func(t *testing.T) {
		p.t = t
		v := s.For(t)
		v.KillGateway(1)
		fault := time.Now()
		var there []string
		for i, u := range users[60:150] {
			if i%2 == 0 {
				there = append(there, u.Name)
			}
		}
		p.sees(crashBound, there...)
		t.Logf("offline after %s", time.Since(fault).Round(time.Millisecond))
	})
}
