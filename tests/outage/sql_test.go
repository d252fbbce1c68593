package outage

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// sqlAway: chat between connected users goes on, what needs SQL says so, and history has everything afterwards.
func sqlAway(t *testing.T, v *harness.View) {
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(at(v, 0)), avi.Joined(at(v, 1))
	var all []string
	say := func(from, to *harness.WS, text string) {
		t.Helper()
		from.MustSend(room, text)
		to.Message(text)
		all = append(all, text)
	}
	say(l, a, "before")
	say(a, l, "and back")

	v.Postgres.Stop()
	for i := range 20 {
		say(l, a, fmt.Sprintf("without SQL %d", i))
		say(a, l, fmt.Sprintf("answer without SQL %d", i))
	}
	unavailable := func(what string, a harness.Answer) {
		t.Helper()
		if a.Status != http.StatusServiceUnavailable || a.Code() != wire.Unavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s without SQL: %d %s %s", what, a.Status, a.Header, a.Body)
		}
	}
	unavailable("history", v.Do(http.MethodGet, at(v, 0)+"/v1/rooms/"+room+"/messages", lisa.Tokens.AccessToken, nil))
	unavailable("conversations", v.Do(http.MethodGet, at(v, 1)+"/v1/conversations", avi.Tokens.AccessToken, nil))
	unavailable("login", v.Do(http.MethodPost, at(v, 0)+"/v1/sessions", "", map[string]string{"username": lisa.Name, "password": harness.Password}))
	unavailable("registering", v.Do(http.MethodPost, at(v, 0)+"/v1/users", "", map[string]string{"username": "new" + lisa.Name, "password": harness.Password}))
	for i, g := range v.Gateways {
		if !v.Ready(g.Admin) {
			t.Errorf("gateway %d is not ready without SQL", i)
		}
	}
	// A token is enough to connect: gateways ask nobody. What this session missed comes late, live messages come now.
	a2 := avi.Connect(at(v, 2))
	a2.Say(wire.EvJoin, map[string]any{"room": room, "since": map[string]int64{room: 0}})
	live := 0
	testx.Eventually(t, "a new session is live without history", 20*time.Second, func() bool {
		live++
		text := fmt.Sprintf("to a newcomer %d", live)
		say(l, a, text)
		return a2.Count(text) == 1
	})

	v.Postgres.Start(t)
	sameTexts(t, "history that is back", lisa.History(t, at(v, 0), room, len(all)), all)
	say(a, l, "after")
	sameTexts(t, "history", lisa.History(t, at(v, 1), room, len(all)), all)
	testx.Eventually(t, "login is back", 30*time.Second, func() bool {
		ans, err := v.Try(http.MethodPost, at(v, 0)+"/v1/sessions", "", map[string]string{"username": lisa.Name, "password": harness.Password})
		return err == nil && ans.Status == http.StatusCreated
	})
	// The session that joined without history has been given what it missed, once.
	a2.ExpectIn(30*time.Second, "caught_up", func(f wire.Frame) bool { return f.Event == wire.EvCaughtUp })
	settle()
	counts := map[string]int{}
	for _, m := range a2.Received(room) {
		counts[m.Content]++
	}
	for _, text := range all {
		if counts[text] != 1 {
			t.Errorf("%q came %d times to who joined without history", text, counts[text])
		}
	}
	for _, c := range []*harness.WS{l, a} {
		if !c.Open() {
			t.Error("a connection was lost")
		}
		c.Drop()
	}
	if n, m := len(l.Received(room)), len(a.Received(room)); n+m != len(all) {
		t.Errorf("%d and %d messages received of %d", n, m, len(all))
	}
}
