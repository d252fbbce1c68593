package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// RoomsOf are the rooms of a user with their partitions, by name.
func (s *Store) RoomsOf(ctx context.Context, user string) (rooms []room.Room, parts []int, err error) {
	err = each(ctx, s.db, "rooms", `SELECT a, b, p FROM history_conversations WHERE a = $1 UNION ALL
		SELECT a, b, p FROM history_conversations WHERE b = $1 ORDER BY a, b`, []any{user}, func(r *sql.Rows) error {
		var rm room.Room
		var p int
		err := r.Scan(&rm.A, &rm.B, &p)
		rooms, parts = append(rooms, rm), append(parts, p)
		return err
	})
	return rooms, parts, err
}

// Device of a user, as the user named it.
type Device struct {
	Name string
	Used time.Time
}

// Devices of a user.
func (s *Store) Devices(ctx context.Context, user string) (out []Device, err error) {
	err = each(ctx, s.db, "devices", `SELECT device, used_at FROM history_devices WHERE username = $1 ORDER BY device`, []any{user}, func(r *sql.Rows) error {
		var d Device
		var at int64
		err := r.Scan(&d.Name, &at)
		d.Used = time.UnixMilli(at)
		out = append(out, d)
		return err
	})
	return out, err
}

// eraseBatch is how many messages one transaction empties, so that none is long.
const eraseBatch = 500

// Written are seqs of messages that user sent in a room and that are not emptied yet, oldest first, at most eraseBatch.
func (s *Store) Written(ctx context.Context, rm room.Room, user string) (seqs []int64, err error) {
	err = each(ctx, s.db, "messages", `SELECT pos FROM history_messages WHERE a = $1 AND b = $2 AND side = $3 AND (length(content) > 0 OR client_id <> `+erasedID+`)
		ORDER BY pos LIMIT $4`, []any{rm.A, rm.B, sideOf(rm, user), eraseBatch}, func(r *sql.Rows) error {
		var at int64
		err := r.Scan(&at)
		seqs = append(seqs, seqOf(at))
		return err
	})
	return seqs, err
}

// Empty takes the content and the client's id from messages that user sent in a room of partition p, up to a seq; their places stay, so that
// order, counts and markers do.
func (s *Store) Empty(ctx context.Context, p int, rm room.Room, user string, upto int64) error {
	empty := `x''`
	if s.db.Dialect == sqldb.Postgres {
		empty = `''::bytea`
	}
	// Nothing finds it by its id any more: a dedupe of 0 is the hash of no id.
	_, err := s.db.Write.ExecContext(ctx, `UPDATE history_messages SET content = `+empty+`, client_id = `+erasedID+`, dedupe = 0
		WHERE a = $1 AND b = $2 AND side = $3 AND pos <= $4 AND (length(content) > 0 OR client_id <> `+erasedID+`)`, rm.A, rm.B, sideOf(rm, user), pos(p, upto))
	if err != nil {
		return fmt.Errorf("empty messages: %w", err)
	}
	return nil
}

func sideOf(rm room.Room, user string) int {
	if user == rm.B {
		return 1
	}
	return 0
}

// erasedID is an expression for what stands in for the client's id of a message that was emptied: clients take two messages of one id for one.
var erasedID = `('erased-' || CAST(pos & ` + strconv.FormatInt(1<<seqBits-1, 10) + ` AS TEXT))`

// ForgetReader deletes what a user has read and received, on all devices.
func (s *Store) ForgetReader(ctx context.Context, user string) error {
	return s.db.InTx(ctx, func(tx *sql.Tx) error {
		for _, q := range []string{`DELETE FROM history_cursors WHERE username = $1`, `DELETE FROM history_devices WHERE username = $1`} {
			if _, err := tx.ExecContext(ctx, q, user); err != nil {
				return fmt.Errorf("forget a reader: %w", err)
			}
		}
		return nil
	})
}

// Overwrite runs f so that SQLite overwrites what f deletes, also in its log of recent writes: by default it only marks the place as free.
// PostgreSQL does that in its own time, by vacuuming.
func (s *Store) Overwrite(ctx context.Context, f func() error) error {
	if s.db.Dialect != sqldb.SQLite {
		return f()
	}
	if _, err := s.db.Write.ExecContext(ctx, `PRAGMA secure_delete = ON`); err != nil {
		return fmt.Errorf("let SQLite overwrite: %w", err)
	}
	defer func() { _, _ = s.db.Write.ExecContext(context.WithoutCancel(ctx), `PRAGMA secure_delete = OFF`) }() // only slower, if that fails
	if err := f(); err != nil {
		return err
	}
	if _, err := s.db.Write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return fmt.Errorf("empty SQLite's log: %w", err)
	}
	return nil
}
