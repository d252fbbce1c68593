// Package outage says what happens while something is away, and after it is back: SQL, NATS, a route between NATS servers, a gateway,
// everything. A dependency that is down degrades what needs it and nothing else, and all of it heals by itself.
package outage

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(crowdEnv) != "" {
		crowdMain()
		return
	}
	harness.Main(m)
}

// TestOneOfEach: SQL, then NATS away, with one gateway and one NATS server.
func TestOneOfEach(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 1, Nats: 1, Postgres: true})
	run(t, s, []outageOf{{"SQL is away", sqlAway}, {"NATS restarts", natsRestarts}})
}

// TestThreeOfEach: the same and more with three gateways, each at a NATS server of its own.
func TestThreeOfEach(t *testing.T) {
	s := harness.New(t, harness.Options{Gateways: 3, Nats: 3, Postgres: true})
	run(t, s, []outageOf{
		{"a NATS server is cut off", cutOff}, {"SQL is away", sqlAway}, {"a gateway is killed", gatewayKilled}, {"a gateway drains", gatewayDrains},
		{"gateways are killed while people chat", killedInTurn}, {"NATS restarts", natsRestarts}, {"NATS is away for long", natsAway},
	})
}

type outageOf struct {
	name string
	run  func(*testing.T, *harness.View)
}

// run goes through outages one after the other, on one deployment: each leaves it healed.
func run(t *testing.T, s *harness.Stack, list []outageOf) {
	for _, o := range list {
		if !t.Run(o.name, func(t *testing.T) { o.run(t, s.For(t)) }) {
			t.Fatal("what comes after would fail as well")
		}
	}
}

// at is the URL of gateway i, counted round.
func at(v *harness.View, i int) string { return v.Gateways[i%len(v.Gateways)].URL }

// longOutage is how long NATS stays away. The promise is "however long"; three minutes are more than any time-out, lease or
// retry limit has (PARLEY_LONG=1, make test-long), twenty seconds are more than most, and bearable in every run.
func longOutage() time.Duration {
	if os.Getenv("PARLEY_LONG") == "1" {
		return 3 * time.Minute
	}
	return 20 * time.Second
}

func texts(list []wire.Message) []string {
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = m.Content
	}
	return out
}

// sameTexts checks that exactly want came, each once, in this order.
func sameTexts(t *testing.T, who string, got []wire.Message, want []string) {
	t.Helper()
	if have := texts(got); !slices.Equal(have, want) {
		t.Errorf("%s has %d messages %.30q\nwant %d %.30q", who, len(have), have, len(want), want)
	}
}

// settle is how long something that must not come is waited for: the repair looks at every message for up to two seconds.
func settle() { time.Sleep(2500 * time.Millisecond) } // nothing to wait for: the proof is that nothing comes

// accepted collects what was acknowledged, by several goroutines.
type accepted struct {
	mu   sync.Mutex
	list []wire.Message
}

func (a *accepted) add(m wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, m)
}

// texts in the order of seq.
func (a *accepted) texts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.SortFunc(a.list, func(x, y wire.Message) int { return int(x.Seq - y.Seq) })
	return texts(a.list)
}

func numbered(prefix string, from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("%s %d", prefix, i))
	}
	return out
}
