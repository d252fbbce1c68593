package testx

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestCutSeparatesOneNodeAndHealBringsItBack(t *testing.T) {
	c := NatsRouted(t, 3)
	at := [3]*clientOf{}
	for i, n := range c.Nodes {
		at[i] = newClientOf(t, n)
	}
	for range 2 {
		at[2].hears(t, at[0], true)
		c.Cut(2)
		at[2].hears(t, at[0], false)
		at[1].hears(t, at[0], true)
		if !at[2].nc.IsConnected() || at[2].nc.ConnectedServerName() != "n2" {
			t.Fatal("the client of the cut node has left it")
		}
		c.Heal()
		at[2].hears(t, at[0], true)
	}
	c.Nodes[1].Stop()
	c.Nodes[1].Restart()
	c.Heal()
	Eventually(t, "the restarted node hears again", 10*time.Second, func() bool { return at[1].nc.IsConnected() })
}

// clientOf is a client of one node that listens on one subject.
type clientOf struct {
	nc  *nats.Conn
	sub *nats.Subscription
}

func newClientOf(t *testing.T, n *Nats) *clientOf {
	t.Helper()
	nc := n.Connect()
	sub, err := nc.SubscribeSync("word")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return &clientOf{nc, sub}
}

// hears checks whether what from says arrives; interest takes a moment to spread after a route is back.
func (c *clientOf) hears(t *testing.T, from *clientOf, want bool) {
	t.Helper()
	word := nats.NewInbox()
	within := 10 * time.Second
	if !want {
		within = 300 * time.Millisecond
	}
	deadline := time.Now().Add(within)
	for time.Now().Before(deadline) {
		if err := from.nc.Publish("word", []byte(word)); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := c.sub.NextMsg(50 * time.Millisecond)
			if err != nil {
				break
			}
			if string(m.Data) == word {
				if !want {
					t.Fatal("a cut node hears its peers")
				}
				return
			}
		}
	}
	if want {
		t.Fatal("a node does not hear its peer")
	}
}
