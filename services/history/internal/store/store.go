// Package store keeps messages, conversations, cursors and positions in SQL. The same queries run on SQLite and on
// PostgreSQL where that is possible; what differs is in sql.go and insert.go.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"parley.example/pkg/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Errors of this package that are answers; everything else means that SQL is away or broken.
var (
	// ErrLost: another replica has the partition, or has moved its position.
	ErrLost = errors.New("the partition is another replica's")
	// ErrPartitions: the database was filled with another number of partitions.
	ErrPartitions = errors.New("the database was filled with another number of partitions")
)

// ingestConns are connections that only ingest uses, so that requests cannot starve it.
const ingestConns = 4

// Store is safe for concurrent use, by several processes too.
type Store struct {
	db    *sqldb.DB // requests
	write *sqldb.DB // ingest and leases; the same one with SQLite, which has one writer anyway
	lite  *liteStmts
}

// Open prepares the store; it does not connect.
func Open(cfg sqldb.Config) (*Store, error) {
	db, err := sqldb.Open(cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, write: db}
	if db.Dialect == sqldb.SQLite {
		s.lite = newLiteStmts()
		s.lite.fence = s.fence()
		return s, nil
	}
	cfg.Conns = ingestConns
	if s.write, err = sqldb.Open(cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Migrate brings the schema up to date. It comes before everything else, and may be tried again.
func (s *Store) Migrate(ctx context.Context) error {
	fsys, err := fs.Sub(migrations, "migrations/"+string(s.db.Dialect))
	if err != nil {
		return fmt.Errorf("find the migrations: %w", err)
	}
	if err := s.db.Migrate(ctx, fsys, "goose_history"); err != nil {
		return err
	}
	if s.lite != nil && len(s.lite.m) == 0 {
		return s.lite.prepare(ctx, s.db.Write)
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

// Close closes the connections.
func (s *Store) Close() error {
	var err error
	if s.lite != nil {
		err = s.lite.close()
	}
	if s.write != s.db {
		err = errors.Join(err, s.write.Close())
	}
	return errors.Join(err, s.db.Close())
}

// snapshot runs f in a transaction that sees one state of the database and writes nothing.
func (s *Store) snapshot(ctx context.Context, f func(*sql.Tx) error) error {
	opts := &sql.TxOptions{ReadOnly: true}
	if s.db.Dialect == sqldb.Postgres {
		opts.Isolation = sql.LevelRepeatableRead
	}
	tx, err := s.db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin a snapshot: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	return f(tx)
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}
