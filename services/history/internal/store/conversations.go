package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"

	"parley/pkg/api"
	"parley/pkg/room"
)

// ErrCursor says that a Next or Cont is none of ours.
var ErrCursor = errors.New("the cursor could not be read")

// place is where a page of conversations ended.
type place struct {
	At int64  `json:"t"`
	A  string `json:"a"`
	B  string `json:"b"`
}

func encodeCursor(v any) string {
	b, _ := json.Marshal(v) // a struct of plain fields
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(s string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(b, v) != nil {
		return ErrCursor
	}
	return nil
}

// Conversations reads a page of a user's conversations, the one with the youngest message first.
func (s *Store) Conversations(ctx context.Context, req api.ConversationsRequest) (page api.ConversationsPage, err error) {
	after := place{At: 1<<62 - 1}
	if req.After != "" {
		if err := decodeCursor(req.After, &after); err != nil {
			return page, err
		}
	}
	const conv = `SELECT c.a, c.b, c.p, c.last_seq, c.last_at, c.count_`
	const where = ` FROM history_conversations c WHERE c.`
	const past = ` = $1 AND (c.last_at < $2 OR c.last_at = $2 AND (c.a, c.b) > ($3, $4))`
	query := `SELECT c.last_at, c.peer_count, COALESCE(k.read_count, 0), COALESCE(k.read_seq, 0), COALESCE(k.delivered, 0),
			COALESCE(o.read_seq, 0), COALESCE(o.delivered, 0), ` + messageFields + `
		FROM (SELECT * FROM (` + conv + `b AS peer_count, c.b AS peer` + where + `a` + past + `
			UNION ALL ` + conv + `a AS peer_count, c.a AS peer` + where + `b` + past + `) x ORDER BY last_at DESC, a, b LIMIT $5) c
		JOIN history_messages m ON m.pos = ` + base("c.p") + ` + c.last_seq
		LEFT JOIN history_cursors k ON k.username = $1 AND k.device = '' AND k.peer = c.peer
		LEFT JOIN history_cursors o ON o.username = c.peer AND o.device = '' AND o.peer = $1
		ORDER BY c.last_at DESC, c.a, c.b`
	page.Conversations = []api.Conversation{}
	bytes, full := 0, false
	err = each(ctx, s.db, "conversations", query, []any{req.Username, after.At, after.A, after.B, req.Limit + 1}, func(r *sql.Rows) error {
		var c api.Conversation
		var at, count, readCount int64
		m, err := scanMessage(r, &at, &count, &readCount, &c.ReadSeq, &c.DeliveredSeq, &c.PeerReadSeq, &c.PeerDeliveredSeq)
		if err != nil {
			return err
		}
		if bytes += size(&m) + 300; full || len(page.Conversations) == req.Limit || len(page.Conversations) > 0 && bytes > MaxBytes {
			full = true
			return nil
		}
		rm := room.Room{A: m.A, B: m.B}
		c.Room, c.Peer, c.LastMessage, c.Unread = rm.String(), rm.Peer(req.Username), &m, count-readCount
		page.Conversations = append(page.Conversations, c)
		after = place{at, m.A, m.B}
		return nil
	})
	if full {
		page.Next = encodeCursor(after)
	}
	return page, err
}
