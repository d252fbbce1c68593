package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Relations of a user; see api.Relations.
type Relations struct {
	Version       int64
	User          User
	Contacts      []string
	Blocked       []string
	BlockedBy     []string
	BlockedByMore bool
}

// Relations reads what decides with whom a user may talk.
func (s *Store) Relations(ctx context.Context, name string) (r Relations, err error) {
	// The version first: what is read after it is at least as young.
	if r.Version, err = s.Version(ctx); err != nil {
		return r, err
	}
	if r.User, err = s.UserByName(ctx, name); err != nil {
		return r, err
	}
	if r.Contacts, err = names(ctx, s.db, `SELECT u.username FROM auth_contacts c JOIN auth_users u ON u.id = c.peer_id
		WHERE c.user_id = $1 AND c.accepted <> 0 AND u.erased = 0 ORDER BY u.folded`, r.User.ID); err != nil {
		return r, err
	}
	if r.Blocked, err = names(ctx, s.db, `SELECT u.username FROM auth_blocks b JOIN auth_users u ON u.id = b.peer_id
		WHERE b.user_id = $1`, r.User.ID); err != nil {
		return r, err
	}
	r.BlockedBy, err = names(ctx, s.db, `SELECT u.username FROM auth_blocks b JOIN auth_users u ON u.id = b.user_id
		WHERE b.peer_id = $1 LIMIT $2`, r.User.ID, s.limits.blockedBy+1)
	if len(r.BlockedBy) > s.limits.blockedBy {
		r.BlockedBy, r.BlockedByMore = r.BlockedBy[:s.limits.blockedBy], true
	}
	return r, err
}

// Version of all relations: it is another one after any change of any.
func (s *Store) Version(ctx context.Context) (v int64, err error) {
	if err := s.db.QueryRowContext(ctx, `SELECT version FROM auth_versions WHERE name = 'relations'`).Scan(&v); err != nil {
		return 0, fmt.Errorf("read the version of the relations: %w", err)
	}
	return v, nil
}

// PutContact asks for a contact, or agrees to one that the peer asked for. Added says that the two became contacts
// by this call, contact that they are. A block either way makes it do nothing. ErrFull at the limit.
func (s *Store) PutContact(ctx context.Context, user, peer User, now time.Time) (contact, added bool, err error) {
	err = s.db.InTx(ctx, func(tx *sql.Tx) error {
		// Of two requests that cross, the second must see the first.
		if err := lockPair(ctx, tx, user.ID, peer.ID); err != nil {
			return err
		}
		blocked, err := exists(ctx, tx, `SELECT 1 FROM auth_blocks WHERE user_id = $1 AND peer_id = $2 OR user_id = $2 AND peer_id = $1`, user.ID, peer.ID)
		if err != nil || blocked {
			return err
		}
		if contact, err = exists(ctx, tx, `SELECT 1 FROM auth_contacts WHERE user_id = $1 AND peer_id = $2 AND accepted <> 0`, user.ID, peer.ID); err != nil || contact {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM auth_contacts WHERE user_id = $1 AND peer_id <> $2`, user.ID, peer.ID).Scan(&n); err != nil {
			return fmt.Errorf("count contacts: %w", err)
		}
		if n >= s.limits.contacts {
			return ErrFull
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_contacts (user_id, peer_id, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			user.ID, peer.ID, now.UnixMilli()); err != nil {
			return fmt.Errorf("add a contact: %w", err)
		}
		asked, err := exists(ctx, tx, `SELECT 1 FROM auth_contacts WHERE user_id = $1 AND peer_id = $2`, peer.ID, user.ID)
		if err != nil || !asked {
			return err
		}
		contact, added = true, true
		if err := execAll(ctx, tx, []statement{
			{`UPDATE auth_contacts SET accepted = 1 WHERE user_id = $1 AND peer_id = $2 OR user_id = $2 AND peer_id = $1`, []any{user.ID, peer.ID}},
		}); err != nil {
			return err
		}
		return changed(ctx, tx, user.ID, peer.ID)
	})
	return contact, added, err
}

// DeleteContact ends a contact or takes requests back, both ways. Removed says that the two were contacts.
func (s *Store) DeleteContact(ctx context.Context, user, peer User) (removed bool, err error) {
	err = s.db.InTx(ctx, func(tx *sql.Tx) error {
		if err := lockPair(ctx, tx, user.ID, peer.ID); err != nil {
			return err
		}
		removed, err = deleteContact(ctx, tx, user.ID, peer.ID)
		return err
	})
	return removed, err
}

func deleteContact(ctx context.Context, tx *sql.Tx, user, peer int64) (removed bool, err error) {
	if removed, err = exists(ctx, tx, `SELECT 1 FROM auth_contacts WHERE user_id = $1 AND peer_id = $2 AND accepted <> 0`, user, peer); err != nil {
		return false, err
	}
	if err := execAll(ctx, tx, []statement{
		{`DELETE FROM auth_contacts WHERE user_id = $1 AND peer_id = $2 OR user_id = $2 AND peer_id = $1`, []any{user, peer}},
	}); err != nil {
		return false, err
	}
	return removed, changed(ctx, tx, user, peer)
}

// PutBlock blocks a peer and ends a contact with them. Removed says that they were contacts. ErrFull at the limit.
func (s *Store) PutBlock(ctx context.Context, user, peer User, now time.Time) (removed bool, err error) {
	err = s.db.InTx(ctx, func(tx *sql.Tx) error {
		if err := lockPair(ctx, tx, user.ID, peer.ID); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM auth_blocks WHERE user_id = $1 AND peer_id <> $2`, user.ID, peer.ID).Scan(&n); err != nil {
			return fmt.Errorf("count blocks: %w", err)
		}
		if n >= s.limits.blocks {
			return ErrFull
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_blocks (user_id, peer_id, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			user.ID, peer.ID, now.UnixMilli()); err != nil {
			return fmt.Errorf("add a block: %w", err)
		}
		removed, err = deleteContact(ctx, tx, user.ID, peer.ID)
		return err
	})
	return removed, err
}

// DeleteBlock takes a block back.
func (s *Store) DeleteBlock(ctx context.Context, user, peer User) error {
	return s.db.InTx(ctx, func(tx *sql.Tx) error {
		if err := execAll(ctx, tx, []statement{
			{`DELETE FROM auth_blocks WHERE user_id = $1 AND peer_id = $2`, []any{user.ID, peer.ID}},
		}); err != nil {
			return err
		}
		return changed(ctx, tx, user.ID, peer.ID)
	})
}

// lockPair makes transactions about the same two users wait for each other, on PostgreSQL; SQLite has one writer
// anyway. It takes the two rows in one order, so that no two transactions wait for each other in a circle.
func lockPair(ctx context.Context, tx *sql.Tx, a, b int64) error {
	if a > b {
		a, b = b, a
	}
	for _, id := range []int64{a, b} {
		if _, err := tx.ExecContext(ctx, `UPDATE auth_users SET created = created WHERE id = $1`, id); err != nil {
			return fmt.Errorf("lock a user: %w", err)
		}
	}
	return nil
}

func exists(ctx context.Context, q querier, query string, args ...any) (bool, error) {
	var one int
	err := q.QueryRowContext(ctx, query+` LIMIT 1`, args...).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up: %w", err)
	}
	return true, nil
}
