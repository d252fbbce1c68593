package testx

import "testing"

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
