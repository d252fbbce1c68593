package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"parley.example/pkg/sqldb"
)

// seqBits is how many bits of a pos are the seq; clients are promised seqs below 2^53.
const seqBits = 54

func pos(p int, seq int64) int64 { return int64(p)<<seqBits | seq }

func seqOf(pos int64) int64 { return pos & (1<<seqBits - 1) }

func partOf(pos int64) int { return int(pos >> seqBits) }

// base is an expression for pos(p, 0).
func base(p string) string { return "(CAST(" + p + " AS BIGINT) << " + strconv.Itoa(seqBits) + ")" }

// now is the database's clock in Unix ms: leases of several replicas go by one clock.
func (s *Store) now() string {
	if s.db.Dialect == sqldb.Postgres {
		return `CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)`
	}
	return `CAST(unixepoch('subsec') * 1000 AS INTEGER)`
}

// list is a table expression for parameter $n, a JSON array of objects with these fields. Fields end in "_n" when they are
// numbers and are text otherwise.
func (s *Store) list(n int, name string, fields ...string) string {
	var b strings.Builder
	if s.db.Dialect == sqldb.Postgres {
		fmt.Fprintf(&b, "json_to_recordset(CAST($%d AS json)) AS %s(", n, name)
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			if strings.HasSuffix(f, "_n") {
				b.WriteString(f + " BIGINT")
			} else {
				b.WriteString(f + ` TEXT COLLATE "C"`)
			}
		}
		b.WriteString(")")
		return b.String()
	}
	b.WriteString("(SELECT ")
	for i, f := range fields {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "value->>'%s' AS %s", f, f)
	}
	fmt.Fprintf(&b, " FROM json_each($%d)) AS %s", n, name)
	return b.String()
}

func toJSON(v any) string {
	b, _ := json.Marshal(v) // slices of structs with plain fields
	return string(b)
}

// each reads all rows of a query.
func each(ctx context.Context, q querier, what, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	return scanAll(rows, err, what, scan)
}

// eachOf is each of a prepared statement.
func eachOf(ctx context.Context, st *sql.Stmt, what string, args []any, scan func(*sql.Rows) error) error {
	rows, err := st.QueryContext(ctx, args...)
	return scanAll(rows, err, what, scan)
}

func scanAll(rows *sql.Rows, err error, what string, scan func(*sql.Rows) error) error {
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("read %s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}
