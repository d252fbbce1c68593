package natsconn_test

import (
	"testing"

	"parley.example/pkg/natsconn"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

func TestConnectMistakes(t *testing.T) {
	for _, cfg := range []natsconn.Config{
		{URL: "nats://127.0.0.1:1", CA: t.TempDir() + "/none"},
		{URL: "nats://bad host:x"},
	} {
		if nc, err := natsconn.Connect(cfg, "test", testx.Quiet()); err == nil {
			nc.Close()
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
