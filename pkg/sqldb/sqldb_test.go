package sqldb_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"parley.example/pkg/sqldb"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// version makes the migrations of a program of that version: each one adds a table.
func version(n int) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 1; i <= n; i++ {
		m[fmt.Sprintf("%05d_v%d.sql", i, i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE thing_%d (a integer);\n", i)}
	}
	return m
}

// TestMigrationsOfTwoVersions: while a rollout goes on, programs of both versions start, in any order and at once. The older ones run on the newer schema.
func TestMigrationsOfTwoVersions(t *testing.T) {
	pg := testx.PostgresServer(t)
	for name, url := range map[string]string{"sqlite": "sqlite:" + filepath.Join(t.TempDir(), "a.db"), "postgres": pg.Database(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := func(v int) error {
				db, err := sqldb.Open(sqldb.Config{URL: url, Conns: 2})
				if err != nil {
					return err
				}
				defer db.Close()
				if err := db.Migrate(ctx, version(v), "versions"); err != nil {
					return fmt.Errorf("version %d: %w", v, err)
				}
				_, err = db.Write.ExecContext(ctx, fmt.Sprintf("INSERT INTO thing_%d VALUES (1)", v))
				return err
			}
			if err := start(1); err != nil {
				t.Fatal(err)
			}
			if name == "postgres" { // replicas share a PostgreSQL only
				var wg sync.WaitGroup
				for i := range 6 {
					wg.Go(func() {
						if err := start(1 + i%2); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			}
			for _, v := range []int{2, 1, 2} {
				if err := start(v); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// breaking is what a program of the version before would stumble over.
var breaking = regexp.MustCompile(`(?i)\b(DROP\s+(TABLE|COLUMN)|RENAME|ALTER\s+COLUMN|SET\s+NOT\s+NULL|ADD\s+CONSTRAINT)\b`)

// TestMigrationsOnlyAdd: the schema is brought up to date by the first program of the new version, while those of the old one go on. So a
// migration only adds; what is not used any more goes a release later, with a line "-- unused since VERSION" above it.
func TestMigrationsOnlyAdd(t *testing.T) {
	files, err := filepath.Glob("../../services/*/internal/store/migrations/*/*.sql")
	if err != nil || len(files) < 4 {
		t.Fatalf("found %d migrations: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(b), "-- +goose Down")
		if m := breaking.FindString(up); m != "" && !strings.Contains(up, "-- unused since ") {
			t.Errorf("%s has %q: programs of the version before still run on this schema", f, m)
		}
		for _, line := range regexp.MustCompile(`(?i)ADD\s+COLUMN[^;]*`).FindAllString(up, -1) {
			if u := strings.ToUpper(line); strings.Contains(u, "NOT NULL") && !strings.Contains(u, "DEFAULT") {
				t.Errorf("%s: %q needs a default: programs of the version before do not fill it", f, line)
			}
		}
	}
}
