package harness

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// NatsUsersFile says what each service may do in NATS; the chart gives it to its servers.
const NatsUsersFile = "deploy/helm/parley/files/nats-users.conf"

// NatsUsers makes a password for each user of that file and puts it into the environment, where a server that reads the file looks.
func NatsUsers(t testing.TB) map[string]string {
	t.Helper()
	users := map[string]string{}
	for _, u := range []string{"gateway", "auth", "presence", "history", "gateway-b", "auth-b", "presence-b", "history-b", "admin"} {
		users[u] = "p" + rand.Text() // a word in any case
		t.Setenv("NATS_"+strings.ToUpper(strings.ReplaceAll(u, "-", "_"))+"_PASSWORD", users[u])
	}
	return users
}

// Restricted reports whether NATS lets every process do only what the chart allows it.
func (s *Stack) Restricted() bool { return s.users != nil }

// NatsAs is a connection with the password of a service, as somebody has it who took that over. refused is told what NATS refuses.
func (v *View) NatsAs(user string, refused func(error), more ...nats.Option) *nats.Conn {
	v.t.Helper()
	nc, err := nats.Connect(v.settings["nats-url"], append([]nats.Option{
		nats.UserInfo(user, v.users[user]),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused(err) }),
	}, more...)...)
	if err != nil {
		v.t.Fatalf("connect to NATS as %s: %v", user, err)
	}
	v.t.Cleanup(nc.Close)
	return nc
}
