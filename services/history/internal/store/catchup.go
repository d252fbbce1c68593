package store

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/sqldb"
)

// scanLimit is the most conversations with news that one answer looks at; items beyond it are continued.
const scanLimit = 10_000

// cont is where an answer was cut: rooms before (A, B) are done, and messages of that room up to Seq. A is "" when nothing is done.
type cont struct {
	A   string `json:"a,omitempty"`
	B   string `json:"b,omitempty"`
	Seq int64  `json:"q,omitempty"`
}

// missed is a conversation that has messages for an item.
type missed struct {
	item        int
	room        room.Room
	p           int
	last        int64 // youngest message of the room
	after, upto int64
}

// progress is what one item has so far.
type progress struct {
	api.CatchUpResult
	rooms []missed // what is left, in order; the first one's after moves
	cut   bool     // rooms is not all
	bytes int
	est   int // messages a room, as seen so far
	at    cont
}

// CatchUp answers all items from one state of the database, in at most MaxBytes, shared fairly. Bad cursors are ErrCursor.
func (s *Store) CatchUp(ctx context.Context, items []api.CatchUpItem) (resp api.CatchUpResponse, err error) {
	todo := make([]*progress, len(items))
	for i, item := range items {
		todo[i] = &progress{est: 16}
		todo[i].Messages = []api.StoredMessage{}
		if item.Cont != "" {
			if err := decodeCursor(item.Cont, &todo[i].at); err != nil {
				return resp, err
			}
		}
	}
	err = s.snapshot(ctx, func(tx *sql.Tx) error {
		if resp.Applied, err = positions(ctx, tx); err != nil {
			return err
		}
		if err := s.missedRooms(ctx, tx, items, todo); err != nil {
			return err
		}
		if err := s.begins(ctx, tx, items, todo); err != nil {
			return err
		}
		return s.fill(ctx, tx, todo)
	})
	if err != nil {
		return resp, err
	}
	for _, t := range todo {
		if len(t.rooms) > 0 || t.cut {
			t.Cont = encodeCursor(t.at)
		}
		resp.Results = append(resp.Results, t.CatchUpResult)
	}
	return resp, nil
}

// ask is an item, or a room of an item, as SQL gets it.
type ask struct {
	I      int    `json:"i_n"`
	User   string `json:"u"`
	Device string `json:"d"`
	Vector int    `json:"v_n"` // 1: the starting point is in the list of vectors
	// From where a cut answer goes on.
	ContA string `json:"ca"`
	ContB string `json:"cb"`
	ContQ int64  `json:"cq_n"`
	// Of a room of the item:
	Peer  string `json:"peer"`
	A     string `json:"a"`
	B     string `json:"b"`
	Since int64  `json:"s_n"` // -1: by the item's rule
}

type vector struct {
	I   int   `json:"vi_n"`
	P   int   `json:"vp_n"`
	Seq int64 `json:"vs_n"`
}

// missedRooms finds the conversations with messages above each item's starting point, in the order in which they are answered.
func (s *Store) missedRooms(ctx context.Context, tx querier, items []api.CatchUpItem, todo []*progress) error {
	var whole, rooms []ask
	var vectors []vector
	named := make([]map[room.Room]bool, len(items))
	for i := range items {
		item, at := &items[i], todo[i].at
		base := ask{I: i, User: item.User, Device: item.Device, ContA: at.A, ContB: at.B, ContQ: at.Seq, Since: -1}
		if item.Vector != nil {
			base.Vector = 1
			for p, seq := range item.Vector {
				vectors = append(vectors, vector{i, p, seq})
			}
		}
		named[i] = map[room.Room]bool{}
		add := func(rm room.Room, since int64) {
			if named[i][rm] || !rm.Has(item.User) {
				return // nobody reads a room of others
			}
			named[i][rm] = true
			a := base
			a.Peer, a.A, a.B, a.Since = rm.Peer(item.User), rm.A, rm.B, since
			rooms = append(rooms, a)
		}
		since := make(map[room.Room]int64, len(item.Since))
		for name, seq := range item.Since {
			since[parse(name)] = seq
		}
		if item.Rooms == nil {
			whole = append(whole, base)
			for rm, seq := range since {
				add(rm, seq)
			}
		}
		for _, name := range item.Rooms {
			rm := parse(name)
			seq, ok := since[rm]
			if !ok {
				seq = -1
			}
			add(rm, seq)
		}
	}
	query, args := s.missedQuery(whole, rooms, vectors)
	if query == "" {
		return nil
	}
	n := 0
	var end missed
	err := each(ctx, tx, "news", query, append(args, scanLimit), func(r *sql.Rows) error {
		var m missed
		var byName int
		if err := r.Scan(&m.item, &m.room.A, &m.room.B, &m.p, &m.last, &m.after, &byName); err != nil {
			return err
		}
		n++
		end = m
		item := &items[m.item]
		if byName == 0 && named[m.item][m.room] {
			return nil // Since has it, with another start
		}
		m.upto = m.last
		if item.Upto != nil {
			m.upto = 0
			if m.p < len(item.Upto) {
				m.upto = min(m.last, item.Upto[m.p])
			}
		}
		if m.after < m.upto {
			todo[m.item].rooms = append(todo[m.item].rooms, m)
		}
		return nil
	})
	if err != nil || n < scanLimit {
		return err
	}
	// What was not looked at comes with the next answer.
	for i := end.item; i < len(todo); i++ {
		todo[i].cut = true
	}
	if t := todo[end.item]; len(t.rooms) == 0 {
		t.at = cont{end.room.A, end.room.B, end.last}
	}
	return nil
}

// parse reads the canonical form of a room; the zero Room is nobody's.
func parse(name string) room.Room {
	x, y, _ := strings.Cut(name, room.Separator)
	rm, _ := room.Of(x, y)
	return rm
}

// missedQuery puts the arms together that are needed: all rooms of users by the one or the other side, and named rooms.
func (s *Store) missedQuery(whole, rooms []ask, vectors []vector) (query string, args []any) {
	arg := func(v any) int {
		args = append(args, toJSON(v))
		return len(args)
	}
	vec, start := "", "0"
	if len(vectors) > 0 {
		vec = " LEFT JOIN " + s.list(arg(vectors), "w", "vi_n", "vp_n", "vs_n") + " ON l.v_n = 1 AND w.vi_n = l.i_n AND w.vp_n = c.p"
		start = "COALESCE(w.vs_n, 0)"
	}
	arm := func(kind int, list, join, peer, rule string) {
		if query != "" {
			query += " UNION ALL "
		}
		// The room at which an answer was cut goes on there, also when a session has confirmed more meanwhile. The cursor is a subquery, so that
		// it is looked up by its key, and only where the rule comes to it.
		query += "SELECT l.i_n, c.a, c.b, c.p, c.last_seq, CASE WHEN c.a = l.ca AND c.b = l.cb THEN l.cq_n " + rule +
			" WHEN l.v_n = 1 THEN " + start + " ELSE COALESCE((SELECT k.delivered FROM history_cursors k WHERE k.username = l.u AND k.device = l.d AND k.peer = " +
			peer + "), 0) END AS start, " + strconv.Itoa(kind) + " AS named FROM " + s.lookUp(list, join+" AND (c.a, c.b) >= (l.ca, l.cb)") + vec
	}
	if len(whole) > 0 {
		list := s.list(arg(whole), "l", "i_n", "u", "d", "v_n", "ca", "cb", "cq_n")
		arm(0, list, "c.a = l.u", "c.b", "")
		arm(0, list, "c.b = l.u", "c.a", "")
	}
	if len(rooms) > 0 {
		list := s.list(arg(rooms), "l", "i_n", "u", "d", "v_n", "ca", "cb", "cq_n", "peer", "a", "b", "s_n")
		arm(1, list, "c.a = l.a AND c.b = l.b", "l.peer", "WHEN l.s_n >= 0 THEN l.s_n")
	}
	if query != "" {
		query = "SELECT * FROM (" + query + ") n WHERE last_seq > start ORDER BY 1, 2, 3 LIMIT $" + strconv.Itoa(len(args)+1)
	}
	return query, args
}

// lookUp joins a list with the conversations c that on names, line by line through an index. PostgreSQL takes any JSON for a hundred lines,
// and in a large table it would rather read all of it, with two more processes, for each question. OFFSET 0 keeps it from
// turning the inner query into a join of its own choice, CROSS keeps SQLite from changing the order.
func (s *Store) lookUp(list, on string) string {
	if s.db.Dialect == sqldb.Postgres {
		return list + " CROSS JOIN LATERAL (SELECT * FROM history_conversations c WHERE " + on + " OFFSET 0) c"
	}
	return list + " CROSS JOIN history_conversations c ON " + on
}
