package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"unicode/utf8"

	"parley.example/pkg/api"
)

// MaxBytes bounds the messages of one answer: NATS carries 1 MiB.
const MaxBytes = 512 << 10

// messageFields is what scanMessage reads of history_messages AS m.
const messageFields = `m.pos, m.a, m.b, m.side, m.client_id, m.content, m.prev, m.sent_at, m.alias`

func scanMessage(r interface{ Scan(...any) error }, more ...any) (m api.StoredMessage, err error) {
	var at int64
	var side int
	var content []byte
	var prev, alias sql.NullInt64
	if err := r.Scan(append(more, &at, &m.A, &m.B, &side, &m.ID, &content, &prev, &m.SentAt, &alias)...); err != nil {
		return m, err
	}
	m.P, m.Seq, m.Content, m.Alias = partOf(at), seqOf(at), string(content), alias.Int64
	m.Sender = m.A
	if side == 1 {
		m.Sender = m.B
	}
	if prev.Valid {
		m.Prev = &prev.Int64
	}
	return m, nil
}

// size is what m takes as JSON at most.
func size(m *api.StoredMessage) int {
	return 160 + textSize(m.A) + textSize(m.B) + textSize(m.Sender) + textSize(m.ID) + textSize(m.Content)
}

// textSize is the length of s as encoding/json writes it, or a little more.
func textSize(s string) int {
	n := len(s)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x20, c == '<', c == '>', c == '&':
			n += 5
		case c == '"', c == '\\':
			n++
		case c == 0xe2: // may begin U+2028 or U+2029
			n += 3
		case c >= utf8.RuneSelf, c == 0x7f:
		}
	}
	return n
}

// Page reads a page of a room, oldest first; see api.PageRequest. It is cut where it would pass MaxBytes.
func (s *Store) Page(ctx context.Context, req api.PageRequest) (resp api.PageResponse, err error) {
	const from = `SELECT ` + messageFields + ` FROM history_messages m WHERE m.a = $1 AND m.b = $2 AND m.alias IS NULL`
	resp.Messages = []api.StoredMessage{}
	bytes := 0
	take := func(r *sql.Rows) error {
		m, err := scanMessage(r)
		if err != nil {
			return err
		}
		bytes += size(&m)
		if resp.More || len(resp.Messages) == req.Limit || len(resp.Messages) > 0 && bytes > MaxBytes {
			resp.More = true
			return nil
		}
		resp.Messages = append(resp.Messages, m)
		return nil
	}
	// The pos of a room's messages all have the same partition; p is read so that nobody needs to know how rooms are spread.
	var p int
	switch err := s.db.QueryRowContext(ctx, `SELECT p FROM history_conversations WHERE a = $1 AND b = $2`, req.A, req.B).Scan(&p); {
	case err == sql.ErrNoRows:
		return resp, nil
	case err != nil:
		return resp, fmt.Errorf("read a conversation: %w", err)
	}
	if req.After != nil {
		err = each(ctx, s.db, "a page", from+` AND m.pos > $3 ORDER BY m.pos LIMIT $4`, []any{req.A, req.B, pos(p, *req.After), req.Limit + 1}, take)
		return resp, err
	}
	before := pos(p+1, 0)
	if req.Before > 0 {
		before = pos(p, req.Before)
	}
	err = each(ctx, s.db, "a page", from+` AND m.pos < $3 ORDER BY m.pos DESC LIMIT $4`, []any{req.A, req.B, before, req.Limit + 1}, take)
	slices.Reverse(resp.Messages)
	return resp, err
}

// rowsLimit is the most rows of one answer; the longest names make it about MaxBytes.
const rowsLimit = 900

// Rows names the messages of partition p with from < seq ≤ to; see api.RowsResponse.
func (s *Store) Rows(ctx context.Context, req api.RowsRequest) (resp api.RowsResponse, err error) {
	// The position before the rows: all rows up to it are there by then.
	var at int64
	if err := s.db.QueryRowContext(ctx, `SELECT seq FROM history_partitions WHERE p = $1`, req.P).Scan(&at); err != nil && err != sql.ErrNoRows {
		return resp, fmt.Errorf("read a position: %w", err)
	}
	resp.Rows = []api.Row{}
	resp.To = max(req.From, min(req.To, at))
	err = each(ctx, s.db, "rows", `SELECT pos, a, b FROM history_messages WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3`,
		[]any{pos(req.P, req.From), pos(req.P, resp.To), rowsLimit}, func(r *sql.Rows) error {
			var row api.Row
			err := r.Scan(&row.Seq, &row.A, &row.B)
			row.Seq = seqOf(row.Seq)
			resp.Rows = append(resp.Rows, row)
			return err
		})
	if len(resp.Rows) == rowsLimit {
		resp.To = resp.Rows[rowsLimit-1].Seq
	}
	return resp, err
}

// Messages reads messages by seq, oldest first, aliases too; it stops before MaxBytes.
func (s *Store) Messages(ctx context.Context, req api.MessagesRequest) (resp api.MessagesResponse, err error) {
	type item struct {
		N int64 `json:"pos_n"`
	}
	items := make([]item, len(req.Seqs))
	for i, seq := range req.Seqs {
		items[i].N = pos(req.P, seq)
	}
	resp.Messages = []api.StoredMessage{}
	bytes := 0
	err = each(ctx, s.db, "messages", `SELECT `+messageFields+` FROM history_messages m WHERE m.pos IN (SELECT pos_n FROM `+s.list(1, "l", "pos_n")+`) ORDER BY m.pos`,
		[]any{toJSON(items)}, func(r *sql.Rows) error {
			m, err := scanMessage(r)
			if bytes += size(&m); err != nil || len(resp.Messages) > 0 && bytes > MaxBytes {
				return err
			}
			resp.Messages = append(resp.Messages, m)
			return nil
		})
	return resp, err
}

// Find reads the oldest message that sender sent with this id; nil if there is none.
func (s *Store) Find(ctx context.Context, sender, id string) (found *api.StoredMessage, err error) {
	err = each(ctx, s.db, "an id", `SELECT `+messageFields+` FROM history_messages m WHERE m.dedupe = $1 AND m.alias IS NULL ORDER BY m.sent_at, m.pos`,
		[]any{dedupe(sender, id)}, func(r *sql.Rows) error {
			m, err := scanMessage(r)
			if err == nil && found == nil && m.Sender == sender && m.ID == id {
				found = &m
			}
			return err
		})
	return found, err
}
