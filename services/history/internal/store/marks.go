package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"parley.example/pkg/api"
)

// MaxPairs bounds the rooms of one question for marks.
const MaxPairs = 1000

// markPage bounds the marks of one page: names of 256 bytes fit into 1 MiB.
const markPage = 1500

// markPlace is where a page of marks ended.
type markPlace struct {
	At   int64  `json:"t"`
	User string `json:"u"`
	Peer string `json:"p"`
}

const markFields = `SELECT k.username, k.peer, k.read_seq, k.delivered, k.changed FROM history_cursors k`

// Marks reads the marks that moved within the last age, those that moved first first. A transaction is seen when it commits, and names the
// time at which it wrote: age has to have some room for that.
func (s *Store) Marks(ctx context.Context, age time.Duration, cont string) (resp api.MarksResponse, err error) {
	var from markPlace
	if cont != "" {
		err = decodeCursor(cont, &from)
	} else if err = s.db.QueryRowContext(ctx, `SELECT `+s.now()+` - $1`, age.Milliseconds()).Scan(&from.At); err != nil {
		err = fmt.Errorf("read the clock: %w", err)
	}
	if err != nil {
		return resp, err
	}
	last := from
	resp.Rows, err = s.marks(ctx, markFields+` WHERE k.device = '' AND k.changed >= $1 AND (k.changed > $1 OR (k.username, k.peer) > ($2, $3))
		ORDER BY k.changed, k.username, k.peer LIMIT $4`, &last, from.At, from.User, from.Peer, markPage)
	if len(resp.Rows) == markPage {
		resp.Cont = encodeCursor(last)
	}
	return resp, err
}

// MarksOf reads the marks of both users of some rooms.
func (s *Store) MarksOf(ctx context.Context, pairs []api.Pair) (resp api.MarksResponse, err error) {
	var last markPlace
	list := toJSON(pairs)
	resp.Rows, err = s.marks(ctx, markFields+` JOIN `+s.list(1, "l", "u", "p")+` ON k.device = '' AND k.username = l.u AND k.peer = l.p
		UNION `+markFields+` JOIN `+s.list(1, "l", "u", "p")+` ON k.device = '' AND k.username = l.p AND k.peer = l.u`, &last, list)
	return resp, err
}

func (s *Store) marks(ctx context.Context, query string, last *markPlace, args ...any) ([]api.Mark, error) {
	list := []api.Mark{}
	err := each(ctx, s.db, "marks", query, args, func(r *sql.Rows) error {
		var m api.Mark
		err := r.Scan(&m.User, &m.Peer, &m.Read, &m.Delivered, &last.At)
		last.User, last.Peer = m.User, m.Peer
		list = append(list, m)
		return err
	})
	return list, err
}
