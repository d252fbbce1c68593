package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
	"parley.example/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// onBoth runs a test on an empty store of either kind.
func onBoth(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Run("sqlite", func(t *testing.T) { f(t, open(t, "sqlite:"+filepath.Join(t.TempDir(), "h.db"))) })
	t.Run("postgres", func(t *testing.T) { f(t, open(t, testx.Postgres(t))) })
}

// open makes the schema. Each pool has one connection, which tells what it has read when it is asked.
func open(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(sqldb.Config{URL: url, Conns: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.write.Write.SetMaxOpenConns(1)
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Store) mustExec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.db.Write.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// tables is what plans are looked at for.
var tables = []string{"history_messages", "history_conversations", "history_cursors"}

// scans is how often PostgreSQL has read one of the tables as a whole.
func scans(t *testing.T, s *Store) int64 {
	t.Helper()
	return stat(t, s, "seq_scan")
}

// stat is the sum of a column of PostgreSQL's statistics over the tables.
func stat(t *testing.T, s *Store, column string) (n int64) {
	t.Helper()
	// Each backend reports what it did when it is asked to, or idle.
	for _, db := range []*sqldb.DB{s.db, s.write} {
		if _, err := db.ExecContext(context.Background(), `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.QueryRowContext(context.Background(), `SELECT COALESCE(SUM(`+column+`), 0) FROM pg_stat_user_tables WHERE relname = ANY($1)`, tables).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A table that was analysed while it was small must not be read as a whole once it has grown.
func TestPlansOfBatchesUseIndexes(t *testing.T) {
	s := open(t, testx.Postgres(t))
	s.mustExec(t, `INSERT INTO history_partitions (p, owner) VALUES (0, 'me')`)
	seq := int64(0)
	commit := func(n int) {
		b := Batch{P: 0, Owner: "me", Lease: time.Minute, From: seq, Complete: true}
		for range n {
			seq++
			b.Messages = append(b.Messages, Message{Seq: seq, Room: room.Room{A: "a", B: fmt.Sprint("b", seq%50)}, ID: fmt.Sprint("id", seq), Content: []byte("c"), SentAt: 1})
		}
		b.To = seq
		if _, err := s.Commit(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
	}
	commit(20)
	s.mustExec(t, `ANALYZE history_messages, history_conversations`)
	before := scans(t, s)
	for range 20 { // PostgreSQL settles on a plan after five
		commit(100)
	}
	if after := scans(t, s); after != before {
		t.Errorf("the tables were read as a whole %d times", after-before)
	}
}

// In a large room a read marker is moved without a count of the whole room, and one that does not move counts nothing.
func TestPlansOfReadMarkersCountLittle(t *testing.T) {
	s := open(t, testx.Postgres(t))
	const n = 20_000
	s.mustExec(t, `INSERT INTO history_partitions (p, owner, seq) VALUES (1, 'me', $1)`, n)
	s.mustExec(t, `INSERT INTO history_messages `+messageColumns+` SELECT `+base("1")+` + g, 'a', 'b', g % 2, 'id' || g, ''::bytea, 0, g, NULL, g
		FROM (SELECT generate_series(1, $1::int) AS g) n`, n)
	s.mustExec(t, intoConversations+`VALUES ('a', 'b', 1, $1::bigint, $1, $1 / 2, $1 / 2)`, n)
	s.mustExec(t, `VACUUM ANALYZE history_messages, history_conversations, history_cursors`)
	for _, step := range []struct{ seq, at, unread, reads int64 }{
		{0, 0, n / 2, 10},
		{100, 100, n/2 - 50, 110}, // from the beginning
		{50, 100, n/2 - 50, 10},   // back: nothing moves
		{n - 200, n - 200, 100, 210},
		{n / 2, n - 200, 100, 10},
		{n + 5, n, 0, 10},
		{1, n, 0, 10},
	} {
		before := stat(t, s, "COALESCE(idx_tup_fetch, 0) + seq_tup_read")
		resp, err := s.Read(context.Background(), api.ReadRequest{User: "b", A: "a", B: "b", Seq: step.seq})
		if err != nil || resp.Seq != step.at || resp.Unread != step.unread || resp.Moved != (step.seq != 0 && step.at == min(step.seq, n)) {
			t.Errorf("read up to %d: %+v, %v", step.seq, resp, err)
		}
		if read := stat(t, s, "COALESCE(idx_tup_fetch, 0) + seq_tup_read") - before; read > step.reads {
			t.Errorf("read up to %d: %d rows were read", step.seq, read)
		}
	}
}

// many is how many conversations a large installation has; PostgreSQL begins to think of parallel workers at 80,000.
const many = 100_000

// load fills a store with conversations of one message, five a user; SQLite with 2,000 of them: it is never told to analyse its tables, so it has
// one plan for any number of rows, and under the race detector 100,000 take it a minute.
func load(t *testing.T, s *Store) {
	t.Helper()
	numbers, empty := `(WITH RECURSIVE r(g) AS (SELECT 49001 UNION ALL SELECT g + 1 FROM r WHERE g < 51000) SELECT g FROM r)`, `x''`
	if s.db.Dialect == sqldb.Postgres {
		numbers, empty = fmt.Sprintf(`(SELECT generate_series(1, %d) AS g)`, many), `''::bytea`
	}
	const a, b = `'u' || (g / 5)`, `'v' || g`
	s.mustExec(t, `INSERT INTO history_partitions (p, owner, seq) VALUES (0, 'me', $1)`, many)
	s.mustExec(t, `INSERT INTO history_messages `+messageColumns+` SELECT g, `+a+`, `+b+`, 0, 'id' || g, `+empty+`, 0, g, NULL, g FROM `+numbers+` n`)
	s.mustExec(t, intoConversations+`SELECT `+a+`, `+b+`, 0, g, g, 1, 0 FROM `+numbers+` n`)
	s.mustExec(t, `INSERT INTO history_cursors (username, device, peer, delivered) SELECT `+a+`, '', `+b+`, g FROM `+numbers+` n`)
	if s.db.Dialect == sqldb.Postgres {
		s.mustExec(t, `VACUUM ANALYZE history_messages, history_conversations, history_cursors`) // as autovacuum leaves them
	}
}

// everyRequest makes each request that the store answers, for a user of the middle of load's, and one batch.
func everyRequest(t *testing.T, s *Store, seq int64) {
	t.Helper()
	ctx := context.Background()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var after int64
	for _, item := range questions() {
		must(s.CatchUp(ctx, []api.CatchUpItem{item}))
	}
	must(s.CatchUp(ctx, questions()))
	must(s.Page(ctx, api.PageRequest{A: "u10000", B: "v50001", Limit: 50}))
	must(s.Page(ctx, api.PageRequest{A: "u10000", B: "v50001", Limit: 50, After: &after}))
	first, err := s.Conversations(ctx, api.ConversationsRequest{Username: "u10000", Limit: 2})
	must(first, err)
	must(s.Conversations(ctx, api.ConversationsRequest{Username: "u10000", Limit: 2, After: first.Next}))
	must(s.Find(ctx, "u10000", "id50001"))
	must(s.Rows(ctx, api.RowsRequest{From: 50_000, To: 50_010}))
	must(s.Messages(ctx, api.MessagesRequest{Seqs: []int64{50_000, 50_001}}))
	must(s.Read(ctx, api.ReadRequest{User: "u10000", A: "u10000", B: "v50001", Seq: 50_001}))
	must(s.Confirm(ctx, []api.Confirm{{User: "v50002", Device: "phone", A: "u10000", B: "v50002", Seq: 50_002}}, time.Now()))
	must(s.Marks(ctx, time.Minute, ""))
	must(s.MarksOf(ctx, []api.Pair{{User: "u10000", Peer: "v50001"}}))
	must(nil, s.UseDevices(ctx, []api.CatchUpItem{{User: "v50002", Device: fmt.Sprint("new", seq)}}, time.Now()))
	must(s.Commit(ctx, &Batch{P: 0, Owner: "me", Lease: time.Minute, From: seq, To: seq + 1, Complete: true,
		Messages: []Message{{Seq: seq + 1, Room: room.Room{A: "u10000", B: "v50003"}, ID: fmt.Sprint("x", seq), Content: []byte("c"), SentAt: many}}}))
}

// questions are the kinds of catch-up.
func questions() []api.CatchUpItem {
	return []api.CatchUpItem{
		{User: "u10000", Begin: true, Upto: []int64{many}}, {User: "v50001", Device: "phone"}, {User: "u10000", Vector: []int64{many}},
		{User: "u10000", Rooms: []string{"u10000&v50001"}}, {User: "u10000", Since: map[string]int64{"u10000&v50001": 0}, Vector: []int64{many}},
	}
}

func TestPlansOfLargeTablesUseIndexes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		load(t, s)
		if s.db.Dialect == sqldb.SQLite {
			everyRequest(t, s, many)
		} else {
			before := scans(t, s)
			for i := range int64(8) { // PostgreSQL settles on a plan after five
				everyRequest(t, s, many+i)
			}
			if after := scans(t, s); after != before {
				t.Errorf("the tables were read as a whole %d times", after-before)
			}
		}
		for _, items := range append([][]api.CatchUpItem{questions()}, each1(questions())...) {
			plan := catchUpPlan(t, s, items)
			for _, table := range tables {
				if strings.Contains(plan, "Seq Scan on "+table) {
					t.Errorf("%s is read as a whole:\n%s", table, plan)
				}
			}
			if strings.Contains(plan, "Gather") || strings.Contains(plan, "SCAN c\n") || strings.Contains(plan, "SCAN k\n") {
				t.Errorf("a catch-up is dear:\n%s", plan)
			}
		}
	})
}

func each1[T any](all []T) (out [][]T) {
	for _, v := range all {
		out = append(out, []T{v})
	}
	return out
}

// catchUpPlan is how the database finds what the items missed: with SQLite its one plan, with PostgreSQL that for these values and the one for any.
func catchUpPlan(t *testing.T, s *Store, items []api.CatchUpItem) (plan string) {
	t.Helper()
	ctx := context.Background()
	a := &asked{}
	todo := make([]*progress, len(items))
	for i := range todo {
		todo[i] = &progress{}
	}
	if err := s.missedRooms(ctx, a, items, todo); err == nil || a.query == "" {
		t.Fatal("nothing was asked")
	}
	read := func(q querier, query string, args ...any) {
		t.Helper()
		if err := each(ctx, q, "a plan", query, args, func(r *sql.Rows) error {
			var line string
			if s.db.Dialect == sqldb.SQLite {
				var id, parent, unused int
				err := r.Scan(&id, &parent, &unused, &line)
				plan += line + "\n"
				return err
			}
			err := r.Scan(&line)
			plan += line + "\n"
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if s.db.Dialect == sqldb.SQLite {
		read(s.db, "EXPLAIN QUERY PLAN "+a.query, a.args...)
		return plan
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var values []string
	for _, v := range a.args {
		values = append(values, "'"+strings.ReplaceAll(fmt.Sprint(v), "'", "''")+"'")
	}
	run := func(query string) {
		t.Helper()
		if _, err := tx.ExecContext(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	run("PREPARE q AS " + a.query)
	defer run("DEALLOCATE q")
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		run("SET LOCAL plan_cache_mode = " + mode)
		read(tx, "EXPLAIN EXECUTE q("+strings.Join(values, ", ")+")")
	}
	return plan
}

// asked keeps the query that it gets.
type asked struct {
	querier
	query string
	args  []any
}

func (a *asked) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	a.query, a.args = query, args
	return nil, sql.ErrConnDone
}
