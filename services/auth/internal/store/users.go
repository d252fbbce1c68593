package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// User is a registered user who is not erased.
type User struct {
	ID       int64
	Username string // registered form
	Password string // PHC string
	Admin    bool
	Disabled bool
}

// AddUser registers a name that room.Name accepted; ErrTaken when somebody has it, or had it.
func (s *Store) AddUser(ctx context.Context, username, password string, admin bool, now time.Time) (User, error) {
	u := User{Username: username, Password: password, Admin: admin}
	isAdmin := 0
	if admin {
		isAdmin = 1
	}
	plain, _ := room.Plain(username)
	err := s.db.Write.QueryRowContext(ctx, `INSERT INTO auth_users (username, folded, plain, password, admin, created) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
		username, room.Fold(username), plain, password, isAdmin, now.UnixMilli()).Scan(&u.ID)
	switch {
	case sqldb.IsUnique(err):
		return User{}, ErrTaken
	case err != nil:
		return User{}, fmt.Errorf("add a user: %w", err)
	}
	return u, nil
}

// Taken reports whether a name can no longer be registered, also because its user was erased.
func (s *Store) Taken(ctx context.Context, username string) (bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM auth_users WHERE folded = $1`, room.Fold(username)).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look a name up: %w", err)
	}
	return n > 0, nil
}

// UserByName finds a user by a name in any case; ErrNoUser when there is none.
func (s *Store) UserByName(ctx context.Context, name string) (User, error) {
	return userByName(ctx, s.db, name)
}

func userByName(ctx context.Context, q querier, name string) (User, error) {
	var u User
	err := q.QueryRowContext(ctx, `SELECT id, username, password, admin <> 0, disabled <> 0 FROM auth_users WHERE folded = $1 AND erased = 0`,
		room.Fold(name)).Scan(&u.ID, &u.Username, &u.Password, &u.Admin, &u.Disabled)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return User{}, ErrNoUser
	case err != nil:
		return User{}, fmt.Errorf("find a user: %w", err)
	}
	return u, nil
}

// Resolve gives each name its registered form: in living that of a user, in erased that of one who was erased, "" elsewhere.
func (s *Store) Resolve(ctx context.Context, list []string) (living, erased []string, err error) {
	living, erased = make([]string, len(list)), make([]string, len(list))
	at := map[string][]int{}
	var args []any
	var marks strings.Builder
	for i, n := range list {
		f := room.Fold(n)
		if at[f] == nil {
			args = append(args, f)
			if len(args) > 1 {
				marks.WriteByte(',')
			}
			fmt.Fprintf(&marks, "$%d", len(args))
		}
		at[f] = append(at[f], i)
	}
	if len(args) == 0 {
		return living, erased, nil
	}
	rows, err := s.db.QueryContext(ctx, `SELECT folded, username, erased <> 0 FROM auth_users WHERE folded IN (`+marks.String()+`)`, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("resolve names: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var f, u string
		var gone bool
		if err := rows.Scan(&f, &u, &gone); err != nil {
			return nil, nil, fmt.Errorf("resolve names: %w", err)
		}
		out := living
		if gone {
			out = erased
		}
		for _, i := range at[f] {
			out[i] = u
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("resolve names: %w", err)
	}
	return living, erased, nil
}

// First gives the first n names in the order of their folded form.
func (s *Store) First(ctx context.Context, n int) ([]string, error) {
	return names(ctx, s.db, `SELECT username FROM auth_users WHERE erased = 0 ORDER BY folded LIMIT $1`, n)
}

// Count is the number of users. It reads the whole table.
func (s *Store) Count(ctx context.Context) (n int, err error) {
	if err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM auth_users WHERE erased = 0`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count users: %w", err)
	}
	return n, nil
}

// SetDisabled locks a user out, which ends all logins, or in again.
func (s *Store) SetDisabled(ctx context.Context, name string, disabled bool, now time.Time) (User, error) {
	var u User
	err := s.db.InTx(ctx, func(tx *sql.Tx) (err error) {
		if u, err = userByName(ctx, tx, name); err != nil {
			return err
		}
		u.Disabled = disabled
		if !disabled { // there are no logins, or the user was not disabled and keeps them
			if err := execAll(ctx, tx, []statement{{`UPDATE auth_users SET disabled = 0 WHERE id = $1`, []any{u.ID}}}); err != nil {
				return err
			}
			return changed(ctx, tx, u.ID)
		}
		if err := execAll(ctx, tx, []statement{
			{`UPDATE auth_users SET disabled = $2 WHERE id = $1`, []any{u.ID, now.UnixMilli()}},
			{`DELETE FROM auth_logins WHERE user_id = $1`, []any{u.ID}},
		}); err != nil {
			return err
		}
		return changed(ctx, tx, u.ID)
	})
	return u, err
}

// Erase forgets a user but for the name, as it is registered, which stays taken for ever: rooms and subjects are named after it.
func (s *Store) Erase(ctx context.Context, name string, now time.Time) (User, error) {
	var u User
	err := s.db.InTx(ctx, func(tx *sql.Tx) (err error) {
		if u, err = userByName(ctx, tx, name); err != nil {
			return err
		}
		if err := execAll(ctx, tx, []statement{
			{`UPDATE auth_users SET password = '', admin = 0, disabled = 0, erased = $2 WHERE id = $1`, []any{u.ID, now.UnixMilli()}},
			{`DELETE FROM auth_logins WHERE user_id = $1`, []any{u.ID}},
		}); err != nil {
			return err
		}
		peers, err := related(ctx, tx, u.ID) // no more can come: the user's row is locked
		if err != nil {
			return err
		}
		if err := execAll(ctx, tx, []statement{
			{`DELETE FROM auth_contacts WHERE user_id = $1 OR peer_id = $1`, []any{u.ID}},
			{`DELETE FROM auth_blocks WHERE user_id = $1 OR peer_id = $1`, []any{u.ID}},
		}); err != nil {
			return err
		}
		return changed(ctx, tx, append(peers, u.ID)...)
	})
	return u, err
}

type statement struct {
	text string
	args []any
}

func execAll(ctx context.Context, tx *sql.Tx, list []statement) error {
	for _, st := range list {
		if _, err := tx.ExecContext(ctx, st.text, st.args...); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}
