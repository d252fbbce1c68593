package auth_test

import (
	"errors"
	"fmt"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/auth"
)

func code(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// The administration of a running service, and one beside it over the same SQL and NATS, do the same.
func TestAdministration(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		r := start(t, sqlURL)
		beside, err := auth.OpenAdmin(r.cfg.SQL, r.n.Connect(), testx.Quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer beside.Close()
		for i, a := range []*auth.Admin{r.admin(), beside} {
			ann, bob := fmt.Sprint("Ann", i), fmt.Sprint("Bob", i)
			if name, err := a.Add(t.Context(), ann, "a long password"); name != ann || err != nil {
				t.Fatalf("added %q, %v", name, err)
			}
			for want, got := range map[wire.Code]error{
				wire.UsernameTaken:   second(a.Add(t.Context(), "ANN"+fmt.Sprint(i), "a long password")),
				wire.InvalidArgument: second(a.Add(t.Context(), bob, "short")),
				wire.InvalidUsername: second(a.Add(t.Context(), "a&b", "a long password")),
				wire.UnknownUser:     second(a.SetPassword(t.Context(), bob, "a long password")),
			} {
				if code(got) != want {
					t.Errorf("want %s, got %v", want, got)
				}
			}
			r.register(bob)
			login := func(pw string) (api.Tokens, error) {
				return try(r, api.AuthLogin, api.Credentials{Username: ann, Password: pw})
			}
			old, err := login("a long password")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := login("a long password"); err != nil {
				t.Fatal(err)
			}
			if n, err := a.SetPassword(t.Context(), "ann"+fmt.Sprint(i), "a better password"); n != 2 || err != nil {
				t.Errorf("ended %d logins, %v", n, err)
			}
			r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: old.RefreshToken})
			if _, err := login("a long password"); code(err) != wire.Unauthenticated {
				t.Errorf("the old password: %v", err)
			}
			if _, err := login("a better password"); err != nil {
				t.Errorf("the new password: %v", err)
			}
			ask(r, api.AuthPutBlock, api.PairRequest{Username: ann, Peer: bob})
			p, err := a.Personal(t.Context(), ann)
			if err != nil || p.Account.Username != ann || len(p.Logins) != 1 || len(p.Blocks) != 1 || p.Blocks[0].Username != bob {
				t.Errorf("personal: %+v, %v", p, err)
			}
			if err := a.SetDisabled(t.Context(), ann, true); err != nil {
				t.Fatal(err)
			}
			list, next, err := a.List(t.Context(), "", 1+i)
			if err != nil || list[len(list)-1].Username != ann || list[len(list)-1].Disabled == nil || next == "" {
				t.Errorf("listed %+v, %q, %v", list, next, err)
			}
			if list, next, err = a.List(t.Context(), next, 10); err != nil || len(list) != 1+i || list[i].Username != bob || next != "" {
				t.Errorf("listed %+v, %q, %v", list, next, err)
			}
			if err := a.SetDisabled(t.Context(), ann, false); err != nil {
				t.Fatal(err)
			}
			if _, err := login("a better password"); err != nil {
				t.Errorf("enabled again: %v", err)
			}
			if i == 1 {
				if err := a.Erase(t.Context(), "Ann0"); err != nil {
					t.Error(err)
				}
				if _, err := a.Find(t.Context(), "Ann0"); code(err) != wire.UnknownUser {
					t.Errorf("an erased user is found: %v", err)
				}
				if _, err := a.Add(t.Context(), "ann0", "a long password"); code(err) != wire.UsernameTaken {
					t.Errorf("an erased name was given again: %v", err)
				}
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }
