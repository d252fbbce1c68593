// Package scenario says what Parley promises, once for one gateway and once for three gateways in front of three NATS servers. The
// scenarios share a deployment, side by side, as users do.
package scenario

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) {
	testx.SideBySide(6)
	harness.Main(m)
}

// env is a deployment as one scenario sees it.
type env struct {
	*harness.View
	tries int // of what is a matter of luck
}

// at is the URL of gateway i, counted round.
func (e *env) at(i int) string { return e.Gateways[i%len(e.Gateways)].URL }

var scenarios = []struct {
	name string
	run  func(*testing.T, *env)
}{
	{"two people chat from several devices", chat},
	{"joining while a message is published misses nothing", joinRace},
	{"client ids", clientIDs},
	{"a message sent again after an unknown outcome", sentAgain},
	{"what was accepted or delivered is in the next page", nextPage},
	{"offline for three hundred messages", offline},
	{"since and resume", resume},
	{"each device has its own cursor", devices},
	{"read, delivered and typing", markers},
	{"two who do not talk any more", apart},
	{"frames that cannot be understood", badFrames},
	{"rooms of others", badRooms},
	{"too many bad frames", tooManyBadFrames},
	{"user names", names},
	{"tokens that are refused", badTokens},
	{"ways to bring a token", tokenWays},
	{"a token runs out", tokenRunsOut},
	{"logout closes sockets", logout},
	{"answers to refreshes are lost", lostRefreshes},
	{"a refresh token is good until its successor is used", firstUse},
	{"a change of the password ends all logins", passwordChange},
	{"pages of other origins", origins},
	{"presence", presence},
	{"a short absence is not announced", shortAbsence},
	{"a client that does not read", slowClient},
	{"administration beside the services", administration},
	{"what a service may not do in NATS", permissions},
	{"what alerts look at", metrics},
}

// TestOneGateway also shows that the services need no more than what the chart allows them in NATS: one that is refused anything fails it.
func TestOneGateway(t *testing.T) {
	run(t, harness.Options{Gateways: 1, Nats: 1, Restricted: true}, 100)
}

func TestThreeGatewaysThreeNats(t *testing.T) {
	run(t, harness.Options{Gateways: 3, Nats: 3, Postgres: true}, 1000)
}

func run(t *testing.T, o harness.Options, tries int) {
	o.Settings = map[string]string{"dedupe-window": dedupeWindow.String(), "hash-concurrency": "4", "refresh-grace": "0s"}
	s := harness.New(t, o)
	t.Run("scenarios", func(t *testing.T) {
		for _, sc := range scenarios {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				sc.run(t, &env{View: s.For(t), tries: tries})
			})
		}
	})
	// One that finds messages compares the stream with SQL, which needs more of NATS than the first start.
	s.RestartHistory()
}

// dedupeWindow is short, so that a test can outlive it.
const dedupeWindow = 10 * time.Second

// settle is how long something that must not come is waited for: history announces what it has committed within a second, and the
// gateways look at it within another one. What comes after that comes from no mechanism that there is.
func settle() { time.Sleep(2500 * time.Millisecond) } // nothing to wait for: the proof is that nothing comes

// contents makes n texts that begin with prefix.
func contents(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %d", prefix, i)
	}
	return out
}

// arrives waits for the last of want in a room, then checks that exactly want came. History may be behind what was accepted; then
// some of it comes after caught_up, as it is read.
func arrives(t *testing.T, who string, c *harness.WS, room string, want []string) {
	t.Helper()
	if len(want) > 0 {
		c.Message(want[len(want)-1])
	}
	sameTexts(t, who, c.Received(room), want)
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
		t.Errorf("%s has %d messages %.30q, want %d %.30q", who, len(have), have, len(want), want)
	}
	for i := 1; i < len(got); i++ {
		if got[i].Seq <= got[i-1].Seq {
			t.Errorf("%s: seq %d comes after %d", who, got[i].Seq, got[i-1].Seq)
		}
	}
}

// sendAll sends texts without waiting in between, then waits for all answers, which must be acceptances in order.
func sendAll(t *testing.T, c *harness.WS, room string, list []string) []wire.Message {
	t.Helper()
	re := make([]string, len(list))
	for i, s := range list {
		re[i] = c.Send(room, s, "", false)
	}
	out := make([]wire.Message, len(list))
	for i := range list {
		f := c.Answer(re[i])
		if f.Event != wire.EvAccepted {
			t.Fatalf("%q was answered with %s %s", list[i], f.Event, f.Data)
		}
		out[i] = harness.Data[wire.Message](t, f)
		if i > 0 && out[i].Seq <= out[i-1].Seq {
			t.Errorf("accepted seq %d after %d", out[i].Seq, out[i-1].Seq)
		}
	}
	return out
}
