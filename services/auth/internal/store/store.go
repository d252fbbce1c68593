// Package store keeps users, logins, relations and throttles in SQL. The same queries run on SQLite and on PostgreSQL;
// only the schema has two spellings. Times are given in and come back in whole milliseconds.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"parley.example/pkg/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Errors of this package that are answers; everything else means that SQL is away or broken.
var (
	ErrTaken   = errors.New("the name is taken")
	ErrNoUser  = errors.New("there is no such user")
	ErrNoLogin = errors.New("there is no such login")
	ErrReused  = errors.New("the refresh token is no longer good: what came after it is in use")
	ErrFull    = errors.New("the list is full")
)

// Store is safe for concurrent use, by many processes too.
type Store struct {
	db     *sqldb.DB
	limits limits
}

// limits of what one user may have.
type limits struct {
	logins    int // one more ends the oldest
	tokens    int // used refresh tokens of a login that are remembered: an older one is refused without ending the login
	contacts  int // requests included
	blocks    int
	blockedBy int // how many are named of those who block one user; it is for others to make this list long
}

// The lists of names bound the answers that carry them: three of 1,000 of the longest names are below NATS' 1 MB.
var defaultLimits = limits{logins: 100, tokens: 100, contacts: 1000, blocks: 1000, blockedBy: 1000}

// Open prepares the store; it does not connect.
func Open(cfg sqldb.Config) (*Store, error) {
	db, err := sqldb.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Store{db, defaultLimits}, nil
}

// Migrate brings the schema up to date, and then what was kept by a version before.
func (s *Store) Migrate(ctx context.Context) error {
	fsys, err := fs.Sub(migrations, "migrations/"+string(s.db.Dialect))
	if err != nil {
		return fmt.Errorf("find the migrations: %w", err)
	}
	if err := s.db.Migrate(ctx, fsys, "goose_auth"); err != nil {
		return err
	}
	for more := true; more; {
		if more, err = s.fill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Ping asks SQL for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.db.QueryRowContext(ctx, `SELECT 1`).Scan(&one); err != nil {
		return fmt.Errorf("ask SQL: %w", err)
	}
	return nil
}

// TryWrite writes a row that means nothing, to see whether SQL takes writes: a server that became read-only, or whose disk is full, answers Ping.
func (s *Store) TryWrite(ctx context.Context, now time.Time) error {
	_, err := s.db.Write.ExecContext(ctx, `INSERT INTO auth_throttle (key, failures, blocked_until, updated) VALUES ('ready', 0, 0, $1)
		ON CONFLICT (key) DO UPDATE SET updated = excluded.updated`, now.UnixMilli())
	if err != nil {
		return fmt.Errorf("write to SQL: %w", err)
	}
	return nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.db.Close() }

// late is when a login that ran out is deleted: gateways with another clock take its access token for a moment yet.
const late = time.Minute

// Sweep deletes what has run out: logins, and throttles that nothing touched since idle. It takes at most a
// thousand of each, so that no transaction is long, and says whether there is more. And users get their keys whom a replica of the version before has
// registered meanwhile.
func (s *Store) Sweep(ctx context.Context, now, idle time.Time) (more bool, err error) {
	const batch = 1000
	for _, q := range []struct {
		text string
		arg  time.Time
	}{
		{`DELETE FROM auth_logins WHERE sid IN (SELECT sid FROM auth_logins WHERE expires < $1 LIMIT 1000)`, now.Add(-late)},
		{`DELETE FROM auth_throttle WHERE key IN (SELECT key FROM auth_throttle WHERE updated < $1 LIMIT 1000)`, idle},
	} {
		res, err := s.db.Write.ExecContext(ctx, q.text, q.arg.UnixMilli())
		if err != nil {
			return false, fmt.Errorf("sweep: %w", err)
		}
		if n, err := res.RowsAffected(); err == nil && n == batch {
			more = true
		}
	}
	unfilled, err := s.fill(ctx)
	return more || unfilled, err
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// names reads a list of names.
func names(ctx context.Context, q querier, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("read a name: %w", err)
		}
		out = append(out, n)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	return out, nil
}
