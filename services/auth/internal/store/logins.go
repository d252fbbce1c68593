package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// Login is one login of a user: the family of refresh tokens that began with one password.
type Login struct {
	SID     string
	User    User
	Scope   string
	Created time.Time
	Expires time.Time
}

func hash(token string) string {
	h := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// AddLogin begins a login; refresh may be "" for one that is never renewed. ErrNoUser when the user was
// disabled or erased meanwhile, or has another password than l.User. It gives the login as it is kept.
func (s *Store) AddLogin(ctx context.Context, l Login, refresh string) (Login, error) {
	err := s.db.InTx(ctx, func(tx *sql.Tx) error {
		// The condition closes the gap between reading the user and here, as long as a password's hash takes. That it writes holds the
		// user's row: no change of the password, nor of not_before, comes between here and the commit.
		var notBefore int64
		err := tx.QueryRowContext(ctx, `UPDATE auth_users SET not_before = not_before
			WHERE id = $1 AND disabled = 0 AND erased = 0 AND password = $2 RETURNING not_before`, l.User.ID, l.User.Password).Scan(&notBefore)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoUser
		case err != nil:
			return fmt.Errorf("add a login: %w", err)
		}
		// Another replica's clock, ahead of this one's, may have said not_before.
		l.Created = time.UnixMilli(max(l.Created.UnixMilli(), notBefore+1))
		list := []statement{{`INSERT INTO auth_logins (sid, user_id, scope, created, expires) VALUES ($1, $2, $3, $4, $5)`,
			[]any{l.SID, l.User.ID, l.Scope, l.Created.UnixMilli(), l.Expires.UnixMilli()}}}
		if refresh != "" {
			list = append(list, statement{`INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, $2, 0)`, []any{hash(refresh), l.SID}})
		}
		return execAll(ctx, tx, list)
	})
	return l, err
}

// Surplus finds the youngest login of a user that is one too many; those that began no later are too many as well. ok is false when there is
// none.
func (s *Store) Surplus(ctx context.Context, userID int64) (began time.Time, ok bool, err error) {
	var at int64
	err = s.db.QueryRowContext(ctx, `SELECT created FROM auth_logins WHERE user_id = $1 ORDER BY created DESC, sid LIMIT 1 OFFSET $2`,
		userID, s.limits.logins).Scan(&at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return time.Time{}, false, nil
	case err != nil:
		return time.Time{}, false, fmt.Errorf("count logins: %w", err)
	}
	return time.UnixMilli(at), true, nil
}

// EndLoginsUpTo deletes the logins of a user that began up to then. What they gave must be void already.
func (s *Store) EndLoginsUpTo(ctx context.Context, userID int64, began time.Time) error {
	if _, err := s.db.Write.ExecContext(ctx, `DELETE FROM auth_logins WHERE user_id = $1 AND created <= $2`, userID, began.UnixMilli()); err != nil {
		return fmt.Errorf("end logins: %w", err)
	}
	return nil
}

// VoidLogins refuses the refresh tokens of all logins that a user has now, and says up to which time those began.
func (s *Store) VoidLogins(ctx context.Context, userID int64, now time.Time) (began time.Time, err error) {
	err = s.db.InTx(ctx, func(tx *sql.Tx) (err error) {
		began, err = voidLogins(ctx, tx, userID, now)
		return err
	})
	return began, err
}

func voidLogins(ctx context.Context, tx *sql.Tx, userID int64, now time.Time) (time.Time, error) {
	// First the row of the user, which AddLogin holds as well.
	var before, youngest int64
	err := tx.QueryRowContext(ctx, `UPDATE auth_users SET not_before = CASE WHEN not_before > $2 THEN not_before ELSE $2 END WHERE id = $1 RETURNING not_before`,
		userID, now.UnixMilli()).Scan(&before)
	if err != nil {
		return time.Time{}, fmt.Errorf("void logins: %w", err)
	}
	// A login that another replica began by a clock ahead of this one is void, too.
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(created), 0) FROM auth_logins WHERE user_id = $1`, userID).Scan(&youngest); err != nil {
		return time.Time{}, fmt.Errorf("void logins: %w", err)
	}
	if youngest > before {
		before = youngest
		if err := execAll(ctx, tx, []statement{{`UPDATE auth_users SET not_before = $2 WHERE id = $1`, []any{userID, before}}}); err != nil {
			return time.Time{}, err
		}
	}
	return time.UnixMilli(before), nil
}

// LoginScope is the scope of a login of this user; ErrNoLogin when it has ended.
func (s *Store) LoginScope(ctx context.Context, username, sid string) (scope string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT l.scope FROM auth_logins l JOIN auth_users u ON u.id = l.user_id WHERE l.sid = $1 AND u.username = $2`,
		sid, username).Scan(&scope)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", ErrNoLogin
	case err != nil:
		return "", fmt.Errorf("find a login: %w", err)
	}
	return scope, nil
}

// LoginsOf are the logins of a user that began up to then.
func (s *Store) LoginsOf(ctx context.Context, userID int64, began time.Time) ([]string, error) {
	return names(ctx, s.db, `SELECT sid FROM auth_logins WHERE user_id = $1 AND created <= $2 ORDER BY created`, userID, began.UnixMilli())
}

// EndLogin deletes a login and its refresh tokens. It may be repeated.
func (s *Store) EndLogin(ctx context.Context, sid string) error {
	if _, err := s.db.Write.ExecContext(ctx, `DELETE FROM auth_logins WHERE sid = $1`, sid); err != nil {
		return fmt.Errorf("end a login: %w", err)
	}
	return nil
}
