package store

import (
	"context"
	"database/sql"
	"fmt"

	"parley.example/pkg/api"
	"parley.example/pkg/sqldb"
)

// Limits of reading for one answer.
const (
	waveRows  = 800 // messages that one wave aims at; it may read four times as many
	waves     = 16  // at most; what is left then comes with the next answer
	enoughFor = MaxBytes - 16<<10
)

// fill reads messages of the rooms that are left, in waves: each takes some rooms of each item and a number of messages of each room, and
// what it found tells how many to take in the next. One query a wave, however many users.
func (s *Store) fill(ctx context.Context, tx *sql.Tx, todo []*progress) error {
	for range waves {
		used := 0
		var active []*progress
		for _, t := range todo {
			used += t.bytes
			if len(t.rooms) > 0 {
				active = append(active, t)
			}
		}
		if len(active) == 0 || used > enoughFor {
			return nil
		}
		share := (MaxBytes - used) / len(active)
		got, err := s.wave(ctx, tx, active)
		if err != nil {
			return err
		}
		moved := false
		for i, t := range active {
			moved = t.take(got[i], t.bytes+share, used == 0 && i == 0 && !moved) || moved
		}
		if !moved {
			return nil // the next message of each is above its share
		}
	}
	return nil
}

// stretch is what a wave reads of one room.
type stretch struct {
	room     *missed
	limit    int
	messages []api.StoredMessage
}

// take moves messages from a wave into the answer, as long as it stays below most bytes, or is the first at all. Rooms are answered in order, so
// what lies behind a room that is not finished is dropped and read again.
func (t *progress) take(got []stretch, most int, first bool) (moved bool) {
	rooms, n := 0, 0
	defer func() {
		if rooms == 0 {
			t.est *= 8
		} else {
			t.est = max(1, (t.est+n/rooms)/2)
		}
	}()
	for i := range got {
		g := &got[i]
		for k := range g.messages {
			m := g.messages[k]
			b := size(&m)
			if t.bytes+b > most && !(first && !moved) {
				return moved
			}
			moved = true
			n++
			t.bytes += b
			t.Messages = append(t.Messages, m)
			t.rooms[0].after = m.Seq
			t.at = cont{m.A, m.B, m.Seq}
		}
		if len(g.messages) == g.limit && t.rooms[0].after < t.rooms[0].upto {
			return moved
		}
		moved = true
		rooms++
		t.at = cont{t.rooms[0].room.A, t.rooms[0].room.B, t.rooms[0].upto}
		t.rooms = t.rooms[1:]
	}
	return moved
}

// wave reads the next stretch of each item.
func (s *Store) wave(ctx context.Context, tx *sql.Tx, active []*progress) ([][]stretch, error) {
	out := make([][]stretch, len(active))
	quota := max(waveRows/len(active), 2)
	var flat []*stretch
	for i, t := range active {
		limit := min(max(4*t.est, 2), quota)
		n := min(max(quota/max(t.est, 1), 1), len(t.rooms))
		out[i] = make([]stretch, n)
		for k := range n {
			out[i][k] = stretch{room: &t.rooms[k], limit: limit}
			flat = append(flat, &out[i][k])
		}
	}
	if s.db.Dialect == sqldb.SQLite {
		return out, s.waveSQLite(ctx, tx, flat)
	}
	return out, s.wavePostgres(ctx, tx, flat)
}

// waveSQLite asks room by room: no network lies between.
func (s *Store) waveSQLite(ctx context.Context, tx *sql.Tx, flat []*stretch) error {
	st, err := tx.PrepareContext(ctx, `SELECT `+messageFields+` FROM history_messages m WHERE m.a = ? AND m.b = ? AND m.pos > ? AND m.pos <= ? AND m.alias IS NULL ORDER BY m.pos LIMIT ?`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer st.Close()
	for _, w := range flat {
		r := w.room
		err := eachOf(ctx, st, "messages", []any{r.room.A, r.room.B, pos(r.p, r.after), pos(r.p, r.upto), w.limit}, func(rows *sql.Rows) error {
			m, err := scanMessage(rows)
			w.messages = append(w.messages, m)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) wavePostgres(ctx context.Context, tx *sql.Tx, flat []*stretch) error {
	n := len(flat)
	nr, as, bs, from, to, limit := make([]int64, n), make([]string, n), make([]string, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, w := range flat {
		r := w.room
		nr[i], as[i], bs[i], from[i], to[i], limit[i] = int64(i), r.room.A, r.room.B, pos(r.p, r.after), pos(r.p, r.upto), int64(w.limit)
	}
	return each(ctx, tx, "messages", `SELECT l.n, m.* FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) AS l(n, a, b, after, upto, most)
		CROSS JOIN LATERAL (SELECT `+messageFields+` FROM history_messages m WHERE m.a = l.a AND m.b = l.b AND m.pos > l.after AND m.pos <= l.upto AND m.alias IS NULL
			ORDER BY m.a, m.b, m.pos LIMIT l.most) m
		ORDER BY l.n, m.pos`, []any{nr, as, bs, from, to, limit}, func(rows *sql.Rows) error {
		var i int
		m, err := scanMessage(rows, &i)
		if err == nil {
			flat[i].messages = append(flat[i].messages, m)
		}
		return err
	})
}
