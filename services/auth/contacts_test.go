package auth_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/services/auth"
)

func roster(c *auth.Config) { c.Mode = string(api.Roster) }

// pages reads all contacts, limit at a time.
func (r *rig) pages(user, prefix string, limit int) (all []string) {
	r.t.Helper()
	after := ""
	for {
		p := ask(r, api.AuthContacts, api.ContactsRequest{Username: user, Prefix: prefix, After: after, Limit: limit})
		if len(p.Usernames) > limit {
			r.t.Fatalf("%d contacts in a page of %d", len(p.Usernames), limit)
		}
		all = append(all, p.Usernames...)
		if after = p.Next; after == "" {
			return all
		}
	}
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestContactsOfEverybody(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		r.register("Avi", "lisa", "Éva", "a.b", "AVRAM", "Zoe", "x_y", "xay", "אבי")
		for limit := 1; limit <= 9; limit++ {
			same(t, r.pages("Avi", "", limit), "a.b", "AVRAM", "lisa", "x_y", "xay", "Zoe", "Éva", "אבי")
		}
		same(t, r.pages("Zoe", "AV", 10), "Avi", "AVRAM")
		same(t, r.pages("zoe", "e\u0301", 10), "Éva")
		same(t, r.pages("zoe", "É", 10), "Éva")
		same(t, r.pages("zoe", "x_", 10), "x_y") // no wildcard

		ask(r, api.AuthPutBlock, api.PairRequest{Username: "Avi", Peer: "LISA"})
		same(t, r.pages("Avi", "l", 10))
		same(t, r.pages("lisa", "avi", 10))
		ask(r, api.AuthDeleteBlock, api.PairRequest{Username: "Avi", Peer: "lisa"})
		same(t, r.pages("Avi", "l", 10), "lisa")

		among := func(names ...string) api.ContactsRequest { return api.ContactsRequest{Username: "Avi", Among: names} }
		same(t, ask(r, api.AuthContacts, among("Zoe", "nobody", "Éva", "Avi", "a.b", "Zoe", "x_")).Usernames, "a.b", "Zoe", "Éva")
		same(t, ask(r, api.AuthContacts, among("nobody")).Usernames)
		r.refused(wire.TooLarge, api.AuthContacts.Subject, among(make([]string, 1001)...))

		for _, q := range []api.ContactsRequest{{Prefix: "a\x00"}, {After: "\x00"}, {Limit: -1}, {Prefix: strings.Repeat("x", 5000)}, {Among: []string{"lisa", "\x00"}}} {
			q.Username = "Avi"
			r.refused(wire.InvalidArgument, api.AuthContacts.Subject, q)
		}
		for _, n := range []string{"", "Nobody", "*", "a\x00"} {
			r.refused(wire.UnknownUser, api.AuthContacts.Subject, api.ContactsRequest{Username: n})
		}
		if p := ask(r, api.AuthContacts, api.ContactsRequest{Username: "Avi", Limit: 1_000_000}); len(p.Usernames) != 8 {
			t.Fatalf("%d contacts", len(p.Usernames))
		}

		r.register("Evan", "Jérémy", "Jeremias", "İlker", "Ilse", "Łukasz")
		for limit := 1; limit <= 3; limit++ {
			same(t, r.pages("zoe", "Jere", limit), "Jeremias", "Jérémy")
			same(t, r.pages("zoe", "JÉRÉ", limit), "Jérémy")
			same(t, r.pages("zoe", "ev", limit), "Éva", "Evan")
			same(t, r.pages("zoe", "il", limit), "İlker", "Ilse")
			same(t, r.pages("zoe", "luka", limit), "Łukasz")
		}
		same(t, r.pages("zoe", "ilker", 1), "İlker")
		if p := ask(r, api.AuthContacts, api.ContactsRequest{Username: "Avi", Prefix: "jere", After: "a"}); len(p.Usernames) != 2 {
			t.Errorf("from a place before the first: %q", p.Usernames)
		}
		same(t, r.pages("zoe", "%", 10))
		same(t, r.pages("zoe", "*", 10))
	})
}

func TestResolveAndDirectory(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, func(c *auth.Config) { c.DirectoryLimit = 3 })
		r.register("Avi", "lisa", "Straße")
		got := ask(r, api.AuthResolve, api.ResolveRequest{Names: []string{"AVI", "nobody", "avi", "", "*", "a\x00", "STRASSE", "Lisa"}})
		same(t, got.Usernames, "Avi", "", "Avi", "", "", "", "Straße", "lisa")
		if got := ask(r, api.AuthResolve, api.ResolveRequest{}); len(got.Usernames) != 0 {
			t.Fatalf("resolved %q", got.Usernames)
		}
		if got.Erased != nil {
			t.Fatalf("erased %q", got.Erased)
		}
		r.register("Mona")
		if err := r.admin().Erase(t.Context(), "mona"); err != nil {
			t.Fatal(err)
		}
		got = ask(r, api.AuthResolve, api.ResolveRequest{Names: []string{"*", "MONA", "avi", "nobody"}})
		same(t, got.Usernames, "", "", "Avi", "")
		same(t, got.Erased, "", "Mona", "", "")
		r.refused(wire.TooLarge, api.AuthResolve.Subject, api.ResolveRequest{Names: make([]string, 1001)})

		d := ask(r, api.AuthDirectory, api.DirectoryRequest{})
		if d.Total != 3 || d.Limit != 3 || d.Mode != api.Everyone || d.Version == 0 {
			t.Fatalf("directory %+v", d)
		}
		same(t, d.Usernames, "Avi", "lisa", "Straße")
		r.register("Zoe")
		if d := ask(r, api.AuthDirectory, api.DirectoryRequest{}); d.Total != 4 || d.Usernames != nil {
			t.Fatalf("directory %+v", d)
		}
	})
}

func TestContactsInARosterNeedConsent(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, roster)
		r.register("Avi", "Lisa", "Era")
		ev := r.events()
		put := func(user, peer, want string) {
			t.Helper()
			if got := ask(r, api.AuthPutContact, api.PairRequest{Username: user, Peer: peer}).State; got != want {
				t.Fatalf("%s asks %s: %q, want %q", user, peer, got, want)
			}
		}
		contacts := func(user string) []string {
			t.Helper()
			rel := ask(r, api.AuthRelations, api.RelationsRequest{Username: user})
			if rel.Mode != api.Roster {
				t.Fatalf("mode %q", rel.Mode)
			}
			if pages := r.pages(user, "", 100); !slices.Equal(pages, rel.Contacts) {
				t.Fatalf("pages have %q, relations %q", pages, rel.Contacts)
			}
			return rel.Contacts
		}
		version := func() int64 { return ask(r, api.AuthDirectory, api.DirectoryRequest{}).Version }

		v := version()
		put("Avi", "lisa", "requested")
		put("Avi", "lisa", "requested")
		put("Avi", "Nobody", "requested")
		same(t, contacts("Avi"))
		put("Lisa", "AVI", "contact")
		next(t, ev, api.DirectoryEvent{Kind: api.EventContactAdded, Username: "Lisa", Peer: "Avi"})
		put("Avi", "Lisa", "contact")
		same(t, contacts("Avi"), "Lisa")
		same(t, contacts("Lisa"), "Avi")
		if version() == v {
			t.Fatal("the version stayed")
		}
		v = version()

		ask(r, api.AuthDeleteContact, api.PairRequest{Username: "Lisa", Peer: "Avi"})
		next(t, ev, api.DirectoryEvent{Kind: api.EventContactRemoved, Username: "Lisa", Peer: "Avi"})
		same(t, contacts("Avi"))
		if version() == v {
			t.Fatal("the version stayed")
		}

		put("Avi", "Lisa", "requested")
		put("Lisa", "Avi", "contact")
		next(t, ev, api.DirectoryEvent{Kind: api.EventContactAdded, Username: "Lisa", Peer: "Avi"})
		ask(r, api.AuthPutBlock, api.PairRequest{Username: "Lisa", Peer: "Avi"})
		next(t, ev, api.DirectoryEvent{Kind: api.EventRelations, Username: "Lisa", Peer: "Avi"})
		next(t, ev, api.DirectoryEvent{Kind: api.EventContactRemoved, Username: "Lisa", Peer: "Avi"})
		same(t, contacts("Avi"))
		same(t, contacts("Lisa"))
		// Who is blocked cannot tell it from not having been agreed to.
		put("Avi", "Lisa", "requested")
		put("Lisa", "Avi", "requested")
		same(t, contacts("Avi"))
		rel := ask(r, api.AuthRelations, api.RelationsRequest{Username: "Avi"})
		same(t, rel.BlockedBy, "Lisa")
		same(t, ask(r, api.AuthRelations, api.RelationsRequest{Username: "lisa"}).Blocked, "Avi")

		for _, subj := range []string{api.AuthPutContact.Subject, api.AuthDeleteContact.Subject, api.AuthPutBlock.Subject, api.AuthDeleteBlock.Subject} {
			r.refused(wire.InvalidArgument, subj, api.PairRequest{Username: "Avi", Peer: "aVi"})
			r.refused(wire.UnknownUser, subj, api.PairRequest{Username: "Nobody", Peer: "Avi"})
			for _, n := range []string{"Nobody", "*", "a\x00"} {
				if _, err := try(r, rpc.Endpoint[api.PairRequest, api.PairResponse]{Subject: subj}, api.PairRequest{Username: "Avi", Peer: n}); err != nil {
					t.Fatalf("%s of %q tells: %v", subj, n, err)
				}
			}
		}
	})
}

// Requests that cross must not both stay requests.
func TestContactsRequestsThatCross(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, roster)
		r.register("Avi", "Lisa")
		for i := range 20 {
			states := make(chan string, 2)
			var wg sync.WaitGroup
			for _, p := range []api.PairRequest{{Username: "Avi", Peer: "Lisa"}, {Username: "Lisa", Peer: "Avi"}} {
				wg.Go(func() {
					resp, err := try(r, api.AuthPutContact, p)
					if err != nil {
						t.Errorf("put: %v", err)
					}
					states <- resp.State
				})
			}
			wg.Wait()
			if a, b := <-states, <-states; a != "contact" && b != "contact" {
				t.Fatalf("round %d: %s, %s", i, a, b)
			}
			same(t, r.pages("Avi", "", 10), "Lisa")
			ask(r, api.AuthDeleteContact, api.PairRequest{Username: "Avi", Peer: "Lisa"})
		}
	})
}
