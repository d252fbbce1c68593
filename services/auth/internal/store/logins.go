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
// disabled or erased meanwhile, or has another password than l.User.
func (s *Store) AddLogin(ctx context.Context, l Login, refresh string) error {
	return s.db.InTx(ctx, func(tx *sql.Tx) error {
		// The condition closes the gap between reading the user and here, as long as a password's hash takes.
		res, err := tx.ExecContext(ctx, `INSERT INTO auth_logins (sid, user_id, scope, created, expires)
			SELECT $1, id, $3, $4, $5 FROM auth_users WHERE id = $2 AND disabled = 0 AND erased = 0 AND password = $6`,
			l.SID, l.User.ID, l.Scope, l.Created.UnixMilli(), l.Expires.UnixMilli(), l.User.Password)
		if err != nil {
			return fmt.Errorf("add a login: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(ErrNoUser, err)
		}
		list := []statement{{`DELETE FROM auth_logins WHERE sid IN (SELECT sid FROM auth_logins WHERE user_id = $1
			ORDER BY created DESC, sid LIMIT 1000 OFFSET $2)`, []any{l.User.ID, s.limits.logins}}}
		if refresh != "" {
			list = append(list, statement{`INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, $2, 0)`, []any{hash(refresh), l.SID}})
		}
		return execAll(ctx, tx, list)
	})
}

// FindRefresh finds the login of a refresh token. ErrNoLogin when nobody knows the token or its user may not log in any
// more; ErrReused, together with the login, when it was used before.
func (s *Store) FindRefresh(ctx context.Context, refresh string, now time.Time) (Login, error) {
	l, used, _, err := findRefresh(ctx, s.db, refresh, now)
	if err == nil && used {
		return l, ErrReused
	}
	return l, err
}

func findRefresh(ctx context.Context, q querier, refresh string, now time.Time) (l Login, used bool, n int64, err error) {
	var created, expires, usedAt int64
	err = q.QueryRowContext(ctx, `SELECT l.sid, l.scope, l.created, l.expires, u.id, u.username, u.admin <> 0, t.used, t.n
		FROM auth_refresh_tokens t JOIN auth_logins l ON l.sid = t.sid JOIN auth_users u ON u.id = l.user_id
		WHERE t.hash = $1 AND l.expires > $2 AND u.disabled = 0 AND u.erased = 0`, hash(refresh), now.UnixMilli()).
		Scan(&l.SID, &l.Scope, &created, &expires, &l.User.ID, &l.User.Username, &l.User.Admin, &usedAt, &n)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Login{}, false, 0, ErrNoLogin
	case err != nil:
		return Login{}, false, 0, fmt.Errorf("find a refresh token: %w", err)
	}
	l.Created, l.Expires = time.UnixMilli(created), time.UnixMilli(expires)
	return l, usedAt != 0, n, nil
}

// Rotate uses up a refresh token, puts another in its place and moves the end of the login. Of two at the
// same time one gets ErrReused.
func (s *Store) Rotate(ctx context.Context, refresh, next string, now, expires time.Time) (Login, error) {
	var l Login
	err := s.db.InTx(ctx, func(tx *sql.Tx) error {
		found, used, n, err := findRefresh(ctx, tx, refresh, now)
		if err != nil {
			return err
		}
		l = found
		if used {
			return ErrReused
		}
		res, err := tx.ExecContext(ctx, `UPDATE auth_refresh_tokens SET used = $2 WHERE hash = $1 AND used = 0`, hash(refresh), now.UnixMilli())
		if err != nil {
			return fmt.Errorf("use a refresh token: %w", err)
		}
		if changed, err := res.RowsAffected(); err != nil || changed == 0 {
			return errors.Join(ErrReused, err)
		}
		l.Expires = expires
		return execAll(ctx, tx, []statement{
			{`INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, $2, $3)`, []any{hash(next), l.SID, n + 1}},
			{`DELETE FROM auth_refresh_tokens WHERE sid = $1 AND n < $2`, []any{l.SID, n - int64(s.limits.tokens)}},
			{`UPDATE auth_logins SET expires = $2 WHERE sid = $1`, []any{l.SID, expires.UnixMilli()}},
		})
	})
	return l, err
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

// LoginsOf are the logins of a user that have not run out.
func (s *Store) LoginsOf(ctx context.Context, userID int64, now time.Time) ([]string, error) {
	return names(ctx, s.db, `SELECT sid FROM auth_logins WHERE user_id = $1 AND expires > $2 ORDER BY created`, userID, now.UnixMilli())
}

// EndLogin deletes a login and its refresh tokens. It may be repeated.
func (s *Store) EndLogin(ctx context.Context, sid string) error {
	if _, err := s.db.Write.ExecContext(ctx, `DELETE FROM auth_logins WHERE sid = $1`, sid); err != nil {
		return fmt.Errorf("end a login: %w", err)
	}
	return nil
}
