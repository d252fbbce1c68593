package auth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/auth"
)

// bucket opens one of the KV buckets.
func (r *rig) bucket(name string) jetstream.KeyValue {
	r.t.Helper()
	js, err := jetstream.New(r.nc)
	if err != nil {
		r.t.Fatal(err)
	}
	kv, err := js.KeyValue(context.Background(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return kv
}

// verify checks a token with nothing but what is in the bucket, as a gateway does.
func (r *rig) verify(tok string) token.Claims {
	r.t.Helper()
	kv := r.bucket(api.KeysBucket)
	c, err := token.Verify(tok, func(kid string) (ed25519.PublicKey, bool) {
		e, err := kv.Get(context.Background(), kid)
		if err != nil {
			return nil, false
		}
		b, err := base64.RawURLEncoding.DecodeString(string(e.Value()))
		return b, err == nil && len(b) == ed25519.PublicKeySize
	}, time.Now())
	if err != nil {
		r.t.Fatalf("the token does not verify: %v", err)
	}
	return c
}

func (r *rig) revoked(key string) bool {
	r.t.Helper()
	_, err := r.bucket(api.RevokedBucket).Get(context.Background(), key)
	if err != nil && err != jetstream.ErrKeyNotFound {
		r.t.Fatal(err)
	}
	return err == nil
}

func TestRegisterAndLogIn(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		ev := r.events()
		r.register("Avi")
		next(t, ev, api.DirectoryEvent{Kind: api.EventRegistered, Username: "Avi"})

		tok := ask(r, api.AuthLogin, api.Credentials{Username: "aVI", Password: "password of Avi"})
		if tok.Username != "Avi" || tok.ExpiresIn != 900 || tok.RefreshToken == "" {
			t.Fatalf("tokens %+v", tok)
		}
		c := r.verify(tok.AccessToken)
		if c.Username != "Avi" || c.Scope != token.ScopeNative || c.UID == 0 || c.SID == "" || c.Expires.Sub(c.Issued) != 15*time.Minute {
			t.Fatalf("claims %+v", c)
		}
		if again := r.verify(r.login("Avi").AccessToken); again.SID == c.SID || again.UID != c.UID {
			t.Fatalf("two logins: %+v, %+v", c, again)
		}

		old := ask(r, api.AuthLogin, api.Credentials{Username: "Avi", Password: "password of Avi", Scope: token.ScopeLegacy})
		if c := r.verify(old.AccessToken); c.Scope != token.ScopeLegacy || c.Expires.Sub(c.Issued) != 30*24*time.Hour || old.RefreshToken != "" {
			t.Fatalf("old client's token %+v, claims %+v", old, c)
		}
		r.refused(wire.InvalidArgument, api.AuthLogin.Subject, api.Credentials{Username: "Avi", Password: "password of Avi", Scope: "admin"})
		if ok := r.metric("parley_auth_logins_total", "ok"); ok != 3 {
			t.Fatalf("%v logins counted", ok)
		}
	})
}

func TestNamesThatCannotBeRegistered(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		for _, n := range []string{"", " ", "*", ">", "a&b", "../x", "a b", "a\x00b", "😀", "a\u202eb", "\u202eabc", "-a", ".a", "a/b", strings.Repeat("x", 65), "a\tb", "$a", "a$b", "\u0301a"} {
			r.refused(wire.InvalidUsername, api.AuthRegister.Subject, api.Credentials{Username: n, Password: "long enough"})
		}
		r.register("a.b", strings.Repeat("é", 64), "אבי", "عمر", "O-Neill_3@x+y", "Straße")
		for _, n := range []string{"A.B", strings.Repeat("É", 64), strings.Repeat("e\u0301", 64), "STRASSE", "ａ.ｂ"} {
			r.refused(wire.UsernameTaken, api.AuthRegister.Subject, api.Credentials{Username: n, Password: "long enough"})
		}
		for _, p := range []string{"", "1234567", "äöüÄÖÜß", strings.Repeat("x", 1025)} {
			r.refused(wire.InvalidArgument, api.AuthRegister.Subject, api.Credentials{Username: "Somebody", Password: p})
		}
		ask(r, api.AuthRegister, api.Credentials{Username: "Somebody", Password: strings.Repeat("x", 1024)})
	})
}

func TestNamesGoToOneOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		var wg sync.WaitGroup
		got := make(chan string, 8)
		for _, n := range []string{"Same", "same", "SAME", "sAme", "saMe", "samE", "SAme", "saME"} {
			wg.Go(func() {
				u, err := try(r, api.AuthRegister, api.Credentials{Username: n, Password: "long enough"})
				if err == nil {
					got <- u.Username
				} else if wire.AsError(err).Code != wire.UsernameTaken {
					t.Errorf("%s: %v", n, err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d users have the name", len(got))
		}
	})
}

func TestLoginWithWrongCredentialsAnswersAlike(t *testing.T) {
	r := start(t, "sqlite:"+t.TempDir()+"/auth.db")
	r.register("Avi")
	cost := func(name, pw string) (float64, *wire.Error) {
		before := r.metric("parley_auth_hashes_total", "")
		e := r.refused(wire.Unauthenticated, api.AuthLogin.Subject, api.Credentials{Username: name, Password: pw, Address: "192.0.2.1"})
		return r.metric("parley_auth_hashes_total", "") - before, e
	}
	n1, e1 := cost("Avi", "not the password")
	n2, e2 := cost("Nobody", "not the password")
	if n1 != 1 || n2 != 1 || *e1 != *e2 {
		t.Fatalf("known: %v hashes, %v; unknown: %v hashes, %v", n1, e1, n2, e2)
	}
	for _, name := range []string{"", "*", "a&b", "a\x00b"} {
		if _, e := cost(name, "x"); *e != *e1 {
			t.Fatalf("%q: %v", name, e)
		}
	}
}

func TestLogout(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		r.register("Avi", "Lisa")
		tok, other, lisa := r.login("Avi"), r.login("Avi"), r.login("Lisa")
		c := r.verify(tok.AccessToken)
		for range 2 { // repeating does no harm
			ask(r, api.AuthLogout, api.LogoutRequest{Username: "Avi", SID: c.SID})
			if !r.revoked("sid." + c.SID) {
				t.Fatal("not revoked")
			}
		}
		r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: tok.RefreshToken})
		ask(r, api.AuthRefresh, api.RefreshRequest{RefreshToken: other.RefreshToken})
		ask(r, api.AuthRefresh, api.RefreshRequest{RefreshToken: lisa.RefreshToken})
		for _, bad := range []string{"", "a.b", "*", ">", "a b", strings.Repeat("x", 65)} {
			r.refused(wire.InvalidArgument, api.AuthLogout.Subject, api.LogoutRequest{Username: "Avi", SID: bad})
		}
	})
}

func TestRevocationsRunOutWithTheirTokens(t *testing.T) {
	r := start(t, "sqlite:"+t.TempDir()+"/auth.db")
	r.register("Avi")
	c := r.verify(r.login("Avi").AccessToken)
	ask(r, api.AuthLogout, api.LogoutRequest{Username: "Avi", SID: c.SID})
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(context.Background(), "KV_"+api.RevokedBucket)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(context.Background(), "$KV."+api.RevokedBucket+".sid."+c.SID)
	if err != nil {
		t.Fatal(err)
	}
	ttl, err := time.ParseDuration(m.Header.Get("Nats-TTL"))
	if err != nil || ttl < 15*time.Minute || ttl > 20*time.Minute {
		t.Fatalf("a revocation lives %q (%v)", m.Header.Get("Nats-TTL"), err)
	}
	if age := s.CachedInfo().Config.MaxAge; age < 30*24*time.Hour {
		t.Fatalf("the bucket forgets after %s", age)
	}
	if s, err = js.Stream(context.Background(), "KV_"+api.KeysBucket); err != nil || s.CachedInfo().Config.MaxAge != 0 {
		t.Fatalf("the bucket of keys forgets: %v", err)
	}
}

func TestDisableAndErase(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		ctx := t.Context()
		r.register("Avi", "Lisa")
		tok := r.login("Avi")
		if err := r.admin().SetDisabled(ctx, "avi", true); err != nil {
			t.Fatal(err)
		}
		if !r.revoked("user." + subject.Token("Avi")) {
			t.Fatal("the tokens live on")
		}
		if !ask(r, api.AuthRelations, api.RelationsRequest{Username: "Avi"}).Disabled {
			t.Fatal("not disabled")
		}
		r.refused(wire.Forbidden, api.AuthLogin.Subject, api.Credentials{Username: "Avi", Password: "password of Avi"})
		r.refused(wire.Unauthenticated, api.AuthLogin.Subject, api.Credentials{Username: "Avi", Password: "guess"})
		r.refused(wire.Unauthenticated, api.AuthRefresh.Subject, api.RefreshRequest{RefreshToken: tok.RefreshToken})
		if err := r.admin().SetDisabled(ctx, "Avi", false); err != nil {
			t.Fatal(err)
		}
		r.login("Avi")

		ev := r.events()
		if err := r.admin().Erase(ctx, "Avi"); err != nil {
			t.Fatal(err)
		}
		next(t, ev, api.DirectoryEvent{Kind: api.EventRelations, Username: "Avi"})
		next(t, ev, api.DirectoryEvent{Kind: api.EventErased, Username: "Avi"})
		r.refused(wire.Unauthenticated, api.AuthLogin.Subject, api.Credentials{Username: "Avi", Password: "password of Avi"})
		r.refused(wire.UsernameTaken, api.AuthRegister.Subject, api.Credentials{Username: "AVI", Password: "long enough"})
		if got := ask(r, api.AuthResolve, api.ResolveRequest{Names: []string{"Avi", "lisa"}}).Usernames; got[0] != "" || got[1] != "Lisa" {
			t.Fatalf("resolved %q", got)
		}
		if err := r.admin().Erase(ctx, "Avi"); err == nil {
			t.Fatal("erased twice")
		}
	})
}

func TestDemoUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url)
		for range 2 {
			if err := r.svc.AddDemoUsers(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d := ask(r, api.AuthDirectory, api.DirectoryRequest{})
		if got := strings.Join(d.Usernames, " "); got != "Admin Avi Era Leonid Lisa Tsahi" {
			t.Fatalf("users: %s", got)
		}
		lisa := ask(r, api.AuthLogin, api.Credentials{Username: "Lisa", Password: "TestMe"})
		if c := r.verify(lisa.AccessToken); strings.Contains(c.Scope, token.ScopeAdmin) {
			t.Fatalf("scope %q", c.Scope)
		}
		admin := ask(r, api.AuthLogin, api.Credentials{Username: "Admin", Password: "AdminPassword"})
		if c := r.verify(admin.AccessToken); c.Scope != "native admin" {
			t.Fatalf("scope %q", c.Scope)
		}
		r.refused(wire.Unauthenticated, api.AuthLogin.Subject, api.Credentials{Username: "Leonid", Password: ""})
	})
}

func TestLoginThrottle(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		r := start(t, url, func(c *auth.Config) { c.AccountTries, c.AddressTries = 3, 6 })
		// A second replica on the same SQL.
		other := launch(t, r.n, url, func(c *auth.Config) { c.AccountTries, c.AddressTries, c.TokenKeyPath = 3, 6, r.cfg.TokenKeyPath })
		testx.Eventually(t, "the second replica is ready", 20*time.Second, func() bool { return other.svc.Ready() == nil })
		r.register("Avi", "Lisa")
		// A hash may take longer than the first block on a slow machine; each further one is twice as long.
		limited := func(name func(i int) string, addr string, free int) {
			t.Helper()
			for i := range 30 {
				_, err := try(r, api.AuthLogin, api.Credentials{Username: name(i), Password: "guess", Address: addr})
				switch e := wire.AsError(err); {
				case e.Code == wire.RateLimited && i >= free && e.RetryAfterMS > 0:
					return
				case e.Code != wire.Unauthenticated:
					t.Fatalf("try %d: %+v", i, e)
				}
			}
			t.Fatal("never limited")
		}
		one := func(n string) func(int) string { return func(int) string { return n } }
		limited(one("Avi"), "", 3)
		r.login("Lisa")               // others are not concerned
		limited(one("Nobody"), "", 3) // unknown names answer alike
		limited(func(i int) string { return fmt.Sprintf("Guess%d", i) }, "2001:db8::1", 6)
		r.refused(wire.Unauthenticated, api.AuthLogin.Subject, api.Credentials{Username: "Else", Password: "guess", Address: "2001:db8:0:1::2"})
	})
}

func TestLoginQueueForHashesIsBounded(t *testing.T) {
	r := start(t, "sqlite:"+t.TempDir()+"/auth.db", func(c *auth.Config) { c.HashConcurrency, c.HashQueue, c.AccountTries = 1, 1, 1000 })
	r.register("Avi")
	var wg sync.WaitGroup
	codes := make(chan wire.Code, 30)
	for range 30 {
		wg.Go(func() {
			_, err := try(r, api.AuthLogin, api.Credentials{Username: "Avi", Password: "password of Avi"})
			if err != nil {
				e := wire.AsError(err)
				if e.Code == wire.RateLimited && e.RetryAfterMS < 1 {
					t.Errorf("no time to retry: %+v", e)
				}
				codes <- e.Code
				return
			}
			codes <- "ok"
		})
	}
	wg.Wait()
	close(codes)
	got := map[wire.Code]int{}
	for c := range codes {
		got[c]++
	}
	if got["ok"] < 1 || got[wire.RateLimited] < 1 || got["ok"]+got[wire.RateLimited] != 30 {
		t.Fatalf("outcomes %v", got)
	}
	r.login("Avi") // those turned away were not counted as failures
}
