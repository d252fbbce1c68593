package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"parley.example/pkg/sqldb"
	"parley.example/pkg/testx"
)

const grace = 5 * time.Second

func (s *Store) login(t *testing.T, u User, sid, refresh string, at time.Time) Login {
	t.Helper()
	l, err := s.AddLogin(t.Context(), Login{SID: sid, User: u, Scope: "native", Created: at, Expires: at.Add(time.Hour)}, refresh)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// trade rotates at a time and says what came of it: the youngest token, and whether it was given before.
func (s *Store) trade(t *testing.T, refresh, next string, at time.Time) string {
	t.Helper()
	r, err := s.Rotate(t.Context(), refresh, next, at, at.Add(time.Hour), grace)
	switch {
	case errors.Is(err, ErrReused):
		return "reused"
	case errors.Is(err, ErrNoLogin):
		return "no login"
	case err != nil:
		t.Fatal(err)
	case r.Again:
		return r.Token + " again"
	}
	return r.Token
}

func (s *Store) trades(t *testing.T, refresh, next string, at time.Time, want string) {
	t.Helper()
	if got := s.trade(t, refresh, next, at); got != want {
		t.Fatalf("%s is traded for %q, want %q", refresh, got, want)
	}
}

func TestRotateAsksAgainUntilTheSuccessorIsUsed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		avi := s.user(t, "Avi")
		s.login(t, avi, "s", "r0", now)
		at := now
		later := func(d time.Duration) time.Time { at = at.Add(d); return at }
		s.trades(t, "r0", "r1", at, "r1")
		s.trades(t, "r0", "x", later(30*time.Minute), "r1 again") // however late
		s.trades(t, "r0", "x", at, "r1 again")
		// The successor is used, as a refresh token: both stay good for the grace, and lead to the same one.
		s.trades(t, "r1", "r2", later(time.Minute), "r2")
		s.trades(t, "r0", "x", later(grace-1), "r2 again")
		s.trades(t, "r1", "x", at, "r2 again")
		s.trades(t, "r0", "x", later(1), "reused")
		s.trades(t, "r1", "x", at, "r2 again") // nobody has used r2 yet, nor the access token that came with it
		if err := s.Used(t.Context(), "s", 2, later(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := s.Used(t.Context(), "s", 2, later(grace/2)); err != nil { // told twice, it counts from the first time
			t.Fatal(err)
		}
		s.trades(t, "r1", "x", later(grace/2-1), "r2 again")
		s.trades(t, "r1", "x", later(1), "reused")
		s.trades(t, "r2", "r3", at, "r3")
		s.trades(t, "nobody's", "x", at, "no login")
		s.trades(t, "r3", "x", later(2*time.Hour), "no login")
	})
}

// Many who come with the same token at the same time all get the same.
func TestRotateDoesNotFork(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		s.login(t, s.user(t, "Avi"), "s", "r0", now)
		var wg sync.WaitGroup
		got := make([]string, 10)
		for i := range got {
			wg.Go(func() { got[i] = strings.TrimSuffix(s.trade(t, "r0", fmt.Sprint("next", i), now), " again") })
		}
		wg.Wait()
		for _, g := range got {
			if g != got[0] || !strings.HasPrefix(g, "next") {
				t.Fatalf("got %q", got)
			}
		}
		var n int
		if err := s.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM auth_refresh_tokens`).Scan(&n); err != nil || n != 2 {
			t.Fatalf("%d tokens, %v", n, err)
		}
	})
}

func TestLoginAndTokenListsAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		s.limits = limits{logins: 2, tokens: 2}
		ctx := t.Context()
		avi := s.user(t, "Avi")
		for i := range 3 {
			s.login(t, avi, fmt.Sprint("s", i), fmt.Sprint("t", i), now.Add(time.Duration(i)*time.Second))
		}
		if n := s.count(t); n != 6 {
			t.Fatalf("%d rows: a login that is too many goes when its tokens are void, not before", n)
		}
		began, any, err := s.Surplus(ctx, avi.ID)
		if err != nil || !any || !began.Equal(now) {
			t.Fatalf("surplus %v, %v, %v", began, any, err)
		}
		if err := s.EndLoginsUpTo(ctx, avi.ID, began); err != nil {
			t.Fatal(err)
		}
		if _, any, err := s.Surplus(ctx, avi.ID); err != nil || any {
			t.Fatalf("surplus %v, %v", any, err)
		}
		s.trades(t, "t0", "x", now, "no login")
		tok := "t2"
		for i := range 5 {
			next := fmt.Sprint("n", i)
			s.trades(t, tok, next, now, next)
			tok = next
		}
		s.trades(t, "n2", "y", now.Add(grace), "reused") // a remembered token
		s.trades(t, "t2", "y", now, "no login")          // a forgotten one
		// A login that ran out is no good, also before it is swept; then nothing of it is left.
		over := now.Add(3 * time.Hour)
		s.trades(t, tok, "y", over, "no login")
		if more, err := s.Sweep(ctx, over, over); err != nil || more {
			t.Fatalf("sweep: %v, %v", more, err)
		}
		if n := s.count(t); n != 0 {
			t.Fatalf("%d rows are left", n)
		}
	})
}

// count is the number of logins and refresh tokens.
func (s *Store) count(t *testing.T) (n int) {
	t.Helper()
	if err := s.db.QueryRowContext(t.Context(), `SELECT (SELECT COUNT(*) FROM auth_logins) + (SELECT COUNT(*) FROM auth_refresh_tokens)`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A login stays in SQL as long as any gateway may take its access token.
func TestLoginSweepWaitsForOtherClocks(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		l := s.login(t, s.user(t, "Avi"), "s", "", now)
		if _, err := s.Sweep(t.Context(), l.Expires.Add(late), now); err != nil || s.count(t) != 1 {
			t.Fatalf("it is swept too soon (%v)", err)
		}
		if _, err := s.Sweep(t.Context(), l.Expires.Add(late+time.Millisecond), now); err != nil || s.count(t) != 0 {
			t.Fatalf("it stays (%v)", err)
		}
	})
}

func TestLoginsVoid(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		avi := s.user(t, "Avi")
		s.login(t, avi, "s0", "r0", now)
		s.login(t, avi, "s1", "r1", now.Add(time.Second)) // by a clock ahead of the next
		u, began, err := s.SetPassword(ctx, "avi", "another", now)
		if err != nil || !began.Equal(now.Add(time.Second)) {
			t.Fatalf("void up to %v, %v", began, err)
		}
		s.trades(t, "r0", "x", now, "no login")
		s.trades(t, "r1", "x", now, "no login")
		if _, err := s.AddLogin(ctx, Login{SID: "s2", User: avi, Created: now, Expires: now}, ""); !errors.Is(err, ErrNoUser) {
			t.Fatalf("a login with the old password: %v", err)
		}
		// With the new one it is good at once, whatever the clock says.
		if l := s.login(t, u, "s3", "r3", now); !l.Created.After(began) {
			t.Fatalf("it began at %v", l.Created)
		}
		s.trades(t, "r3", "r4", now, "r4")
		if sids, err := s.LoginsOf(ctx, avi.ID, began); err != nil || fmt.Sprint(sids) != "[s0 s1]" {
			t.Fatalf("void: %v, %v", sids, err)
		}
		if again, err := s.VoidLogins(ctx, avi.ID, now.Add(-time.Hour)); err != nil || again.Before(began) {
			t.Fatalf("it went back to %v, %v", again, err)
		}
	})
}

// Letting in who was not locked out ends no login: nothing would revoke it.
func TestLoginsOutliveEnablingAnEnabledUser(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		s.login(t, s.user(t, "Avi"), "s", "r0", now)
		if _, err := s.SetDisabled(t.Context(), "Avi", false, now); err != nil {
			t.Fatal(err)
		}
		s.trades(t, "r0", "r1", now, "r1")
	})
}

// Rows of the version before, and a replica of it that goes on beside this one.
func TestLoginsOfTheVersionBefore(t *testing.T) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "a.db") },
		"postgres": func(t *testing.T) string { return testx.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(sqldb.Config{URL: url(t), Conns: 4})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			ctx := t.Context()
			first, err := fs.ReadFile(migrations, "migrations/"+string(s.db.Dialect)+"/00001_auth.sql")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.db.Migrate(ctx, fstest.MapFS{"00001_auth.sql": {Data: first}}, "goose_auth"); err != nil {
				t.Fatal(err)
			}
			var user int64
			if err := s.db.Write.QueryRowContext(ctx, `INSERT INTO auth_users (username, folded, password, created) VALUES ('Avi', 'avi', '', 1) RETURNING id`).Scan(&user); err != nil {
				t.Fatal(err)
			}
			old := func(refresh, next string, n int, at time.Time) {
				t.Helper()
				oldRotate(ctx, t, s, "s", refresh, next, n, at)
			}
			if _, err := s.db.Write.ExecContext(ctx, `INSERT INTO auth_logins (sid, user_id, scope, created, expires) VALUES ('s', $1, 'native', $2, $3)`,
				user, now.UnixMilli(), now.Add(time.Hour).UnixMilli()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.db.Write.ExecContext(ctx, `INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, 's', 0)`, hash("r0")); err != nil {
				t.Fatal(err)
			}
			old("r0", "r1", 1, now.Add(-grace))
			if err := s.Migrate(ctx); err != nil {
				t.Fatal(err)
			}
			s.trades(t, "r1", "r2", now, "r2") // the old one's token is good here
			old("r2", "r3", 3, now)            // and this one's there
			s.trades(t, "r3", "r4", now, "r4")
			s.trades(t, "r0", "x", now, "reused") // what the old one used up stays so
			if s.used(t, "r3") {
				t.Fatal("a token whose successor is unused is used: a replica of the version before would end the login")
			}
		})
	}
}

// used is what a replica of the version before looks at: it ends the login of a used token.
func (s *Store) used(t *testing.T, refresh string) bool {
	t.Helper()
	var used int64
	if err := s.db.QueryRowContext(t.Context(), `SELECT used FROM auth_refresh_tokens WHERE hash = $1`, hash(refresh)).Scan(&used); err != nil {
		t.Fatal(err)
	}
	return used != 0
}

// oldRotate is what the version before writes.
func oldRotate(ctx context.Context, t *testing.T, s *Store, sid, refresh, next string, n int, at time.Time) {
	t.Helper()
	for _, st := range []statement{
		{`UPDATE auth_refresh_tokens SET used = $2 WHERE hash = $1 AND used = 0`, []any{hash(refresh), at.UnixMilli()}},
		{`INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, $2, $3)`, []any{hash(next), sid, n}},
	} {
		res, err := s.db.Write.ExecContext(ctx, st.text, st.args...)
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := res.RowsAffected(); err != nil || changed != 1 {
			t.Fatalf("the version before: %s: %d rows, %v", st.text, changed, err)
		}
	}
}
