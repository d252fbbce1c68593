package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

const (
	changesKept  = 10_000 // versions
	changesNamed = 2_000  // users of one answer
	changesOnce  = 500    // users of one statement
)

// changed notes, with a new version of all relations, that those of some users have changed: whoever compares versions reads them again. It
// comes last in its transaction, because others wait for the row of the version.
func changed(ctx context.Context, tx *sql.Tx, users ...int64) error {
	list := []statement{{`UPDATE auth_versions SET version = version + 1 WHERE name = 'relations'`, nil}}
	for len(users) > 0 {
		some := users[:min(len(users), changesOnce)]
		users = users[len(some):]
		args := make([]any, len(some))
		for i, id := range some {
			args[i] = id
		}
		list = append(list, statement{`INSERT INTO auth_changes (version, user_id) SELECT v.version, u.id FROM auth_versions v CROSS JOIN auth_users u
			WHERE v.name = 'relations' AND u.id IN (` + places(len(some)) + `)`, args})
	}
	list = append(list, statement{`DELETE FROM auth_changes WHERE version <= (SELECT version FROM auth_versions WHERE name = 'relations') - $1`, []any{changesKept}})
	return execAll(ctx, tx, list)
}

// places are n parameters.
func places(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	return b.String()
}

// Changed names those whose relations have changed after one version, up to another. Known is false when that is not known of each version in
// between, or they are too many.
func (s *Store) Changed(ctx context.Context, since, upto int64) (list []string, known bool, err error) {
	if since <= 0 || since > upto {
		return nil, false, nil
	}
	var n int64
	if err := s.db.QueryRowContext(ctx, `SELECT COUNT(DISTINCT version) FROM auth_changes WHERE version > $1 AND version <= $2`, since, upto).Scan(&n); err != nil {
		return nil, false, fmt.Errorf("count changes: %w", err)
	}
	if n != upto-since {
		return nil, false, nil
	}
	list, err = names(ctx, s.db, `SELECT DISTINCT u.username FROM auth_changes c JOIN auth_users u ON u.id = c.user_id
		WHERE c.version > $1 AND c.version <= $2 LIMIT $3`, since, upto, changesNamed+1)
	return list, err == nil && len(list) <= changesNamed, err
}

// related are those who are in somebody's lists, or the other way round.
func related(ctx context.Context, tx *sql.Tx, user int64) (list []int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT peer_id FROM auth_contacts WHERE user_id = $1 UNION SELECT user_id FROM auth_contacts WHERE peer_id = $1
		UNION SELECT peer_id FROM auth_blocks WHERE user_id = $1 UNION SELECT user_id FROM auth_blocks WHERE peer_id = $1`, user)
	if err != nil {
		return nil, fmt.Errorf("read who is related: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read who is related: %w", err)
		}
		list = append(list, id)
	}
	return list, rows.Err()
}
