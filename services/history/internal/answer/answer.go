// Package answer serves history's requests; see parley.example/pkg/api. Callers are gateways, which have checked who asks.
package answer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/services/history/internal/store"
)

// Limits of requests. Limits of pages are the largest and the default.
const (
	maxPage, defaultPage = 200, 50
	maxItems             = 200
	maxConfirms          = 1000
	maxSeqs              = 500
	maxRooms             = 20_000 // named by all items of a CatchUp together
	maxDevice            = 256    // bytes of a device's name

	// sqlTime bounds the SQL of one request: callers wait for 3 to 5 s.
	sqlTime = 3 * time.Second
	// logEvery bounds how often failing SQL is logged.
	logEvery = time.Second
)

// Server answers requests.
type Server struct {
	store      *store.Store
	applied    *Applied
	partitions int
	log        *slog.Logger
	marks      *Marks
	failed     prometheus.Counter

	mu     sync.Mutex
	logged time.Time
}

// New makes a server of partitions' history.
func New(st *store.Store, applied *Applied, marks *Marks, partitions int, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	s := &Server{store: st, applied: applied, marks: marks, partitions: partitions, log: log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "parley_history_request_sql_errors_total", Help: "Requests that were answered with unavailable because of SQL."})}
	return s, reg.Register(s.failed)
}

// Handlers is what rpc.Serve needs.
func (s *Server) Handlers() []rpc.Handler {
	return []rpc.Handler{
		api.HistoryCatchUp.Handle(limited(s, s.catchUp)),
		api.HistoryPage.Handle(limited(s, s.page)),
		api.HistoryConversations.Handle(limited(s, s.conversations)),
		api.HistoryFind.Handle(limited(s, s.find)),
		api.HistoryRows.Handle(limited(s, s.rows)),
		api.HistoryMessages.Handle(limited(s, s.messages)),
		api.HistoryConfirm.Handle(limited(s, s.confirm)),
		api.HistoryRead.Handle(limited(s, s.read)),
		api.HistoryMarks.Handle(limited(s, s.askMarks)),
	}
}

// limited bounds the time of a request, and turns what SQL says into "unavailable".
func limited[Req, Resp any](s *Server, f func(context.Context, Req) (Resp, error)) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (Resp, error) {
		ctx, cancel := context.WithTimeout(ctx, sqlTime)
		defer cancel()
		resp, err := f(ctx, req)
		var known *wire.Error
		switch {
		case err == nil || errors.As(err, &known):
			return resp, err
		case errors.Is(err, store.ErrCursor):
			return resp, wire.E(wire.InvalidArgument, err.Error())
		}
		s.failed.Inc()
		s.warn(err)
		return resp, rpc.ErrUnavailable
	}
}

func (s *Server) warn(err error) {
	s.mu.Lock()
	due := time.Since(s.logged) > logEvery
	if due {
		s.logged = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("a request could not be answered", "error", err)
	}
}

func invalid(message string) error { return wire.E(wire.InvalidArgument, message) }

var errBehind = wire.E(wire.Unavailable, "history is behind; try again later")

func limit(asked int) int {
	if asked <= 0 {
		return defaultPage
	}
	return min(asked, maxPage)
}

func isRoom(a, b string) bool { return a != "" && a < b }

func (s *Server) catchUp(ctx context.Context, req api.CatchUpRequest) (resp api.CatchUpResponse, err error) {
	if len(req.Items) > maxItems {
		return resp, invalid("at most 200 items")
	}
	rooms := 0
	for i := range req.Items {
		item := &req.Items[i]
		rooms += len(item.Rooms) + len(item.Since)
		if item.User == "" || len(item.Vector) > api.MaxPartitions || len(item.Upto) > api.MaxPartitions || len(item.Device) > maxDevice {
			return resp, invalid("an item has a user and vectors of at most 64 partitions")
		}
	}
	if rooms > maxRooms && len(req.Items) > 1 {
		return resp, invalid("too many rooms in one request")
	}
	there, err := s.applied.Wait(ctx, req.MinApplied)
	if err != nil {
		return resp, err
	}
	if err := s.store.UseDevices(ctx, req.Items, time.Now()); err != nil {
		s.warn(err) // the device is noted the next time
	}
	if resp, err = s.store.CatchUp(ctx, req.Items); err != nil {
		return resp, err
	}
	resp.Behind = !there
	return resp, nil
}

func (s *Server) page(ctx context.Context, req api.PageRequest) (resp api.PageResponse, err error) {
	if !isRoom(req.A, req.B) {
		return resp, invalid(room.ErrRoom.Error())
	}
	if req.Before < 0 || req.After != nil && *req.After < 0 || req.Before != 0 && req.After != nil {
		return resp, invalid("at most one of before and after, not below 0")
	}
	req.Limit = limit(req.Limit)
	// Only what the page can show: older pages are complete however far behind SQL is.
	p := subject.Partition(room.Room{A: req.A, B: req.B}, s.partitions)
	want := make([]int64, p+1)
	if p < len(req.MinApplied) {
		want[p] = req.MinApplied[p]
	}
	if req.Before > 0 {
		want[p] = min(want[p], req.Before-1)
	}
	there, err := s.applied.Wait(ctx, want)
	if err != nil {
		return resp, err
	}
	if resp, err = s.store.Page(ctx, req); err != nil {
		return resp, err
	}
	resp.Behind = !there
	resp.More = resp.More || resp.Behind && req.After != nil
	return resp, nil
}

func (s *Server) conversations(ctx context.Context, req api.ConversationsRequest) (resp api.ConversationsPage, err error) {
	if req.Username == "" {
		return resp, invalid("username is missing")
	}
	req.Limit = limit(req.Limit)
	there, err := s.applied.Wait(ctx, req.MinApplied)
	if err != nil {
		return resp, err
	}
	resp, err = s.store.Conversations(ctx, req)
	resp.Behind = !there
	return resp, err
}

func (s *Server) find(ctx context.Context, req api.FindRequest) (resp api.FindResponse, err error) {
	if req.Sender == "" || req.ID == "" || req.P < 0 || req.P >= s.partitions {
		return resp, invalid("sender, id and a partition are needed")
	}
	if resp.Message, err = s.store.Find(ctx, req.Sender, req.ID); err != nil || resp.Message != nil {
		return resp, err
	}
	want := make([]int64, req.P+1)
	want[req.P] = req.MinApplied
	// Read once more also when SQL is far enough by now: it may have got there after the first look.
	there, err := s.applied.Wait(ctx, want)
	if err != nil {
		return resp, err
	}
	if resp.Message, err = s.store.Find(ctx, req.Sender, req.ID); err != nil || resp.Message != nil {
		return resp, err
	}
	if !there {
		return resp, errBehind
	}
	return resp, nil
}

func (s *Server) rows(ctx context.Context, req api.RowsRequest) (resp api.RowsResponse, err error) {
	if req.P < 0 || req.P >= s.partitions || req.From < 0 || req.To < req.From {
		return resp, invalid("a partition and a range are needed")
	}
	return s.store.Rows(ctx, req)
}

func (s *Server) messages(ctx context.Context, req api.MessagesRequest) (resp api.MessagesResponse, err error) {
	if req.P < 0 || req.P >= s.partitions || len(req.Seqs) > maxSeqs {
		return resp, invalid("a partition and at most 500 seqs are needed")
	}
	for _, seq := range req.Seqs {
		if seq < 0 || seq >= 1<<53 {
			return resp, invalid("a seq is between 0 and 2^53")
		}
	}
	return s.store.Messages(ctx, req)
}

func (s *Server) confirm(ctx context.Context, req api.ConfirmRequest) (resp api.Empty, err error) {
	if len(req.Items) > maxConfirms {
		return resp, invalid("at most 1,000 items")
	}
	for i := range req.Items {
		c := &req.Items[i]
		if !isRoom(c.A, c.B) || c.User != c.A && c.User != c.B || c.Seq < 0 || len(c.Device) > maxDevice {
			return resp, invalid("an item has one of the room's two users and a seq")
		}
	}
	moved, err := s.store.Confirm(ctx, req.Items, time.Now())
	if err != nil {
		s.marks.Unsure()
	}
	s.marks.Moved(moved...)
	return resp, err
}

func (s *Server) read(ctx context.Context, req api.ReadRequest) (resp api.ReadResponse, err error) {
	if !isRoom(req.A, req.B) || req.User != req.A && req.User != req.B || req.Seq < 0 || req.Seq >= 1<<53 {
		return resp, invalid("one of the room's two users and a seq are needed")
	}
	// What was read live may not be in SQL yet. Waiting for it keeps the marker from stopping short of it.
	behind := false
	rm := room.Room{A: req.A, B: req.B}
	p, last, ok, err := s.store.LastSeq(ctx, rm)
	if err != nil {
		return resp, err
	}
	if !ok || req.Seq > last {
		if !ok {
			p = subject.Partition(rm, s.partitions)
		}
		want := make([]int64, p+1)
		want[p] = req.Seq
		there, err := s.applied.Wait(ctx, want)
		if err != nil {
			return resp, err
		}
		behind = !there
	}
	resp, err = s.store.Read(ctx, req)
	resp.Behind = behind
	switch {
	case err != nil:
		s.marks.Unsure()
	case resp.Moved:
		s.marks.Moved(api.Mark{User: req.User, Peer: rm.Peer(req.User), Read: resp.Seq, Session: req.Session})
	}
	return resp, err
}

// longestAge is more than any gateway asks for.
const longestAge = 7 * 24 * time.Hour

func (s *Server) askMarks(ctx context.Context, req api.MarksRequest) (api.MarksResponse, error) {
	age := time.Duration(req.AgeMS) * time.Millisecond
	if len(req.Pairs) > store.MaxPairs || req.AgeMS < 0 || age > longestAge {
		return api.MarksResponse{}, invalid("at most 1,000 rooms, or an age of at most a week")
	}
	if len(req.Pairs) > 0 {
		return s.store.MarksOf(ctx, req.Pairs)
	}
	return s.store.Marks(ctx, age, req.Cont)
}
