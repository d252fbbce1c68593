package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Policy of one kind of throttle: after Free failures each further one blocks for Base, doubling up to Max.
// Failures are forgotten when nothing happened for Window.
type Policy struct {
	Free   int
	Base   time.Duration
	Max    time.Duration
	Window time.Duration
}

// Blocked is how long key is blocked from now on, 0 when it is not.
func (s *Store) Blocked(ctx context.Context, key string, now time.Time) (time.Duration, error) {
	var until int64
	err := s.db.QueryRowContext(ctx, `SELECT blocked_until FROM auth_throttle WHERE key = $1`, key).Scan(&until)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read a throttle: %w", err)
	}
	return max(0, time.UnixMilli(until).Sub(now)), nil
}

// Charge counts one failure of key unless it is blocked, then it returns for how long. It is one statement, so that
// parallel attempts on many replicas cannot pass together.
func (s *Store) Charge(ctx context.Context, key string, p Policy, now time.Time) (blocked time.Duration, err error) {
	var failures int64
	const (
		at     = `CAST($2 AS BIGINT)`
		free   = `CAST($3 AS BIGINT)`
		base   = `CAST($4 AS BIGINT)`
		top    = `CAST($5 AS BIGINT)`
		window = `CAST($6 AS BIGINT)`
		// n is the number of this failure.
		n = `CASE WHEN auth_throttle.updated < ` + at + ` - ` + window + ` THEN 1 ELSE auth_throttle.failures + 1 END`
		// Shifting doubles; 20 doublings are above every Max.
		block = base + ` << CAST(` + n + ` - ` + free + ` - 1 AS INTEGER)`
	)
	err = s.db.Write.QueryRowContext(ctx, `INSERT INTO auth_throttle (key, failures, blocked_until, updated)
		VALUES ($1, 1, CASE WHEN `+free+` < 1 THEN `+at+` + `+base+` ELSE 0 END, `+at+`)
		ON CONFLICT (key) DO UPDATE SET updated = `+at+`, failures = `+n+`, blocked_until = CASE
			WHEN `+n+` <= `+free+` THEN 0
			WHEN `+n+` - `+free+` > 20 THEN `+at+` + `+top+`
			WHEN (`+block+`) > `+top+` THEN `+at+` + `+top+`
			ELSE `+at+` + (`+block+`) END
		WHERE auth_throttle.blocked_until <= `+at+`
		RETURNING failures`,
		key, now.UnixMilli(), p.Free, p.Base.Milliseconds(), p.Max.Milliseconds(), p.Window.Milliseconds()).Scan(&failures)
	switch {
	case errors.Is(err, sql.ErrNoRows): // the WHERE refused
		d, err := s.Blocked(ctx, key, now)
		return max(d, time.Millisecond), err
	case err != nil:
		return 0, fmt.Errorf("charge a throttle: %w", err)
	}
	return 0, nil
}

// Refund takes one Charge back: the attempt was not made after all.
func (s *Store) Refund(ctx context.Context, key string) error {
	err := s.db.InTx(ctx, func(tx *sql.Tx) error {
		return execAll(ctx, tx, []statement{
			{`UPDATE auth_throttle SET failures = failures - 1, blocked_until = 0 WHERE key = $1`, []any{key}},
			{`DELETE FROM auth_throttle WHERE key = $1 AND failures < 1`, []any{key}},
		})
	})
	if err != nil {
		return fmt.Errorf("refund a throttle: %w", err)
	}
	return nil
}

// Forget clears key: the right password was given.
func (s *Store) Forget(ctx context.Context, key string) error {
	if _, err := s.db.Write.ExecContext(ctx, `DELETE FROM auth_throttle WHERE key = $1`, key); err != nil {
		return fmt.Errorf("clear a throttle: %w", err)
	}
	return nil
}
