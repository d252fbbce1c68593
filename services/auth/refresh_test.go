package auth_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/pkg/token"
	"parley.example/services/auth"
)

// strict takes no used token any more once its successor is in use.
func strict(c *auth.Config) { c.RefreshGrace = 0 }

func (r *rig) refresh(tok string) api.Tokens {
	r.t.Helper()
	return ask(r, api.AuthRefresh, api.RefreshRequest{RefreshToken: tok})
}

// used tells of the use of an access token, as a gateway does.
func (r *rig) used(tok api.Tokens) {
	r.t.Helper()
	c := r.verify(tok.AccessToken)
	ask(r, api.AuthUsed, api.UsedRequest{Uses: []api.Use{{SID: c.SID, Turn: c.Turn}}})
}

func TestRefreshRotatesAndReuseEndsTheLogin(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, strict)
		r.register("Avi")
		first, other := r.login("Avi"), r.login("Avi")
		c := r.verify(first.AccessToken)

		second := r.refresh(first.RefreshToken)
		if again := r.refresh(first.RefreshToken); again.RefreshToken != second.RefreshToken || again.AccessToken == "" {
			t.Fatalf("asked again, it is %+v", again)
		}
		if s := r.verify(second.AccessToken); second.RefreshToken == first.RefreshToken || s.SID != c.SID || s.Turn != 1 || !s.Began.Equal(c.Began) {
			t.Fatalf("refreshed to %+v", s)
		}
		third := r.refresh(second.RefreshToken)
		if r.revoked("sid." + c.SID) {
			t.Fatal("revoked by a proper refresh")
		}
		r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: first.RefreshToken})
		if !r.revoked("sid." + c.SID) {
			t.Fatal("reuse did not revoke the access tokens")
		}
		r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: third.RefreshToken})
		r.refresh(other.RefreshToken)
		for _, bad := range []string{"", "x", "a\x00b", strings.Repeat("x", 10_000), other.AccessToken} {
			r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: bad})
		}
		for outcome, want := range map[string]float64{"ok": 3, "again": 1, "reused": 1} {
			if n := r.metric("parley_auth_refreshes_total", outcome); n != want {
				t.Fatalf("%v counted as %s, want %v", n, outcome, want)
			}
		}
	})
}

// The access token that came with the successor counts as much as the successor itself.
func TestRefreshReuseAfterTheAccessTokenWasUsed(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, strict)
		r.register("Avi")
		first := r.login("Avi")
		r.used(first) // nothing came before it
		r.refresh(first.RefreshToken)
		r.used(first)
		second := r.refresh(first.RefreshToken)
		r.used(second)
		r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: first.RefreshToken})
		if !r.revoked("sid." + r.verify(second.AccessToken).SID) {
			t.Fatal("the login lives on")
		}
		r.refused(wire.InvalidArgument, api.AuthUsed.Subject, api.UsedRequest{Uses: make([]api.Use, api.MaxUses+1)})
	})
}

// Two tabs, or ten, that refresh at the same time with the same token get the same one, at any replica, though some use what they got at once.
func TestRefreshAtTheSameTime(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		long := func(c *auth.Config) { c.RefreshGrace = time.Minute } // a slow machine is slow
		r := start(t, url, long)
		r.register("Avi")
		tok := r.login("Avi")
		for range 3 {
			var wg sync.WaitGroup
			got := make([]api.Tokens, 10)
			for i := range got {
				wg.Go(func() {
					var err error
					if got[i], err = try(r, api.AuthRefresh, api.RefreshRequest{RefreshToken: tok.RefreshToken}); err != nil {
						t.Error(err)
						return
					}
					if i%2 == 0 {
						c := r.verify(got[i].AccessToken)
						if _, err := try(r, api.AuthUsed, api.UsedRequest{Uses: []api.Use{{SID: c.SID, Turn: c.Turn}}}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			for _, g := range got {
				if g.RefreshToken != got[0].RefreshToken || r.revoked("sid."+r.verify(g.AccessToken).SID) {
					t.Fatalf("got %+v and %+v", got[0], g)
				}
			}
			tok = got[0]
		}
	})
}

// notBefore is when the logins of a user that began are void, in the bucket.
func (r *rig) notBefore(user string) time.Time {
	r.t.Helper()
	e, err := r.bucket(api.RevokedBucket).Get(context.Background(), "began."+subject.Token(user))
	if err != nil {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(e.Value()), 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return time.UnixMilli(ms)
}

// void reports whether a gateway refuses the token.
func (r *rig) void(tok api.Tokens) bool {
	r.t.Helper()
	c := r.verify(tok.AccessToken)
	return r.revoked("sid."+c.SID) || !c.Began.After(r.notBefore(c.Username))
}

// A login that is one too many ends at once; a change of the password ends all, also those that are in no list any more.
func TestRevocationsOfEveryLoginThatGoes(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, func(c *auth.Config) { c.HashConcurrency, c.HashQueue = 2, 1000 })
		r.register("Avi", "Lisa")
		lisa := r.login("Lisa")
		var list []api.Tokens
		for i := range 103 {
			c := api.Credentials{Username: "Avi", Password: "password of Avi"}
			if i%2 == 0 {
				c.Scope = token.ScopeLegacy
			}
			list = append(list, ask(r, api.AuthLogin, c))
		}
		for i, tok := range list {
			if r.void(tok) != (i < 3) {
				t.Fatalf("login %d of 103: void is %v", i, i >= 3)
			}
		}
		entries, err := r.bucket(api.RevokedBucket).Keys(context.Background())
		if err != nil || len(entries) != 1 {
			t.Fatalf("revocations %v, %v: logins that are too many share one", entries, err)
		}
		if n, err := r.admin().SetPassword(t.Context(), "Avi", "password of Avi"); n != 100 || err != nil {
			t.Fatalf("ended %d, %v", n, err)
		}
		fresh := r.login("Avi")
		for i, tok := range list {
			if !r.void(tok) {
				t.Fatalf("login %d is good after a change of the password", i)
			}
			if tok.RefreshToken != "" {
				r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: tok.RefreshToken})
			}
		}
		if r.void(fresh) || r.void(lisa) {
			t.Fatal("a login after the change, or of somebody else, is void")
		}
		r.refresh(fresh.RefreshToken)
		if a := ask(r, api.AuthEndLogins, api.EndLoginsRequest{Username: "avi"}); a.Ended != 1 || !r.void(fresh) {
			t.Fatalf("ended %+v", a)
		}
	})
}

// Whoever writes last, the latest time counts.
func TestRevocationsNotBeforeNeverGoesBack(t *testing.T) {
	r := start(t, "sqlite:"+t.TempDir()+"/auth.db")
	r.register("Avi")
	tok := r.login("Avi")
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := try(r, api.AuthEndLogins, api.EndLoginsRequest{Username: "Avi"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !r.void(tok) {
		t.Fatal("the login lives on")
	}
	last := r.notBefore("Avi")
	ask(r, api.AuthEndLogins, api.EndLoginsRequest{Username: "Avi"})
	if now := r.notBefore("Avi"); now.Before(last) || last.IsZero() {
		t.Fatal(fmt.Sprint("it went back from ", last, " to ", now))
	}
}
