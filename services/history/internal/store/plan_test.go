package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/pkg/room"
	"parley/pkg/sqldb"
	"parley/pkg/testx"
)

func TestMain(m *testing.M) { testx.Main(m) }

// A table that was analysed while it was small must not be read as a whole once it has grown.
func TestBatchesUseIndexes(t *testing.T) {
	ctx := context.Background()
	s, err := Open(sqldb.Config{URL: testx.Postgres(t), Conns: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(ctx, `INSERT INTO history_partitions (p, owner) VALUES (0, 'me')`); err != nil {
		t.Fatal(err)
	}
	seq := int64(0)
	commit := func(n int) {
		b := Batch{P: 0, Owner: "me", Lease: time.Minute, From: seq, Complete: true}
		for range n {
			seq++
			b.Messages = append(b.Messages, Message{Seq: seq, Room: room.Room{A: "a", B: fmt.Sprint("b", seq%50)}, ID: fmt.Sprint("id", seq), Content: []byte("c"), SentAt: 1})
		}
		b.To = seq
		if _, err := s.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
	}
	scans := func() (n int64) {
		t.Helper()
		// Each backend reports what it did when it is asked to, or idle.
		if _, err := s.write.ExecContext(ctx, `SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
		if err := s.db.QueryRowContext(ctx, `SELECT COALESCE(SUM(seq_scan), 0) FROM pg_stat_user_tables WHERE relname IN ('history_messages', 'history_conversations')`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.write.SetMaxOpenConns(1)
	commit(20)
	if _, err := s.db.ExecContext(ctx, `ANALYZE history_messages, history_conversations`); err != nil {
		t.Fatal(err)
	}
	before := scans()
	for range 20 { // PostgreSQL settles on a plan after five
		commit(100)
	}
	if after := scans(); after != before {
		t.Errorf("the tables were read as a whole %d times", after-before)
	}
}
