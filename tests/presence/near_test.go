package presence

import (
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/tests/harness"
)

// known is what the last picture and all that came after say of each user: online, not online, or nothing at all.
func known(t *testing.T, ws *harness.WS) (state map[string]bool, partial bool) {
	t.Helper()
	for _, f := range ws.All(wire.EvPresence) {
		if d := harness.Data[wire.Presence](t, f); d.Snapshot {
			partial = d.Partial
		}
	}
	return ws.Online(), partial
}

// TestPresenceManyUsers: among more people than the limit, a client that joins everything and names nobody gets the presence of those with whom it
// talks and of those whom it listed last, and is not told of anybody else that he is offline.
func TestPresenceManyUsers(t *testing.T) {
	const many = 3000
	s := harness.New(t, harness.Options{Gateways: 2, Accounts: many})
	v := s.For(t)
	me, talker, newcomer := s.Accounts[0].In(t), s.Accounts[1].In(t), s.Accounts[2].In(t)
	pair := func(u *harness.User) string {
		r, err := room.Of(me.Name, u.Name)
		if err != nil {
			t.Fatal(err)
		}
		return r.String()
	}
	from := talker.Joined(at(v, 0))
	from.MustSend(pair(talker), "before")

	ws := me.Joined(at(v, 1))
	shows := func(what string, want map[string]bool) {
		t.Helper()
		eventually(t, what, enough, func() bool {
			state, partial := known(t, ws)
			if !partial {
				return false
			}
			for name, online := range want {
				if on, ok := state[name]; !ok || on != online {
					return false
				}
			}
			return true
		})
	}
	shows("with whom one talked", map[string]bool{talker.Name: true})

	rows := contacts(t, v, me, at(v, 0), 1000) // at another gateway
	if len(rows) != many-1 {
		t.Fatalf("%d contacts", len(rows))
	}
	want := map[string]bool{}
	for _, c := range rows[2000:] { // the last page
		want[c.Username] = false
	}
	want[talker.Name] = true
	shows("whom one listed", want)

	var come []*harness.User
	for i := 10; i < many; i += 100 { // on the list and not on it
		come = append(come, s.Accounts[i])
	}
	conns := connected(t, come, func(i int) string { return at(v, i) })
	for _, u := range come {
		if _, listed := want[u.Name]; listed {
			want[u.Name] = true
		}
	}
	shows("who came", want)
	state, _ := known(t, ws)
	for _, u := range come {
		if on, ok := state[u.Name]; ok && !on {
			t.Errorf("%s is told to be offline", u.Name)
		}
	}
	if most := 1000 + 1; len(state) > most {
		t.Errorf("told of %d users, at most %d are near", len(state), most)
	}

	to := newcomer.Joined(at(v, 0))
	to.MustSend(pair(newcomer), "now") // from now on, one talks with this one, too
	want[newcomer.Name] = true
	shows("who talks to one", want)
	leave(append(conns, from, to)...)
	for name := range want {
		want[name] = false
	}
	shows("who left", want)
}
