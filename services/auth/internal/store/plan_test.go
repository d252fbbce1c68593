package store

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/sqldb"
	"parley.example/pkg/testx"
)

// many is how many users a large installation has.
const many = 100_000

// load fills a store on PostgreSQL with users of two contacts, a login, a refresh token and a block each, as autovacuum leaves them.
func load(t *testing.T, s *Store) {
	t.Helper()
	fill := strings.NewReplacer("many", strconv.Itoa(many), "now", strconv.FormatInt(now.UnixMilli(), 10))
	for _, q := range []string{
		`INSERT INTO auth_users (username, folded, plain, password, created) SELECT 'u' || g, 'u' || g, 'u' || g, '', 1 FROM generate_series(1, many) g`,
		`INSERT INTO auth_contacts SELECT g, 1 + (g + d) % many, 1, 1 FROM generate_series(1, many) g, generate_series(1, 2) d`,
		`INSERT INTO auth_blocks SELECT g, 1 + (g + 10) % many, 1 FROM generate_series(1, many) g`,
		`INSERT INTO auth_logins SELECT 's' || g, g, 'native', now, now + 1000000000 FROM generate_series(1, many) g`,
		`INSERT INTO auth_refresh_tokens (hash, sid, n, used) SELECT 'h' || g, 's' || g, 1, 0 FROM generate_series(1, many) g`,
		`INSERT INTO auth_throttle SELECT 'k' || g, 1, 0, now FROM generate_series(1, many) g`,
		`INSERT INTO auth_changes SELECT 1, g FROM generate_series(1, 5000) g`,
		`VACUUM ANALYZE`,
	} {
		if _, err := s.db.Write.ExecContext(t.Context(), fill.Replace(q)); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// scans is how often PostgreSQL has read each of the large tables as a whole.
func scans(t *testing.T, s *Store) map[string]int64 {
	t.Helper()
	// Each backend reports what it did when it is asked to, or idle.
	for _, db := range []querier{s.db, s.db.Write} {
		if _, err := db.ExecContext(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
	}
	type row struct {
		table string
		n     int64
	}
	rows, err := scanEach(t.Context(), s.db, "statistics", func(r interface{ Scan(...any) error }) (v row, err error) {
		return v, r.Scan(&v.table, &v.n)
	}, `SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname LIKE 'auth_%' AND relname <> 'auth_versions'`)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, r := range rows {
		out[r.table] = r.n
	}
	return out
}

// Among many users no request reads a table as a whole, but for the count of all users, which is kept for a minute.
func TestPlansOfManyUsersUseIndexes(t *testing.T) {
	t.Parallel()
	s, err := Open(sqldb.Config{URL: testx.Postgres(t), Conns: 1}) // one connection, which tells what it has read when it is asked
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.db.Write.SetMaxOpenConns(1)
	load(t, s)
	ctx := t.Context()
	before := scans(t, s)
	var request string
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
	}
	for i := range 8 { // PostgreSQL settles on a plan after five
		at := now.Add(time.Duration(i) * time.Second)
		var u, peer User
		var l Login
		refresh := fmt.Sprint("refresh", i)
		for _, r := range []struct {
			name string
			f    func()
		}{
			{"AddUser", func() { u, err = s.AddUser(ctx, fmt.Sprint("new", i), "", false, at); must(u, err) }},
			{"UserByName", func() { peer, err = s.UserByName(ctx, fmt.Sprint("u5000", i)); must(peer, err) }},
			{"Taken", func() { must(s.Taken(ctx, "u50000")) }},
			{"Resolve", func() { _, _, err := s.Resolve(ctx, []string{"u50000", "U50001", "nobody"}); must(nil, err) }},
			{"First", func() { must(s.First(ctx, 1001)) }},
			{"Accounts", func() { must(s.Accounts(ctx, "u50000", 100)) }},
			{"Account", func() { must(s.Account(ctx, "u50000")) }},
			{"PutContact", func() { _, _, err := s.PutContact(ctx, u, peer, at); must(nil, err) }},
			{"PutContact back", func() { _, _, err := s.PutContact(ctx, peer, u, at); must(nil, err) }},
			{"PutBlock", func() { must(s.PutBlock(ctx, u, peer, at)) }},
			{"DeleteBlock", func() { must(nil, s.DeleteBlock(ctx, u, peer)) }},
			{"DeleteContact", func() { must(s.DeleteContact(ctx, u, peer)) }},
			{"Relations", func() { must(s.Relations(ctx, "u50000")) }},
			{"Changed", func() { _, _, err := s.Changed(ctx, 1, 2); must(nil, err) }},
			{"Contacts", func() { _, _, err := s.Contacts(ctx, Page{UserID: 50_000, Roster: true, Limit: 100}); must(nil, err) }},
			{"Contacts among", func() {
				_, _, err := s.Contacts(ctx, Page{UserID: 50_000, Limit: 100, Among: []string{"u7", "u8"}})
				must(nil, err)
			}},
			{"Contacts of everybody", func() { _, _, err := s.Contacts(ctx, Page{UserID: 50_000, Prefix: "U12", Limit: 100}); must(nil, err) }},
			{"AddLogin", func() {
				l, err = s.AddLogin(ctx, Login{User: u, SID: fmt.Sprint("sid", i), Scope: "native", Created: at, Expires: at.Add(time.Hour)}, refresh)
				must(l, err)
			}},
			{"LoginScope", func() { must(s.LoginScope(ctx, u.Username, fmt.Sprint("sid", i))) }},
			{"Rotate", func() { must(s.Rotate(ctx, refresh, refresh+"next", at, at.Add(time.Hour), time.Minute)) }},
			{"Used", func() { must(nil, s.Used(ctx, fmt.Sprint("sid", i), 1, at)) }},
			{"Surplus", func() { _, _, err := s.Surplus(ctx, 50_000); must(nil, err) }},
			{"LoginsOf", func() { must(s.LoginsOf(ctx, 50_000, at)) }},
			{"EndLoginsUpTo", func() { must(nil, s.EndLoginsUpTo(ctx, 40_000+int64(i), at)) }},
			{"EndLogin", func() { must(nil, s.EndLogin(ctx, fmt.Sprint("s", 1000+i))) }},
			{"VoidLogins", func() { must(s.VoidLogins(ctx, 30_000+int64(i), at)) }},
			{"SetPassword", func() { _, _, err := s.SetPassword(ctx, fmt.Sprint("u2000", i), "x", at); must(nil, err) }},
			{"SetDisabled", func() { must(s.SetDisabled(ctx, fmt.Sprint("u2100", i), true, at)) }},
			{"Personal", func() { _, _, _, err := s.Personal(ctx, 50_000); must(nil, err) }},
			{"Erase", func() { must(s.Erase(ctx, fmt.Sprint("u2200", i), at)) }},
			{"Blocked", func() { must(s.Blocked(ctx, "k5", at)) }},
			{"Charge", func() {
				must(s.Charge(ctx, "k6", Policy{Free: 100, Base: time.Second, Max: time.Minute, Window: time.Hour}, at))
			}},
			{"Refund", func() { must(nil, s.Refund(ctx, "k6")) }},
			{"Forget", func() { must(nil, s.Forget(ctx, fmt.Sprint("k7", i))) }},
			{"Sweep", func() { must(s.Sweep(ctx, now.Add(-time.Hour), now.Add(-time.Hour))) }},
		} {
			request = r.name
			r.f()
			after := scans(t, s)
			for table, n := range after {
				if n != before[table] {
					t.Errorf("%s reads all of %s", r.name, table)
				}
			}
			before = after
		}
	}
}
