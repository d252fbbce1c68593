package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"parley.example/pkg/room"
)

// Page is a question for some of a user's contacts, in the order of folded names; what a prefix finds also without its accents, in the order
// of names without them.
type Page struct {
	UserID int64
	Roster bool   // accepted contacts; otherwise everybody
	Prefix string // as somebody typed it: without accents it finds names with and without them, else those that have them
	After  string // folded name of the last one of the page before
	Limit  int
	Among  []string // registered names; empty: all
}

// above sorts after every name that begins with the text before it; no name contains it.
const above = "\U0010FFFF"

// Contacts reads one page; next is what to ask after, "" on the last page.
func (s *Store) Contacts(ctx context.Context, p Page) (list []string, next string, err error) {
	query, args := p.query()
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("read contacts: %w", err)
	}
	defer rows.Close()
	var last string
	for rows.Next() {
		var name, folded string
		if err := rows.Scan(&name, &folded); err != nil {
			return nil, "", fmt.Errorf("read a contact: %w", err)
		}
		if len(list) == p.Limit {
			next = last
			continue
		}
		list, last = append(list, name), folded
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("read contacts: %w", err)
	}
	return list, next, nil
}

func (p Page) query() (query string, args []any) {
	where, order, prefix := `u.folded > $2 AND u.folded >= $3 AND u.folded < $4`, `u.folded`, room.Fold(p.Prefix)
	args = []any{p.UserID, p.After, prefix, prefix + above, p.Limit + 1}
	if key, marked := room.Plain(p.Prefix); p.Prefix != "" && !marked {
		where, order = `(u.plain, u.folded) > ($2, $3) AND u.plain < $4`, `u.plain, u.folded`
		args[1], args[2], args[3] = key, "", key+above
		if at, _ := room.Plain(p.After); at >= key {
			args[1], args[2] = at, p.After
		}
	}
	from := `auth_users u WHERE u.id <> $1`
	if p.Roster {
		from = `auth_contacts c JOIN auth_users u ON u.id = c.peer_id WHERE c.user_id = $1 AND c.accepted <> 0`
	}
	if len(p.Among) > 0 {
		var marks strings.Builder
		for _, name := range p.Among {
			args = append(args, room.Fold(name)) // it is folded names that have an index
			fmt.Fprintf(&marks, ",$%d", len(args))
		}
		from += ` AND u.folded IN (` + marks.String()[1:] + `)`
	}
	return `SELECT u.username, u.folded FROM ` + from + ` AND u.erased = 0 AND ` + where + `
		AND NOT EXISTS (SELECT 1 FROM auth_blocks b WHERE b.user_id = $1 AND b.peer_id = u.id)
		AND NOT EXISTS (SELECT 1 FROM auth_blocks b WHERE b.user_id = u.id AND b.peer_id = $1)
		ORDER BY ` + order + ` LIMIT $5`, args
}

// fillBatch is how many users one statement gives their key: it locks them, and nobody should wait for long.
const fillBatch = 200

// fill gives some users their key for searches who have none, because a version before this registered them; more says that there are others. In the
// order of ids, as others lock two users.
func (s *Store) fill(ctx context.Context) (more bool, err error) {
	type user struct {
		id   int64
		name string
	}
	users, err := scanEach(ctx, s.db, "users without a key", func(r interface{ Scan(...any) error }) (u user, err error) {
		return u, r.Scan(&u.id, &u.name)
	}, `SELECT id, username FROM auth_users WHERE plain = '' LIMIT $1`, fillBatch)
	if err != nil || len(users) == 0 {
		return false, err
	}
	slices.SortFunc(users, func(a, b user) int { return cmp.Compare(a.id, b.id) })
	var values strings.Builder
	args := make([]any, 0, 2*len(users))
	for i, u := range users {
		key, _ := room.Plain(u.name)
		args = append(args, u.id, key)
		if i > 0 {
			values.WriteByte(',')
		}
		fmt.Fprintf(&values, "(CAST($%d AS BIGINT), CAST($%d AS TEXT))", 2*i+1, 2*i+2)
	}
	if _, err := s.db.Write.ExecContext(ctx, `UPDATE auth_users SET plain = v.column2 FROM (VALUES `+values.String()+`) AS v
		WHERE auth_users.id = v.column1 AND auth_users.plain = ''`, args...); err != nil {
		return false, fmt.Errorf("give users their keys: %w", err)
	}
	return len(users) == fillBatch, nil
}
