package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"parley.example/pkg/room"
)

// Account is what the administration shows of a user.
type Account struct {
	ID       int64
	Username string
	Admin    bool
	Created  time.Time
	Disabled time.Time // zero: not disabled
	Folded   string    // place in the list
}

const accountFields = `SELECT id, username, admin <> 0, created, disabled, folded FROM auth_users WHERE erased = 0 AND folded `

func scanAccount(r interface{ Scan(...any) error }) (a Account, err error) {
	var created, disabled int64
	if err := r.Scan(&a.ID, &a.Username, &a.Admin, &created, &disabled, &a.Folded); err != nil {
		return a, err
	}
	a.Created = time.UnixMilli(created)
	if disabled != 0 {
		a.Disabled = time.UnixMilli(disabled)
	}
	return a, nil
}

// Accounts reads a page of all users, by name; after is the Folded of the last one of the page before.
func (s *Store) Accounts(ctx context.Context, after string, limit int) ([]Account, error) {
	return scanEach(ctx, s.db, "users", scanAccount, accountFields+`> $1 ORDER BY folded LIMIT $2`, after, limit)
}

// Account finds a user by a name in any case; ErrNoUser when there is none.
func (s *Store) Account(ctx context.Context, name string) (Account, error) {
	list, err := scanEach(ctx, s.db, "a user", scanAccount, accountFields+`= $1`, room.Fold(name))
	if err == nil && len(list) == 0 {
		err = ErrNoUser
	}
	if err != nil {
		return Account{}, err
	}
	return list[0], nil
}

// SetPassword gives a user another password hash. Logins that began with the old one are still there, but void; began is up to when
// they did.
func (s *Store) SetPassword(ctx context.Context, name, phc string, now time.Time) (u User, began time.Time, err error) {
	err = s.db.InTx(ctx, func(tx *sql.Tx) (err error) {
		if u, err = userByName(ctx, tx, name); err != nil {
			return err
		}
		u.Password = phc
		if err := execAll(ctx, tx, []statement{{`UPDATE auth_users SET password = $2 WHERE id = $1`, []any{u.ID, phc}}}); err != nil {
			return err
		}
		began, err = voidLogins(ctx, tx, u.ID, now)
		return err
	})
	return u, began, err
}

// Relation is a row of a user's contacts or blocks.
type Relation struct {
	Peer     string
	Accepted bool
	Mine     bool // the user made it; else the peer did
	Since    time.Time
}

func scanRelation(r interface{ Scan(...any) error }) (v Relation, err error) {
	var since int64
	err = r.Scan(&v.Peer, &v.Accepted, &v.Mine, &since)
	v.Since = time.UnixMilli(since)
	return v, err
}

// Personal reads what else is kept of a user: logins, contacts with requests both ways, and whom the user blocks. Who blocks the user is
// not the user's to know.
func (s *Store) Personal(ctx context.Context, id int64) (logins []Login, contacts, blocks []Relation, err error) {
	logins, err = scanEach(ctx, s.db, "logins", func(r interface{ Scan(...any) error }) (l Login, err error) {
		var created, expires int64
		err = r.Scan(&l.SID, &l.Scope, &created, &expires)
		l.Created, l.Expires = time.UnixMilli(created), time.UnixMilli(expires)
		return l, err
	}, `SELECT sid, scope, created, expires FROM auth_logins WHERE user_id = $1 ORDER BY created, sid`, id)
	if err != nil {
		return nil, nil, nil, err
	}
	contacts, err = scanEach(ctx, s.db, "contacts", scanRelation, `SELECT u.username, c.accepted <> 0, c.user_id = $1, c.created FROM auth_contacts c
		JOIN auth_users u ON u.id = CASE WHEN c.user_id = $1 THEN c.peer_id ELSE c.user_id END
		WHERE c.user_id = $1 OR c.peer_id = $1 AND c.accepted = 0 ORDER BY u.folded`, id)
	if err != nil {
		return nil, nil, nil, err
	}
	blocks, err = scanEach(ctx, s.db, "blocks", scanRelation, `SELECT u.username, 1 = 1, 1 = 1, b.created FROM auth_blocks b
		JOIN auth_users u ON u.id = b.peer_id WHERE b.user_id = $1 ORDER BY u.folded`, id)
	return logins, contacts, blocks, err
}

func scanEach[T any](ctx context.Context, q querier, what string, scan func(interface{ Scan(...any) error }) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return out, nil
}
