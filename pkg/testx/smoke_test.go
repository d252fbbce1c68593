package testx

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestServersStart(t *testing.T) {
	if n := NatsServer(t); !n.Connect().IsConnected() {
		t.Fatal("not connected")
	}
	c := NatsCluster(t, 3)
	c.Nodes[1].Stop()
	c.Nodes[1].Restart()
	c.WaitLeader(t)
	RedisServer(t)
	if a, b := Postgres(t), Postgres(t); a == b {
		t.Fatal("two tests share a database")
	}
	pg := PostgresServer(t)
	pg.Stop()
	pg.Start(t)
}

func TestRedisCluster(t *testing.T) {
	for _, r := range RedisCluster(t, 3) {
		if out := r.Must("CLUSTER", "NODES"); strings.Count(out, "master") != 3 {
			t.Fatalf("the nodes: %s", out)
		}
	}
}

func TestRedisReplicated(t *testing.T) {
	p := RedisReplicated(t)
	p.Master.Must("SET", "old", "1")
	Eventually(t, "the replica has it", 10*time.Second, func() bool { v, err := p.Replica.Do("GET", "old"); return err == nil && v == "1" })
	p.Lag()
	p.Master.Must("SET", "new", "1")
	p.FailOver()
	if v := p.Replica.Must("GET", "old"); v != "1" {
		t.Errorf("the replica has forgotten: %q", v)
	}
	if v := p.Replica.Must("GET", "new"); v != "" {
		t.Errorf("the replica did not lag: %q", v)
	}
}
