package router

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

// holdLimit bounds announcements that wait for a repair; more become a hole, which is asked for.
const holdLimit = 256

// fetchLimit is how many messages one request to history names.
const fetchLimit = 200

// fetch is what a repair brought: either rows (of a hole) or messages (of rows whose live copy is missing).
type fetch struct {
	p        int
	to       int64 // what will be verified when it is handed over
	rows     *api.RowsResponse
	messages []api.StoredMessage
}

// announce takes one announcement, in order per partition.
func (r *Router) announce(ctx context.Context, wg *sync.WaitGroup, a api.Applied) {
	if a.P < 0 || a.P >= len(r.parts) {
		r.m.garbage.Inc()
		return
	}
	part := &r.parts[a.P]
	if part.repairing {
		if len(part.hold) < holdLimit {
			part.hold = append(part.hold, a)
		}
		return
	}
	known := part.verified.Load()
	if a.To <= known {
		return
	}
	if a.From > known || a.RowsOmitted {
		r.m.holes.Inc()
		part.repairing = true
		r.fetchRows(ctx, wg, api.RowsRequest{P: a.P, From: known, To: a.To})
		return
	}
	r.rows(ctx, wg, a.P, a.Rows, a.To)
}

// rows checks consecutive rows up to seq to.
func (r *Router) rows(ctx context.Context, wg *sync.WaitGroup, p int, rows []api.Row, to int64) {
	part := &r.parts[p]
	// Sessions added from now on read everything up to here from history.
	part.routedTo(to)
	known := part.verified.Load()
	var missing []int64
	for _, row := range rows {
		if row.Seq <= known || row.Seq > to || part.seen.has(row.Seq) {
			continue
		}
		if len(r.Members(row.A)) == 0 && len(r.Members(row.B)) == 0 {
			continue
		}
		missing = append(missing, row.Seq)
	}
	if len(missing) > 0 {
		part.repairing = true
		r.fetchMessages(ctx, wg, p, missing, to)
		return
	}
	part.verified.Store(to)
	part.seen.forget(to)
}

// finish takes what a repair brought, then the announcements that waited for it.
func (r *Router) finish(ctx context.Context, wg *sync.WaitGroup, f fetch) {
	part := &r.parts[f.p]
	part.repairing = false
	if f.rows != nil {
		r.rows(ctx, wg, f.p, f.rows.Rows, f.rows.To)
	} else {
		for i := range f.messages {
			r.repaired(part, &f.messages[i])
		}
		part.verified.Store(f.to)
		part.seen.forget(f.to)
	}
	hold := part.hold
	part.hold = nil
	for _, a := range hold {
		r.announce(ctx, wg, a) // those behind one that needs another repair are held again
	}
}

// repaired routes a message whose live copy did not come, unless it came after all.
func (r *Router) repaired(part *partition, m *api.StoredMessage) {
	if !part.seen.add(m.Seq) {
		return
	}
	if m.Alias != 0 {
		return // repeats a message that is routed under its own seq
	}
	r.m.repaired.Inc()
	r.route(FromStored(m))
}

// FromStored makes a Delivery of a message that comes from SQL.
func FromStored(m *api.StoredMessage) *Delivery {
	rm := room.Room{A: m.A, B: m.B}
	return &Delivery{Room: rm, P: m.P, Message: wire.Message{
		Sender: m.Sender, Content: m.Content, Room: rm.String(), ID: m.ID, Seq: m.Seq, Prev: m.Prev, SentAt: wire.Millis(m.SentAt),
	}}
}

// fetchRows asks history for the rows of a hole, in a goroutine, until it answers.
func (r *Router) fetchRows(ctx context.Context, wg *sync.WaitGroup, req api.RowsRequest) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		var rows api.RowsResponse
		ok := retry(ctx, func(ctx context.Context) (err error) {
			rows, err = api.HistoryRows.Call(ctx, r.history, req)
			return err
		})
		if ok {
			r.hand(ctx, fetch{p: req.P, rows: &rows})
		}
	}()
}

// fetchMessages asks history for messages by seq, in a goroutine, until it answers.
func (r *Router) fetchMessages(ctx context.Context, wg *sync.WaitGroup, p int, seqs []int64, to int64) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		f := fetch{p: p, to: to}
		for len(seqs) > 0 {
			ask := seqs[:min(len(seqs), fetchLimit)]
			var got api.MessagesResponse
			ok := retry(ctx, func(ctx context.Context) (err error) {
				got, err = api.HistoryMessages.Call(ctx, r.history, api.MessagesRequest{P: p, Seqs: ask})
				return err
			})
			if !ok {
				return
			}
			f.messages = append(f.messages, got.Messages...)
			done := len(ask)
			if n := len(got.Messages); n > 0 && n < len(ask) {
				// The answer was cut by size: go on behind its last one. Rows that do not exist are passed over.
				for done = 0; done < len(ask) && ask[done] <= got.Messages[n-1].Seq; {
					done++
				}
			}
			seqs = seqs[done:]
		}
		r.hand(ctx, f)
	}()
}

func (r *Router) hand(ctx context.Context, f fetch) {
	select {
	case r.fetched <- f:
	case <-ctx.Done():
	}
}

// retry calls f until it succeeds or ctx ends: with history away, a repair is only delayed.
func retry(ctx context.Context, f func(context.Context) error) bool {
	wait := 50 * time.Millisecond
	for {
		if f(ctx) == nil {
			return true
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
		wait = min(2*wait, 2*time.Second)
	}
}
