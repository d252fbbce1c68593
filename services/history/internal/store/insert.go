package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"parley.example/pkg/sqldb"
)

// liteStmts are the prepared statements of ingest on SQLite's one writing connection: preparing costs more than running. (pgx
// prepares by itself.)
type liteStmts struct {
	messages, conversations insert
	fence, last, twins      string
	m                       map[string]*sql.Stmt
}

func newLiteStmts() *liteStmts {
	return &liteStmts{
		messages:      newInsert(`INSERT INTO history_messages `+messageColumns+` VALUES `, ``, 10),
		conversations: newInsert(intoConversations+`VALUES `, upsertConversation, 7),
		last:          `SELECT last_seq FROM history_conversations WHERE a = $1 AND b = $2`,
		twins:         selectTwins + `IN (` + placeholders(twinChunk) + `) ORDER BY pos`,
		m:             map[string]*sql.Stmt{},
	}
}

// prepare runs once, after the schema is there.
func (l *liteStmts) prepare(ctx context.Context, db *sql.DB) error {
	for _, q := range []string{l.messages.many, l.messages.one, l.conversations.many, l.conversations.one, l.fence, l.last, l.twins} {
		st, err := db.PrepareContext(ctx, q)
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		l.m[q] = st
	}
	return nil
}

func (l *liteStmts) close() error {
	var err error
	for _, st := range l.m {
		err = errors.Join(err, st.Close())
	}
	return err
}

// exec runs a statement of ingest.
func (s *Store) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (sql.Result, error) {
	if s.lite == nil {
		return tx.ExecContext(ctx, query, args...)
	}
	return tx.StmtContext(ctx, s.lite.m[query]).ExecContext(ctx, args...)
}

const messageColumns = `(pos, a, b, side, client_id, content, prev, sent_at, alias, dedupe)`

func (s *Store) insertMessages(ctx context.Context, tx *sql.Tx, b *Batch, hashes []int64) error {
	n := len(b.Messages)
	if s.db.Dialect == sqldb.SQLite {
		return s.bulk(ctx, tx, "store messages", s.lite.messages, n, func(i int, args []any) []any {
			m := &b.Messages[i]
			return append(args, pos(b.P, m.Seq), m.Room.A, m.Room.B, side(m), m.ID, m.Content, null(m.Prev), m.SentAt, nullZero(m.Alias), hashes[i])
		})
	}
	at, as, bs, sides := make([]int64, n), make([]string, n), make([]string, n), make([]int16, n)
	ids, contents, prevs, sent, alias := make([]string, n), make([][]byte, n), make([]*int64, n), make([]int64, n), make([]*int64, n)
	for i := range b.Messages {
		m := &b.Messages[i]
		at[i], as[i], bs[i], sides[i] = pos(b.P, m.Seq), m.Room.A, m.Room.B, int16(side(m))
		ids[i], contents[i], prevs[i], sent[i] = m.ID, m.Content, m.Prev, m.SentAt
		if m.Alias != 0 {
			alias[i] = &m.Alias
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO history_messages `+messageColumns+` SELECT * FROM
		unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::bytea[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])`,
		at, as, bs, sides, ids, contents, prevs, sent, alias, hashes)
	if err != nil {
		return fmt.Errorf("store messages: %w", err)
	}
	return nil
}

const intoConversations = `INSERT INTO history_conversations (a, b, p, last_seq, last_at, count_a, count_b) `

const upsertConversation = ` ON CONFLICT (a, b) DO UPDATE SET last_seq = excluded.last_seq,
	last_at = CASE WHEN excluded.last_at > history_conversations.last_at THEN excluded.last_at ELSE history_conversations.last_at END,
	count_a = history_conversations.count_a + excluded.count_a, count_b = history_conversations.count_b + excluded.count_b`

func (s *Store) upsertConversations(ctx context.Context, tx *sql.Tx, p int, convs []conversation) error {
	n := len(convs)
	if s.db.Dialect == sqldb.SQLite {
		return s.bulk(ctx, tx, "store conversations", s.lite.conversations, n, func(i int, args []any) []any {
			c := &convs[i]
			return append(args, c.room.A, c.room.B, p, c.last, c.at, c.countA, c.countB)
		})
	}
	as, bs, last, at := make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)
	countA, countB := make([]int64, n), make([]int64, n)
	for i, c := range convs {
		as[i], bs[i], last[i], at[i], countA[i], countB[i] = c.room.A, c.room.B, c.last, c.at, c.countA, c.countB
	}
	_, err := tx.ExecContext(ctx, intoConversations+`SELECT l.a, l.b, $7, l.last_seq, l.last_at, l.count_a, l.count_b FROM
		unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS l(a, b, last_seq, last_at, count_a, count_b)`+upsertConversation,
		as, bs, last, at, countA, countB, p)
	if err != nil {
		return fmt.Errorf("store conversations: %w", err)
	}
	return nil
}

// bulkRows is how many rows one statement of bulk has: beyond some tens it gets no faster.
const bulkRows = 32

// insert is a statement of SQLite for many rows and one for one row.
type insert struct {
	cols      int
	many, one string
}

func newInsert(head, tail string, cols int) insert {
	values := func(rows int) string {
		var b strings.Builder
		b.WriteString(head)
		for k := range rows {
			if k > 0 {
				b.WriteByte(',')
			}
			b.WriteString("(" + placeholders(cols) + ")")
		}
		return b.String() + tail
	}
	return insert{cols, values(bulkRows), values(1)}
}

// bulk inserts n rows with prepared statements of bulkRows rows, then of one.
func (s *Store) bulk(ctx context.Context, tx *sql.Tx, what string, ins insert, n int, row func(i int, args []any) []any) error {
	args := make([]any, 0, ins.cols*bulkRows)
	for i := 0; i < n; {
		rows, query := 1, ins.one
		if n-i >= bulkRows {
			rows, query = bulkRows, ins.many
		}
		args = args[:0]
		for k := range rows {
			args = row(i+k, args)
		}
		if _, err := s.exec(ctx, tx, query, args...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		i += rows
	}
	return nil
}

// placeholders are n of them without names, which SQLite binds fastest.
func placeholders(n int) string { return strings.Repeat(",?", n)[1:] }

func side(m *Message) int {
	if m.ByB {
		return 1
	}
	return 0
}

func null(v *int64) any {
	if v == nil {
		return nil
	}
	return *v
}

func nullZero(v int64) any {
	if v == 0 {
		return nil
	}
	return v
}
