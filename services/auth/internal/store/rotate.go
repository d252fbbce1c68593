package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha512"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// The refresh tokens of a login are one chain. A token is good until its successor, or the access token that came with that, is first used;
// used in SQL is when that was. Until then asking again gives the same successor again: whoever asks, the chain does not fork, and of
// two who go on with it apart from each other one comes too late (docs/adr/0065).

// Rotation is what a refresh token was traded for.
type Rotation struct {
	Login Login
	Token string // the youngest of the login
	Turn  int64  // how many came before it
	Again bool   // it was given before
}

// Rotate trades a refresh token for the one that comes after it, next if there is none yet, and moves the end of the login. A token that is no
// longer good is taken for grace yet, so that two who ask at the same time both get an answer.
//
// ErrNoLogin when nobody knows the token or its user may not log in any more; ErrReused, together with the login, when it is no longer good.
func (s *Store) Rotate(ctx context.Context, refresh, next string, now, expires time.Time, grace time.Duration) (Rotation, error) {
	var r Rotation
	err := s.db.InTx(ctx, func(tx *sql.Tx) error {
		// That it writes holds the row of the login: of two with the same token the second one sees what the first one did.
		res, err := tx.ExecContext(ctx, `UPDATE auth_logins SET expires = $3
			WHERE sid = (SELECT sid FROM auth_refresh_tokens WHERE hash = $1) AND expires > $2`, hash(refresh), now.UnixMilli(), expires.UnixMilli())
		if err != nil {
			return fmt.Errorf("use a refresh token: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(ErrNoLogin, err)
		}
		l, t, err := findRefresh(ctx, tx, refresh)
		if err != nil {
			return err
		}
		l.Expires = expires
		r.Login = l
		if t.used != 0 && now.UnixMilli()-t.used >= grace.Milliseconds() {
			return ErrReused
		}
		if err := execAll(ctx, tx, []statement{usedBefore(l.SID, t.n, now)}); err != nil {
			return err
		}
		r.Token, r.Turn = refresh, t.n
		for t.next != "" {
			if r.Token, err = unseal(r.Token, t.next); err != nil {
				return err
			}
			if err := tx.QueryRowContext(ctx, `SELECT n, next FROM auth_refresh_tokens WHERE hash = $1`, hash(r.Token)).Scan(&t.n, &t.next); err != nil {
				return fmt.Errorf("find the next refresh token: %w", err)
			}
			r.Turn, r.Again = t.n, true
		}
		if r.Again {
			return nil
		}
		sealed, err := seal(refresh, next)
		if err != nil {
			return err
		}
		r.Token, r.Turn = next, t.n+1
		return execAll(ctx, tx, []statement{
			{`UPDATE auth_refresh_tokens SET next = $2 WHERE hash = $1`, []any{hash(refresh), sealed}},
			{`INSERT INTO auth_refresh_tokens (hash, sid, n) VALUES ($1, $2, $3)`, []any{hash(next), l.SID, r.Turn}},
			{`DELETE FROM auth_refresh_tokens WHERE sid = $1 AND n < $2`, []any{l.SID, t.n - int64(s.limits.tokens)}},
		})
	})
	return r, err
}

// Used notes that what came with the refresh token of that turn was used: the tokens before it are no longer good. It may be repeated.
func (s *Store) Used(ctx context.Context, sid string, turn int64, now time.Time) error {
	st := usedBefore(sid, turn, now)
	if _, err := s.db.Write.ExecContext(ctx, st.text, st.args...); err != nil {
		return fmt.Errorf("note the use of a token: %w", err)
	}
	return nil
}

func usedBefore(sid string, turn int64, now time.Time) statement {
	return statement{`UPDATE auth_refresh_tokens SET used = $3 WHERE sid = $1 AND n < $2 AND used = 0`, []any{sid, turn, now.UnixMilli()}}
}

type refreshRow struct {
	n, used int64
	next    string
}

func findRefresh(ctx context.Context, q querier, refresh string) (l Login, t refreshRow, err error) {
	var created int64
	err = q.QueryRowContext(ctx, `SELECT l.sid, l.scope, l.created, u.id, u.username, u.admin <> 0, t.n, t.used, t.next
		FROM auth_refresh_tokens t JOIN auth_logins l ON l.sid = t.sid JOIN auth_users u ON u.id = l.user_id
		WHERE t.hash = $1 AND l.created > u.not_before AND u.disabled = 0 AND u.erased = 0`, hash(refresh)).
		Scan(&l.SID, &l.Scope, &created, &l.User.ID, &l.User.Username, &l.User.Admin, &t.n, &t.used, &t.next)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Login{}, refreshRow{}, ErrNoLogin
	case err != nil:
		return Login{}, refreshRow{}, fmt.Errorf("find a refresh token: %w", err)
	}
	l.Created = time.UnixMilli(created)
	return l, t, nil
}

// pad is as random as the token is secret, and is used for one text only: the successor of that token.
func pad(refresh string) []byte {
	h := hmac.New(sha512.New, []byte(refresh))
	h.Write([]byte("parley: the refresh token after this one"))
	return h.Sum(nil)
}

func seal(refresh, next string) (string, error) {
	p := pad(refresh)
	if len(next) > len(p) {
		return "", errors.New("the next refresh token is too long to be sealed")
	}
	for i := range next {
		p[i] ^= next[i]
	}
	return base64.RawURLEncoding.EncodeToString(p[:len(next)]), nil
}

func unseal(refresh, sealed string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	p := pad(refresh)
	if err != nil || len(b) > len(p) {
		return "", fmt.Errorf("read the next refresh token: %w", errors.Join(errors.New("it is not as it was written"), err))
	}
	for i := range b {
		b[i] ^= p[i]
	}
	return string(b), nil
}
