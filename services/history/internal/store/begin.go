package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"parley.example/pkg/api"
	"parley.example/pkg/sqldb"
)

// begins tells, for the items that ask, where their answers begin: below the first message of each room, whatever the order in which
// rooms are answered. An item of which not all rooms are known here is not told.
func (s *Store) begins(ctx context.Context, tx *sql.Tx, items []api.CatchUpItem, todo []*progress) error {
	var all []*missed
	for i, t := range todo {
		if !items[i].Begin || items[i].Cont != "" || items[i].Upto == nil || t.cut {
			continue
		}
		t.Begin = slices.Clone(items[i].Upto)
		for k := range t.rooms {
			all = append(all, &t.rooms[k])
		}
	}
	if len(all) == 0 {
		return nil
	}
	// A room's first message lies above its start: those that start lowest come first, and most of the others need not be looked at.
	slices.SortFunc(all, func(x, y *missed) int { return cmp.Compare(x.after, y.after) })
	lower := func(m *missed, seq int64) {
		b := todo[m.item].Begin
		b[m.p] = min(b[m.p], seq-1)
	}
	if s.db.Dialect == sqldb.Postgres {
		return s.beginsPostgres(ctx, tx, all, lower)
	}
	st, err := tx.PrepareContext(ctx, `SELECT m.pos FROM history_messages m WHERE m.a = ? AND m.b = ? AND m.pos > ? AND m.pos <= ? AND m.alias IS NULL ORDER BY m.pos LIMIT 1`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer st.Close()
	for _, m := range all {
		if m.after >= todo[m.item].Begin[m.p] {
			continue
		}
		if err := eachOf(ctx, st, "messages", []any{m.room.A, m.room.B, pos(m.p, m.after), pos(m.p, m.upto)}, func(rows *sql.Rows) error {
			var at int64
			err := rows.Scan(&at)
			lower(m, seqOf(at))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) beginsPostgres(ctx context.Context, tx *sql.Tx, all []*missed, lower func(*missed, int64)) error {
	n := len(all)
	nr, as, bs, from, to := make([]int64, n), make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)
	for i, m := range all {
		nr[i], as[i], bs[i], from[i], to[i] = int64(i), m.room.A, m.room.B, pos(m.p, m.after), pos(m.p, m.upto)
	}
	return each(ctx, tx, "messages", `SELECT l.n, m.pos FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS l(n, a, b, after, upto)
		CROSS JOIN LATERAL (SELECT m.pos FROM history_messages m WHERE m.a = l.a AND m.b = l.b AND m.pos > l.after AND m.pos <= l.upto AND m.alias IS NULL
			ORDER BY m.a, m.b, m.pos LIMIT 1) m`, []any{nr, as, bs, from, to}, func(rows *sql.Rows) error {
		var i, at int64
		err := rows.Scan(&i, &at)
		if err == nil {
			lower(all[i], seqOf(at))
		}
		return err
	})
}
