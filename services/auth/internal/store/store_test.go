package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.example/pkg/sqldb"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) {
	testx.SideBySide(4)
	testx.Main(m)
}

var now = time.UnixMilli(1_700_000_000_000)

// onBoth runs a test on both stores, beside other tests.
func onBoth(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Parallel()
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
			var wg sync.WaitGroup
			for range 3 { // replicas that start together
				wg.Go(func() {
					if err := s.Migrate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			f(t, s)
		})
	}
}

func (s *Store) user(t *testing.T, name string) User {
	t.Helper()
	u, err := s.AddUser(t.Context(), name, "", false, now)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestContactListsAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		s.limits = limits{contacts: 2, blocks: 2, blockedBy: 2}
		ctx := t.Context()
		avi := s.user(t, "Avi")
		var u []User
		for i := range 3 {
			u = append(u, s.user(t, fmt.Sprintf("u%d", i)))
			want := error(nil)
			if i == 2 {
				want = ErrFull
			}
			if _, _, err := s.PutContact(ctx, avi, u[i], now); !errors.Is(err, want) {
				t.Fatalf("contact %d: %v", i, err)
			}
		}
		for i := range 3 {
			want := error(nil)
			if i == 2 {
				want = ErrFull
			}
			if _, err := s.PutBlock(ctx, avi, u[i], now); !errors.Is(err, want) {
				t.Fatalf("block %d: %v", i, err)
			}
			if _, err := s.PutBlock(ctx, u[i], avi, now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.PutBlock(ctx, avi, u[0], now); err != nil { // there already
			t.Fatal(err)
		}
		r, err := s.Relations(ctx, "avi")
		if err != nil || len(r.Blocked) != 2 || len(r.BlockedBy) != 2 || !r.BlockedByMore {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

func TestLoginIsRefusedToWhoWasDisabledMeanwhile(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		avi := s.user(t, "Avi")
		if _, err := s.SetDisabled(t.Context(), "Avi", true, now); err != nil {
			t.Fatal(err)
		}
		_, err := s.AddLogin(t.Context(), Login{SID: "s", User: avi, Scope: "native", Created: now, Expires: now}, "t")
		if !errors.Is(err, ErrNoUser) {
			t.Fatal(err)
		}
	})
}

func TestThrottleDoublesAndForgets(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		p := Policy{Free: 2, Base: time.Second, Max: 5 * time.Second, Window: time.Hour}
		at := now
		charge := func() time.Duration {
			t.Helper()
			d, err := s.Charge(ctx, "k", p, at)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		blocked := func(want time.Duration) {
			t.Helper()
			if d, err := s.Blocked(ctx, "k", at); err != nil || d != want {
				t.Fatalf("blocked for %v, %v; want %v", d, err, want)
			}
		}
		blocked(0)
		for range 2 {
			if d := charge(); d != 0 {
				t.Fatal(d)
			}
			blocked(0)
		}
		for _, want := range []time.Duration{1, 2, 4, 5, 5, 5} {
			want *= time.Second
			if d := charge(); d != 0 {
				t.Fatalf("refused for %v", d)
			}
			blocked(want)
			if d := charge(); d != want {
				t.Fatalf("refused for %v, want %v", d, want)
			}
			at = at.Add(want)
			blocked(0)
		}
		for range 40 { // no overflow
			charge()
			blocked(5 * time.Second)
			at = at.Add(5 * time.Second)
		}
		at = at.Add(time.Hour + time.Millisecond)
		charge()
		blocked(0)
		if err := s.Refund(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			charge()
		}
		blocked(time.Second)
		if err := s.Forget(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		blocked(0)
		var n int
		if err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM auth_throttle`).Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d rows are left, %v", n, err)
		}
	})
}

// However many try together, only the free ones and one more pass.
func TestThrottleInParallel(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		p := Policy{Free: 3, Base: time.Second, Max: time.Minute, Window: time.Hour}
		var wg sync.WaitGroup
		passed := make(chan struct{}, 30)
		for range 30 {
			wg.Go(func() {
				d, err := s.Charge(context.Background(), "k", p, now)
				if err != nil {
					t.Error(err)
				}
				if d == 0 {
					passed <- struct{}{}
				}
			})
		}
		wg.Wait()
		if len(passed) != 4 {
			t.Fatalf("%d passed", len(passed))
		}
	})
}

func TestNamesThatWereErasedStayTaken(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		avi, lisa := s.user(t, "Avi"), s.user(t, "Lisa")
		if _, err := s.PutBlock(ctx, lisa, avi, now); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Erase(ctx, "AVI", now); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddUser(ctx, "avi", "", false, now); !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
		if taken, err := s.Taken(ctx, "Avi"); err != nil || !taken {
			t.Fatal(taken, err)
		}
		if n, err := s.Count(ctx); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		// Rooms are named after the registered form.
		if living, erased, err := s.Resolve(ctx, []string{"aVI", "LISA", "nobody"}); err != nil || !slices.Equal(living, []string{"", "Lisa", ""}) || !slices.Equal(erased, []string{"Avi", "", ""}) {
			t.Fatal(living, erased, err)
		}
		if r, err := s.Relations(ctx, "Lisa"); err != nil || len(r.Blocked) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		var left string
		if err := s.db.QueryRowContext(ctx, `SELECT username || password FROM auth_users WHERE id = $1`, avi.ID).Scan(&left); err != nil || left != "Avi" {
			t.Fatalf("%q is left, %v", left, err)
		}
	})
}
