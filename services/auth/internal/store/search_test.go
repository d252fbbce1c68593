package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley.example/pkg/sqldb"
)

// Users whom a version before registered have no key for searches until a service gives them one.
func TestSearchFindsUsersOfTheVersionBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		zoe := s.user(t, "Zoe")
		const many = 2*fillBatch + 1
		register := func(name string) {
			t.Helper()
			if _, err := s.db.Write.ExecContext(ctx, `INSERT INTO auth_users (username, folded, password, created) VALUES ($1, $2, '', 1)`, name, strings.ToLower(name)); err != nil {
				t.Fatal(err)
			}
		}
		found := func(prefix string) int {
			t.Helper()
			list, _, err := s.Contacts(ctx, Page{UserID: zoe.ID, Prefix: prefix, Limit: 10 * many})
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		for i := range many {
			register(fmt.Sprint("Jérémy", i))
		}
		if n := found("jere"); n != 0 {
			t.Fatalf("found %d without a key", n)
		}
		if err := s.Migrate(ctx); err != nil { // as a new version does at its start
			t.Fatal(err)
		}
		if n := found("jere"); n != many {
			t.Errorf("found %d of %d", n, many)
		}
		register("Zoé")
		if more, err := s.Sweep(ctx, now, now); err != nil || more {
			t.Fatal(more, err)
		}
		if n := found("zo"); n != 1 {
			t.Errorf("found %d after a sweep, want one", n)
		}
	})
}

// Among many users a search reads those whom it finds, in their order, through an index.
func TestSearchPlansUseIndexes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		const users = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
			INSERT INTO auth_users (username, folded, plain, password, created) SELECT CAST(i AS TEXT), CAST(i AS TEXT), CAST(i AS TEXT), '', 1 FROM n`
		for _, q := range []string{users, `ANALYZE`} {
			if _, err := s.db.Write.ExecContext(ctx, q); err != nil {
				t.Fatal(err)
			}
		}
		for prefix, index := range map[string]string{"": "folded", "12": "plain", "1é": "folded"} {
			for _, after := range []string{"", "1234"} {
				query, args := Page{UserID: 1, Prefix: prefix, After: after, Limit: 100}.query()
				for _, plan := range plans(t, s, query, args) {
					reads := strings.Contains(plan, "auth_users_"+index) || index == "folded" && strings.Contains(plan, "sqlite_autoindex_auth_users_1")
					if !reads || strings.Contains(plan, "Sort") || strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "Seq Scan on auth_users") {
						t.Errorf("%q after %q:\n%s", prefix, after, plan)
					}
				}
			}
		}
	})
}

// plans are how the database would answer: with SQLite its one plan, with PostgreSQL that for these values and the one for any.
func plans(t *testing.T, s *Store, query string, args []any) (out []string) {
	t.Helper()
	ctx := t.Context()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	read := func(query string, columns int, args ...any) {
		t.Helper()
		lines, err := scanEach(ctx, tx, "a plan", func(r interface{ Scan(...any) error }) (line string, err error) {
			var unused int
			return line, r.Scan(append(slices.Repeat([]any{&unused}, columns), &line)...)
		}, query, args...)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Join(lines, "\n"))
	}
	if s.db.Dialect == sqldb.SQLite {
		read("EXPLAIN QUERY PLAN "+query, 3, args...)
		return out
	}
	var values []string
	for _, v := range args {
		values = append(values, "'"+fmt.Sprint(v)+"'")
	}
	run := func(query string) {
		t.Helper()
		if _, err := tx.ExecContext(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	run("PREPARE q AS " + query)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		run("SET LOCAL plan_cache_mode = " + mode)
		read("EXPLAIN EXECUTE q("+strings.Join(values, ", ")+")", 0)
	}
	run("DEALLOCATE q")
	return out
}
