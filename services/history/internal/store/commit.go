package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"sort"
	"time"

	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// Message is one message on its way from the stream into SQL.
type Message struct {
	Seq     int64
	Room    room.Room
	ByB     bool // Room.B sent it
	ID      string
	Content []byte
	SentAt  int64 // Unix ms

	// Commit fills these.
	Prev  *int64
	Alias int64
}

func (m *Message) sender() string {
	if m.ByB {
		return m.Room.B
	}
	return m.Room.A
}

// Batch is what one transaction moves from a stream into SQL. Messages are in the order of their seqs; From and To are the position before
// and after, and To may be above the last message where others could not be parsed.
type Batch struct {
	P        int
	Owner    string
	Lease    time.Duration
	From, To int64
	// Complete: SQL has this partition from its first message on, so a room without messages has had none.
	Complete bool
	Messages []Message
}

// conversation is what a batch adds to one.
type conversation struct {
	room           room.Room
	last, at       int64
	countA, countB int64
}

// Commit stores a batch and moves the position, both or neither. ErrLost: the position is not From any more, or the partition is another's.
// After any other error the outcome is unknown: the position in SQL tells.
func (s *Store) Commit(ctx context.Context, b *Batch) (aliases int, err error) {
	err = s.write.InTx(ctx, func(tx *sql.Tx) error {
		res, err := s.exec(ctx, tx, s.fence(),
			b.P, b.Owner, b.From, b.To, b.Lease.Milliseconds())
		if err != nil {
			return fmt.Errorf("move the position: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return ErrLost
		}
		if len(b.Messages) == 0 {
			return nil
		}
		if err := s.useIndexes(ctx, tx); err != nil {
			return err
		}
		last, err := s.lastSeqs(ctx, tx, b.Messages)
		if err != nil {
			return err
		}
		hashes, twins, err := s.twins(ctx, tx, b.Messages)
		if err != nil {
			return err
		}
		var convs []conversation
		convs, aliases = link(b, hashes, last, twins)
		if err := s.insertMessages(ctx, tx, b, hashes); err != nil {
			return err
		}
		return s.upsertConversations(ctx, tx, b.P, convs)
	})
	return aliases, err
}

// useIndexes keeps PostgreSQL from reading whole tables for the look-ups of a batch. While a table is small that is the cheapest plan, and a
// prepared statement keeps it until the table is analysed again: a table that grew by hundreds of thousands of rows within that minute
// was read as a whole for each batch.
func (s *Store) useIndexes(ctx context.Context, tx *sql.Tx) error {
	if s.db.Dialect != sqldb.Postgres {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SET LOCAL enable_seqscan = off`); err != nil {
		return fmt.Errorf("prefer indexes: %w", err)
	}
	return nil
}

// fence moves the position of a partition, if it is where its owner left it.
func (s *Store) fence() string {
	return `UPDATE history_partitions SET seq = $4, lease_until = ` + s.now() + ` + $5 WHERE p = $1 AND owner = $2 AND seq = $3`
}

// twin is a stored message that a later one may repeat.
type twin struct {
	seq     int64
	room    room.Room
	byB     bool
	id      string
	content []byte
}

// link fills Prev and Alias of the messages and sums up what they change.
func link(b *Batch, hashes []int64, last map[room.Room]int64, twins map[int64][]twin) (convs []conversation, aliases int) {
	at := make(map[room.Room]int, len(last))
	for i := range b.Messages {
		m := &b.Messages[i]
		if prev, ok := last[m.Room]; ok {
			m.Prev = &prev
		} else if b.Complete {
			m.Prev = new(int64)
		}
		h := hashes[i]
		m.Alias = 0
		for _, t := range twins[h] {
			if t.room == m.Room && t.byB == m.ByB && t.id == m.ID && bytes.Equal(t.content, m.Content) {
				m.Alias = t.seq
				break
			}
		}
		if m.Alias != 0 {
			aliases++
			continue
		}
		twins[h] = append(twins[h], twin{m.Seq, m.Room, m.ByB, m.ID, m.Content})
		last[m.Room] = m.Seq
		k, ok := at[m.Room]
		if !ok {
			k = len(convs)
			at[m.Room] = k
			convs = append(convs, conversation{room: m.Room})
		}
		c := &convs[k]
		c.last, c.at = m.Seq, max(c.at, m.SentAt)
		if m.ByB {
			c.countB++
		} else {
			c.countA++
		}
	}
	// One order of rows in all transactions.
	sort.Slice(convs, func(i, j int) bool {
		x, y := convs[i].room, convs[j].room
		return x.A < y.A || x.A == y.A && x.B < y.B
	})
	return convs, aliases
}

// lastSeqs reads the youngest message of each room of the batch that has any.
func (s *Store) lastSeqs(ctx context.Context, tx *sql.Tx, ms []Message) (map[room.Room]int64, error) {
	seen := make(map[room.Room]struct{}, len(ms))
	var as, bs []string
	for i := range ms {
		if _, ok := seen[ms[i].Room]; !ok {
			seen[ms[i].Room] = struct{}{}
			as, bs = append(as, ms[i].Room.A), append(bs, ms[i].Room.B)
		}
	}
	out := make(map[room.Room]int64, len(as))
	if s.db.Dialect == sqldb.SQLite {
		st := tx.StmtContext(ctx, s.lite.m[s.lite.last])
		for i := range as {
			var seq int64
			switch err := st.QueryRowContext(ctx, as[i], bs[i]).Scan(&seq); err {
			case nil:
				out[room.Room{A: as[i], B: bs[i]}] = seq
			case sql.ErrNoRows:
			default:
				return nil, fmt.Errorf("read a conversation: %w", err)
			}
		}
		return out, nil
	}
	err := each(ctx, tx, "conversations", `SELECT c.a, c.b, c.last_seq FROM unnest($1::text[], $2::text[]) AS l(a, b)
		JOIN history_conversations c ON c.a = l.a AND c.b = l.b`, []any{as, bs}, func(r *sql.Rows) error {
		var rm room.Room
		var seq int64
		err := r.Scan(&rm.A, &rm.B, &seq)
		out[rm] = seq
		return err
	})
	return out, err
}

// twins reads what SQL has with the ids of the batch, by hash.
func (s *Store) twins(ctx context.Context, tx *sql.Tx, ms []Message) ([]int64, map[int64][]twin, error) {
	hashes := make([]int64, len(ms))
	for i := range ms {
		hashes[i] = dedupe(ms[i].sender(), ms[i].ID)
	}
	out := make(map[int64][]twin, len(ms))
	scan := func(r *sql.Rows) error {
		var t twin
		var h, at int64
		var side int
		err := r.Scan(&h, &at, &t.room.A, &t.room.B, &side, &t.id, &t.content)
		t.seq, t.byB = seqOf(at), side == 1
		out[h] = append(out[h], t)
		return err
	}
	if s.db.Dialect == sqldb.Postgres {
		// Sorted here: ordered by SQL, the plan may be to read all of pos in order.
		defer func() {
			for _, list := range out {
				sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
			}
		}()
		return hashes, out, each(ctx, tx, "ids", selectTwins+`= ANY($1)`, []any{hashes}, scan)
	}
	// In chunks of a fixed size, so that one prepared statement does; the last one repeats a hash, which changes nothing.
	st := tx.StmtContext(ctx, s.lite.m[s.lite.twins])
	args := make([]any, twinChunk)
	seen := make(map[int64]struct{}, len(ms))
	var todo []int64
	for _, h := range hashes {
		if _, ok := seen[h]; !ok {
			seen[h] = struct{}{}
			todo = append(todo, h)
		}
	}
	for len(todo) > 0 {
		n := min(len(todo), twinChunk)
		for i := range args {
			args[i] = todo[min(i, n-1)]
		}
		todo = todo[n:]
		if err := eachOf(ctx, st, "ids", args, scan); err != nil {
			return nil, nil, err
		}
	}
	return hashes, out, nil
}

const (
	twinChunk   = 64
	selectTwins = `SELECT dedupe, pos, a, b, side, client_id, content FROM history_messages WHERE alias IS NULL AND dedupe `
)

// dedupe is a hash of a message's id. A strong one: clients choose ids, and many ids of one hash would make every look-up slow.
func dedupe(sender, id string) int64 {
	b := make([]byte, 0, 128)
	b = append(b, sender...)
	b = append(b, 0) // no name has it
	b = append(b, id...)
	h := sha256.Sum256(b)
	return int64(binary.LittleEndian.Uint64(h[:8]))
}
