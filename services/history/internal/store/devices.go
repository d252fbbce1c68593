package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/sqldb"
)

// UseDevices notes the use of the devices that items name. One that nobody knows, because it is new or was forgotten, starts where its user
// stands: what some session of the user has confirmed does not come to it as new, paging brings it. Items whose device could not be
// noted are changed to go by the user's own cursors.
func (s *Store) UseDevices(ctx context.Context, items []api.CatchUpItem, now time.Time) error {
	type key struct{ user, device string }
	want := map[key]bool{}
	var list []cursor
	for _, i := range items {
		if k := (key{i.User, i.Device}); i.Device != "" && !want[k] {
			want[k] = true
			list = append(list, cursor{User: i.User, Device: i.Device})
		}
	}
	if len(list) == 0 {
		return nil
	}
	var stale []cursor
	err := each(ctx, s.db, "devices", `SELECT l.u, l.d, v.used_at IS NULL FROM `+s.list(1, "l", "u", "d")+` LEFT JOIN history_devices v ON v.username = l.u AND v.device = l.d
		WHERE v.used_at IS NULL OR v.used_at < $2 ORDER BY l.u, l.d`, []any{toJSON(list), now.Add(-deviceDay).UnixMilli()}, func(r *sql.Rows) error {
		var c cursor
		var unknown bool
		err := r.Scan(&c.User, &c.Device, &unknown)
		want[key{c.User, c.Device}] = !unknown
		stale = append(stale, c)
		return err
	})
	if err == nil && len(stale) > 0 {
		err = s.db.InTx(ctx, func(tx *sql.Tx) error { return s.useDevices(ctx, tx, stale, now) })
	}
	if err == nil {
		return nil
	}
	for i := range items {
		if !want[key{items[i].User, items[i].Device}] {
			items[i].Device = ""
		}
	}
	return fmt.Errorf("note devices: %w", err)
}

// startDevices has devices that are not known yet start at the cursors of their users.
func (s *Store) startDevices(ctx context.Context, tx *sql.Tx, list string) error {
	// As in lookUp: through the index, however large the table is.
	const on = `k.username = l.u AND k.device = '' AND k.delivered > 0`
	from := s.list(1, "l", "u", "d") + ` CROSS JOIN history_cursors k ON ` + on
	if s.db.Dialect == sqldb.Postgres {
		from = s.list(1, "l", "u", "d") + ` CROSS JOIN LATERAL (SELECT * FROM history_cursors k WHERE ` + on + ` OFFSET 0) k`
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO history_cursors (username, device, peer, delivered) SELECT k.username, l.d, k.peer, k.delivered FROM `+from+`
		WHERE NOT EXISTS (SELECT 1 FROM history_devices v WHERE v.username = l.u AND v.device = l.d)
		ORDER BY 1, 2, 3 ON CONFLICT (username, device, peer) DO NOTHING`, list)
	if err != nil {
		return fmt.Errorf("start devices: %w", err)
	}
	return nil
}
