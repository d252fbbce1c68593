package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// ErrCursor says that a Next or Cont is none of ours.
var ErrCursor = errors.New("the cursor could not be read")

// place is where a page of conversations ended. A conversation moves to the top with each message, so a walk down the list would miss
// one that moves past it. Therefore the walk remembers where SQL was when it began, and what has moved since comes after the end of the
// list, in an order in which each partition only grows: what moves once more is still ahead.
type place struct {
	// The way down the list.
	At int64  `json:"t,omitempty"`
	A  string `json:"a,omitempty"`
	B  string `json:"b,omitempty"`
	// Began is SQL's position per partition when the walk began; nil in cursors of versions that did not note it.
	Began []int64 `json:"s,omitempty"`
	// The way through what moved since.
	Moved bool  `json:"m,omitempty"`
	P     int   `json:"p,omitempty"`
	Seq   int64 `json:"q,omitempty"`
}

func encodeCursor(v any) string {
	b, _ := json.Marshal(v) // a struct of plain fields
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(s string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	// PostgreSQL takes no U+0000, which may stand in a cursor that a client made up: its mistake is no failure of SQL.
	if err != nil || bytes.Contains(b, []byte(`\u0000`)) || json.Unmarshal(b, v) != nil {
		return ErrCursor
	}
	return nil
}

// convPage is a page of conversations that is being filled.
type convPage struct {
	api.ConversationsPage
	user  string
	limit int
	bytes int
	at    place
	full  bool // the page has ended before the list
	rooms map[string]struct{}
}

// Conversations reads a page of a user's conversations, the one with the youngest message first; at the end those that moved since the first page.
func (s *Store) Conversations(ctx context.Context, req api.ConversationsRequest) (api.ConversationsPage, error) {
	page := &convPage{user: req.Username, limit: req.Limit, at: place{At: 1<<62 - 1}, rooms: map[string]struct{}{}}
	page.Conversations = []api.Conversation{}
	first := req.After == ""
	if first {
		// Before the rows: what is stored after it may be missing among them.
		var err error
		if page.at.Began, err = s.Positions(ctx); err != nil {
			return page.ConversationsPage, err
		}
	} else if err := decodeCursor(req.After, &page.at); err != nil {
		return page.ConversationsPage, err
	}
	if !page.at.Moved {
		if err := s.down(ctx, page); err != nil {
			return page.ConversationsPage, err
		}
		// One page shows one state of the list: nothing can have moved past it.
		if !page.full && !first && page.at.Began != nil {
			page.at = place{Began: page.at.Began, Moved: true}
		}
	}
	if page.at.Moved {
		if err := s.moved(ctx, page); err != nil {
			return page.ConversationsPage, err
		}
	}
	if page.full {
		page.Next = encodeCursor(page.at)
	}
	return page.ConversationsPage, nil
}

// down goes on down the list.
func (s *Store) down(ctx context.Context, page *convPage) error {
	at := page.at
	return s.conversations(ctx, page, `(c.last_at < $2 OR c.last_at = $2 AND (c.a, c.b) > ($3, $4))`, `last_at DESC, a, b`,
		[]any{page.user, at.At, at.A, at.B}, func(m *api.StoredMessage, lastAt int64) {
			page.at.At, page.at.A, page.at.B = lastAt, m.A, m.B
		})
}

// moved goes on through what has changed since the walk began.
func (s *Store) moved(ctx context.Context, page *convPage) error {
	at := page.at
	began, list := `(CAST($4 AS BIGINT[]))[c.p + 1]`, any(at.Began)
	if s.db.Dialect == sqldb.SQLite {
		began, list = `json_extract($4, '$[' || c.p || ']')`, toJSON(at.Began)
	}
	return s.conversations(ctx, page, `(c.p, c.last_seq) > ($2, $3) AND c.last_seq > `+began, `p, last_seq`,
		[]any{page.user, at.P, at.Seq, list}, func(m *api.StoredMessage, _ int64) {
			page.at.P, page.at.Seq = m.P, m.Seq
		})
}

// conversations adds those of the page's user for which where holds, in an order, and tells of each that it took, or passed over because the page has it.
func (s *Store) conversations(ctx context.Context, page *convPage, where, order string, args []any, took func(m *api.StoredMessage, lastAt int64)) error {
	const conv = `SELECT c.a, c.b, c.p, c.last_seq, c.last_at, c.count_`
	const from = ` FROM history_conversations c WHERE c.`
	n := strconv.Itoa(len(args) + 1)
	query := `SELECT c.last_at, c.peer_count, COALESCE(k.read_count, 0), COALESCE(k.read_seq, 0), COALESCE(k.delivered, 0),
			COALESCE(o.read_seq, 0), COALESCE(o.delivered, 0), ` + messageFields + `
		FROM (SELECT * FROM (` + conv + `b AS peer_count, c.b AS peer` + from + `a = $1 AND ` + where + `
			UNION ALL ` + conv + `a AS peer_count, c.a AS peer` + from + `b = $1 AND ` + where + `) x ORDER BY ` + order + ` LIMIT $` + n + `) c
		JOIN history_messages m ON m.pos = ` + base("c.p") + ` + c.last_seq
		LEFT JOIN history_cursors k ON k.username = $1 AND k.device = '' AND k.peer = c.peer
		LEFT JOIN history_cursors o ON o.username = c.peer AND o.device = '' AND o.peer = $1
		ORDER BY c.` + strings.ReplaceAll(order, ", ", ", c.")
	return each(ctx, s.db, "conversations", query, append(args, page.limit+1), func(r *sql.Rows) error {
		var c api.Conversation
		var at, count, readCount int64
		m, err := scanMessage(r, &at, &count, &readCount, &c.ReadSeq, &c.DeliveredSeq, &c.PeerReadSeq, &c.PeerDeliveredSeq)
		if err != nil || page.full {
			return err
		}
		rm := room.Room{A: m.A, B: m.B}
		c.Room, c.Peer, c.LastMessage, c.Unread = rm.String(), rm.Peer(page.user), &m, count-readCount
		if _, ok := page.rooms[c.Room]; !ok {
			page.bytes += size(&m) + 300
			if page.full = len(page.Conversations) == page.limit || len(page.Conversations) > 0 && page.bytes > MaxBytes; page.full {
				return nil
			}
			page.rooms[c.Room] = struct{}{}
			page.Conversations = append(page.Conversations, c)
		}
		took(&m, at)
		return nil
	})
}
