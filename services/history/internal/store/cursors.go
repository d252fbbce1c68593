package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sort"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// Limits of devices.
const (
	MaxDevices   = 16                  // of one user; the one that was longest not used goes
	DeviceForget = 90 * 24 * time.Hour // since its last use
	deviceDay    = 24 * time.Hour      // how coarse "used" is, so that using one is not a write each time
)

type cursor struct {
	User   string `json:"u"`
	Device string `json:"d"`
	Peer   string `json:"peer"`
	A      string `json:"a"`
	B      string `json:"b"`
	Seq    int64  `json:"seq_n"`
}

// Confirm moves the delivered cursors of users and of devices forward. A seq that is 0 or above the room's last one means the last one; rooms
// without messages are passed over. It says which marks moved that are to be told.
func (s *Store) Confirm(ctx context.Context, items []api.Confirm, now time.Time) ([]api.Mark, error) {
	type key struct {
		user, device string
		room         room.Room
	}
	want := make(map[key]int64, len(items))
	by := make(map[key]api.Confirm, len(items)) // with the youngest message of a peer
	note := func(k key, seq int64) {
		if old, ok := want[k]; !ok || old != 0 && (seq == 0 || seq > old) {
			want[k] = seq
		}
	}
	for _, i := range items {
		rm := room.Room{A: i.A, B: i.B}
		if !rm.Has(i.User) || i.Seq < 0 {
			continue
		}
		k := key{i.User, "", rm}
		note(k, i.Seq)
		if i.PeerSeq > by[k].PeerSeq {
			by[k] = i
		}
		if i.Device != "" {
			note(key{i.User, i.Device, rm}, i.Seq)
		}
	}
	list := make([]cursor, 0, len(want))
	for k, seq := range want {
		list = append(list, cursor{k.user, k.device, k.room.Peer(k.user), k.room.A, k.room.B, seq})
	}
	// What does not move is not written, and nobody waits for its lock.
	moving := list[:0:0]
	err := each(ctx, s.db, "cursors", `SELECT l.u, l.d, l.peer, CASE WHEN l.seq_n = 0 OR l.seq_n > c.last_seq THEN c.last_seq ELSE l.seq_n END AS seq
		FROM `+s.list(1, "l", "u", "d", "peer", "a", "b", "seq_n")+`
		JOIN history_conversations c ON c.a = l.a AND c.b = l.b
		LEFT JOIN history_cursors k ON k.username = l.u AND k.device = l.d AND k.peer = l.peer
		WHERE k.delivered IS NULL OR k.delivered < c.last_seq AND (l.seq_n = 0 OR l.seq_n > k.delivered)`, []any{toJSON(list)}, func(r *sql.Rows) error {
		var c cursor
		err := r.Scan(&c.User, &c.Device, &c.Peer, &c.Seq)
		moving = append(moving, c)
		return err
	})
	if err != nil || len(moving) == 0 {
		return nil, err
	}
	// All transactions lock rows in this order.
	sort.Slice(moving, func(i, j int) bool {
		x, y := moving[i], moving[j]
		if x.User != y.User {
			return x.User < y.User
		}
		return x.Device < y.Device || x.Device == y.Device && x.Peer < y.Peer
	})
	devices, err := s.unused(ctx, moving, now)
	if err != nil {
		return nil, err
	}
	err = s.db.InTx(ctx, func(tx *sql.Tx) error {
		if err := s.useDevices(ctx, tx, devices, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO history_cursors (username, device, peer, delivered, changed)
			SELECT l.u, l.d, l.peer, l.seq_n, CASE WHEN l.d = '' THEN `+s.now()+` ELSE 0 END FROM `+s.list(1, "l", "u", "d", "peer", "seq_n")+` WHERE true
			ON CONFLICT (username, device, peer) DO UPDATE SET delivered = excluded.delivered, changed = excluded.changed
			WHERE history_cursors.delivered < excluded.delivered`, toJSON(moving)); err != nil {
			return fmt.Errorf("move cursors: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var moved []api.Mark
	for _, c := range moving {
		rm, err := room.Of(c.User, c.Peer)
		if i, ok := by[key{c.User, "", rm}]; err == nil && ok && c.Device == "" {
			moved = append(moved, api.Mark{User: c.User, Peer: c.Peer, Delivered: min(i.PeerSeq, c.Seq), Session: i.Session})
		}
	}
	return moved, nil
}

// unused are the devices of cursors that are new, or whose use was last noted long ago.
func (s *Store) unused(ctx context.Context, cs []cursor, now time.Time) (out []cursor, err error) {
	var list []cursor
	for _, c := range cs {
		if n := len(list); c.Device != "" && (n == 0 || list[n-1].User != c.User || list[n-1].Device != c.Device) {
			list = append(list, cursor{User: c.User, Device: c.Device})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	err = each(ctx, s.db, "devices", `SELECT l.u, l.d FROM `+s.list(1, "l", "u", "d")+` LEFT JOIN history_devices v ON v.username = l.u AND v.device = l.d
		WHERE v.used_at IS NULL OR v.used_at < $2 ORDER BY l.u, l.d`, []any{toJSON(list), now.Add(-deviceDay).UnixMilli()}, func(r *sql.Rows) error {
		var c cursor
		err := r.Scan(&c.User, &c.Device)
		out = append(out, c)
		return err
	})
	return out, err
}

// useDevices notes that devices are in use, and lets the ones go that were longest not used of users who have too many.
func (s *Store) useDevices(ctx context.Context, tx *sql.Tx, cs []cursor, now time.Time) error {
	if len(cs) == 0 {
		return nil
	}
	list := toJSON(cs)
	if err := s.startDevices(ctx, tx, list); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO history_devices (username, device, used_at) SELECT l.u, l.d, $2 FROM `+s.list(1, "l", "u", "d")+` WHERE true
		ON CONFLICT (username, device) DO UPDATE SET used_at = excluded.used_at`, list, now.UnixMilli()); err != nil {
		return fmt.Errorf("note devices: %w", err)
	}
	var gone []cursor
	if err := each(ctx, tx, "devices", `SELECT username, device FROM (SELECT username, device, row_number() OVER (PARTITION BY username ORDER BY used_at DESC, device) AS n
		FROM history_devices WHERE username IN (SELECT u FROM `+s.list(1, "l", "u", "d")+`)) x WHERE n > $2`, []any{list, MaxDevices}, func(r *sql.Rows) error {
		var c cursor
		err := r.Scan(&c.User, &c.Device)
		gone = append(gone, c)
		return err
	}); err != nil {
		return err
	}
	for _, c := range gone {
		if err := dropDevice(ctx, tx, c.User, c.Device); err != nil {
			return err
		}
	}
	return nil
}

func dropDevice(ctx context.Context, tx *sql.Tx, user, device string) error {
	for _, q := range []string{
		`DELETE FROM history_devices WHERE username = $1 AND device = $2`,
		`DELETE FROM history_cursors WHERE username = $1 AND device = $2`,
	} {
		if _, err := tx.ExecContext(ctx, q, user, device); err != nil {
			return fmt.Errorf("forget a device: %w", err)
		}
	}
	return nil
}

// Sweep forgets devices that were not used for DeviceForget, at most a hundred at a time.
func (s *Store) Sweep(ctx context.Context, now time.Time) (more bool, err error) {
	const batch = 100
	var old []cursor
	if err := each(ctx, s.db, "devices", `SELECT username, device FROM history_devices WHERE used_at < $1 ORDER BY used_at LIMIT 100`,
		[]any{now.Add(-DeviceForget).UnixMilli()}, func(r *sql.Rows) error {
			var c cursor
			err := r.Scan(&c.User, &c.Device)
			old = append(old, c)
			return err
		}); err != nil {
		return false, err
	}
	for _, c := range old {
		if err := s.db.InTx(ctx, func(tx *sql.Tx) error { return dropDevice(ctx, tx, c.User, c.Device) }); err != nil {
			return false, err
		}
	}
	return len(old) == batch, nil
}

// LastSeq is the youngest message of a room and its partition; ok is false for a room without any.
func (s *Store) LastSeq(ctx context.Context, rm room.Room) (p int, last int64, ok bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT p, last_seq FROM history_conversations WHERE a = $1 AND b = $2`, rm.A, rm.B).Scan(&p, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read a conversation: %w", err)
	}
	return p, last, true, nil
}

// Read moves the read marker of a user, and with it what was delivered. A seq above the room's last one means the last one.
func (s *Store) Read(ctx context.Context, req api.ReadRequest) (resp api.ReadResponse, err error) {
	rm := room.Room{A: req.A, B: req.B}
	peer := rm.Peer(req.User)
	peerSide, peerCount := 1, "count_b"
	if peer == rm.A {
		peerSide, peerCount = 0, "count_a"
	}
	var last, total, readSeq, readCount int64
	var p int
	err = s.db.QueryRowContext(ctx, `SELECT c.p, c.last_seq, c.`+peerCount+`, COALESCE(k.read_seq, 0), COALESCE(k.read_count, 0)
		FROM history_conversations c LEFT JOIN history_cursors k ON k.username = $3 AND k.device = '' AND k.peer = $4
		WHERE c.a = $1 AND c.b = $2`, rm.A, rm.B, req.User, peer).Scan(&p, &last, &total, &readSeq, &readCount)
	if errors.Is(err, sql.ErrNoRows) {
		return resp, nil
	}
	if err != nil {
		return resp, fmt.Errorf("read a conversation: %w", err)
	}
	seq := min(req.Seq, last)
	if seq <= readSeq { // markers do not go back
		return api.ReadResponse{Seq: readSeq, Unread: total - readCount}, nil
	}
	// The peer's messages up to seq, counted from the end that is nearer: in a large room one count of all is slower than anybody waits. Messages up
	// to last never change, so what is counted stays true whatever is stored meanwhile.
	from, to := seq, last
	forward := seq-readSeq < last-seq
	if forward {
		from, to = readSeq, seq
	}
	var above int64
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM history_messages m WHERE m.a = $1 AND m.b = $2 AND m.pos > $3 AND m.pos <= $4 AND m.side = $5
		AND m.alias IS NULL`, rm.A, rm.B, pos(p, from), pos(p, to), peerSide).Scan(&above); err != nil {
		return resp, fmt.Errorf("count what is unread: %w", err)
	}
	if forward {
		above = total - readCount - above
	}
	err = s.db.InTx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO history_cursors (username, device, peer, delivered, read_seq, read_count, changed) VALUES ($1, '', $2, $3, $3, $4, `+s.now()+`)
			ON CONFLICT (username, device, peer) DO UPDATE SET read_seq = excluded.read_seq, read_count = excluded.read_count, changed = excluded.changed,
			delivered = CASE WHEN history_cursors.delivered < excluded.delivered THEN excluded.delivered ELSE history_cursors.delivered END
			WHERE history_cursors.read_seq < excluded.read_seq`, req.User, peer, seq, total-above)
		if err != nil {
			return fmt.Errorf("move a read marker: %w", err)
		}
		n, err := res.RowsAffected()
		if resp.Moved = err == nil && n > 0; resp.Moved {
			resp.Seq, resp.Unread = seq, above
			return nil
		}
		var count int64
		err = tx.QueryRowContext(ctx, `SELECT read_seq, read_count FROM history_cursors WHERE username = $1 AND device = '' AND peer = $2`,
			req.User, peer).Scan(&resp.Seq, &count)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read a read marker: %w", err)
		}
		resp.Unread = max(total-count, 0) // a younger marker may count messages that came after total
		return nil
	})
	return resp, err
}

var _ querier = (*sqldb.DB)(nil)
