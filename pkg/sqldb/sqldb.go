// Package sqldb opens the two SQL stores that Parley runs on, SQLite (embedded) and PostgreSQL, and
// brings their schema up to date. Queries use $1, $2 … which both understand.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Dialect tells the two apart where one query cannot serve both.
type Dialect string

// Dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Config says where SQL is.
type Config struct {
	URL   string `cfg:"sql-url" default:"sqlite:data/parley.db" help:"sqlite:PATH or postgres://user:password@host:port/database"`
	Conns int    `cfg:"sql-conns" default:"8" help:"open connections at most"`
}

// DB is an open store. For SQLite, DB is for reading and Write has the one connection that writes; for PostgreSQL
// both are the same pool.
type DB struct {
	*sql.DB
	Write   *sql.DB
	Dialect Dialect
}

// Open prepares the pool; it does not connect (PostgreSQL may be down at the start).
func Open(cfg Config) (*DB, error) {
	switch {
	case strings.HasPrefix(cfg.URL, "sqlite:"):
		return openSQLite(strings.TrimPrefix(cfg.URL, "sqlite:"), cfg.Conns)
	case strings.HasPrefix(cfg.URL, "postgres://"), strings.HasPrefix(cfg.URL, "postgresql://"):
		db, err := sql.Open("pgx", cfg.URL)
		if err != nil {
			// The driver's error may quote the URL and its password.
			return nil, errors.New("open PostgreSQL: the URL could not be read")
		}
		db.SetMaxOpenConns(cfg.Conns)
		db.SetMaxIdleConns(cfg.Conns)
		db.SetConnMaxIdleTime(5 * time.Minute)
		return &DB{db, db, Postgres}, nil
	}
	return nil, errors.New("sql-url begins with sqlite: or postgres://")
}

// private makes the file if there is none, and closes what lies there to other users of the machine: it has the hashes of passwords and all
// messages. SQLite gives the files beside it the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil //nolint:nilerr // connecting says so, again and again: the disk may come later
	}
	err = f.Close()
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if st, serr := os.Stat(p); serr == nil && st.Mode().Perm()&0o077 != 0 {
			err = errors.Join(err, os.Chmod(p, st.Mode().Perm()&^0o077))
		}
	}
	if err != nil {
		return fmt.Errorf("close the database to others: %w", err)
	}
	return nil
}

func openSQLite(path string, conns int) (*DB, error) {
	if err := private(path); err != nil {
		return nil, err
	}
	q := url.Values{}
	// NORMAL in WAL mode survives the death of the process; after a power cut the last transactions may be
	// missing, and history reads them from the stream again. busy_timeout is in ms.
	for _, p := range []string{"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "foreign_keys(1)", "cache_size(-16000)"} {
		q.Add("_pragma", p)
	}
	q.Set("_txlock", "immediate")
	write, err := sql.Open("sqlite", "file:"+path+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	write.SetMaxOpenConns(1)
	q.Set("_txlock", "deferred")
	read, err := sql.Open("sqlite", "file:"+path+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	read.SetMaxOpenConns(conns)
	read.SetMaxIdleConns(conns)
	return &DB{read, write, SQLite}, nil
}

// Close closes both pools.
func (d *DB) Close() error {
	if d.Write == d.DB {
		return d.DB.Close()
	}
	return errors.Join(d.DB.Close(), d.Write.Close())
}

// Migrate runs the .sql files of fsys forward (goose's format), in the table named table, so that
// services with schemas of their own share a database. Several replicas may call it at once.
func (d *DB) Migrate(ctx context.Context, fsys fs.FS, table string) error {
	opts := []goose.ProviderOption{goose.WithTableName(table), goose.WithDisableGlobalRegistry(true)}
	dialect := goose.DialectSQLite3
	if d.Dialect == Postgres {
		dialect = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return fmt.Errorf("make the migration lock: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, d.Write, fsys, opts...)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// IsUnique reports that err is a violation of a unique key.
func IsUnique(err error) bool {
	if pe := (*pgconn.PgError)(nil); errors.As(err, &pe) {
		return pe.Code == "23505"
	}
	if se := (*sqlite.Error)(nil); errors.As(err, &se) {
		return se.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || se.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

// InTx runs f in a writing transaction.
func (d *DB) InTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing, after a failure that one counts
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
