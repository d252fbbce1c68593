package scenario

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// forbidden is what somebody who took over a service would try. Everything else that a service does not need is forbidden as well: the
// list has what it allows, and nothing more.
var forbidden = map[string]struct{ listen, publish []string }{
	"presence": {
		listen: []string{
			">", "deliver.>", "deliver.*.*", "room.>", "applied.*", "event.directory", "event.served", "gateway.*", "svc.auth.login", "svc.history.page",
			"_INBOX.>", "_INBOX.parley-gateway.>", "_INBOX.presence.>", "$KV.parley_keys.>", "$JS.API.>", "$JS.EVENT.>", "$SYS.>",
		},
		publish: []string{
			"room.0.a.b", "deliver.a.b", "applied.0", "event.directory", "svc.history.page", "svc.auth.login", "$KV.parley_keys.k", "$KV.parley_revoked.user.a",
			"$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.ROOMS_0", "$JS.API.STREAM.MSG.GET.ROOMS_0", "$JS.API.DIRECT.GET.ROOMS_0",
			"$JS.API.CONSUMER.CREATE.ROOMS_0", "$JS.API.CONSUMER.CREATE.ROOMS_0.x.room.>", "$JS.API.CONSUMER.MSG.NEXT.ROOMS_0.x", "$JS.API.STREAM.DELETE.ROOMS_0",
			"$JS.API.STREAM.SNAPSHOT.ROOMS_0", "$JS.API.STREAM.CREATE.MIRROR", "_INBOX.parley-gateway.x",
		},
	},
	"gateway": {
		listen: []string{">", "deliver.>", "room.>", "room.*.*.*", "svc.auth.login", "svc.history.page", "svc.presence.sessions", "$KV.>", "_INBOX.>", "_INBOX.auth.>", "$JS.API.>", "$SYS.>"},
		publish: []string{
			"applied.0", "presence.0", "event.directory", "$KV.parley_keys.k", "$KV.parley_revoked.user.a",
			"$JS.API.STREAM.DELETE.ROOMS_0", "$JS.API.STREAM.PURGE.ROOMS_0", "$JS.API.STREAM.UPDATE.ROOMS_0", "$JS.API.STREAM.CREATE.ROOMS_9",
			"$JS.API.STREAM.MSG.DELETE.ROOMS_0", "$JS.API.STREAM.SNAPSHOT.ROOMS_0", "$JS.API.STREAM.RESTORE.ROOMS_0",
			"$JS.API.CONSUMER.CREATE.ROOMS_0", "$JS.API.CONSUMER.CREATE.ROOMS_0.x", "$JS.API.CONSUMER.DURABLE.CREATE.ROOMS_0.x",
			"$JS.API.STREAM.DELETE.KV_parley_keys", "$JS.API.STREAM.PURGE.KV_parley_revoked", "$JS.API.STREAM.UPDATE.KV_parley_keys",
		},
	},
	"auth": {
		listen: []string{">", "deliver.*.*", "room.>", "svc.history.page", "svc.presence.sessions", "_INBOX.parley-gateway.>", "$SYS.>"},
		publish: []string{
			"room.0.a.b", "deliver.a.b", "applied.0", "presence.0", "svc.history.page", "$JS.API.STREAM.MSG.GET.ROOMS_0", "$JS.API.CONSUMER.CREATE.ROOMS_0",
			"$JS.API.STREAM.DELETE.ROOMS_0", "$JS.API.STREAM.DELETE.KV_parley_keys", "$JS.API.STREAM.CREATE.MIRROR", "_INBOX.parley-gateway.x",
		},
	},
	"history": {
		listen: []string{">", "deliver.*.*", "svc.auth.login", "svc.presence.sessions", "_INBOX.parley-gateway.>", "$SYS.>"},
		publish: []string{
			"room.0.a.b", "deliver.a.b", "presence.0", "event.directory", "svc.auth.login", "$KV.parley_keys.k", "$KV.parley_revoked.user.a",
			"$JS.API.STREAM.DELETE.ROOMS_0", "$JS.API.STREAM.MSG.DELETE.ROOMS_0", "$JS.API.STREAM.UPDATE.KV_parley_keys", "$JS.API.STREAM.SNAPSHOT.ROOMS_0",
		},
	},
}

// permissions tries what NATS has to refuse, with each service's own password, while two people chat.
func permissions(t *testing.T, e *env) {
	if !e.Restricted() {
		return // another deployment's NATS asks nobody who they are
	}
	lisa, avi := e.User("lisa"), e.User("avi")
	l, a := lisa.Joined(e.at(0)), avi.Joined(e.at(0))
	room := harness.Room(lisa, avi)
	var heard sync.Map
	for user, try := range forbidden {
		var mu sync.Mutex
		var refusals []string
		nc := e.NatsAs(user, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			refusals = append(refusals, err.Error())
		})
		for _, s := range try.listen {
			if _, err := nc.Subscribe(s, func(m *nats.Msg) { heard.Store(user+" on "+s, m.Subject) }); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range try.publish {
			if err := nc.PublishRequest(s, "nobody.listens", []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		refused := func(what, subject string) bool {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range refusals {
				if strings.Contains(r, what+` to "`+subject+`"`) {
					return true
				}
			}
			return false
		}
		for _, s := range try.listen {
			testx.Eventually(t, user+" may not listen on "+s, 10*time.Second, func() bool { return refused("Subscription", s) })
		}
		for _, s := range try.publish {
			testx.Eventually(t, user+" may not publish on "+s, 10*time.Second, func() bool { return refused("Publish", s) })
		}
	}
	l.MustSend(room, "nobody else reads this")
	a.Message("nobody else reads this")
	settle()
	heard.Range(func(who, subject any) bool {
		t.Errorf("%s heard what came on %s", who, subject)
		return true
	})
	if _, err := nats.Connect(e.Node.ClientURL()); err == nil {
		t.Error("NATS lets in who has no password")
	}
}
