// Package sessiontest is the world around sessions, for the tests of sessions and of the rooms of their protocols.
package sessiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/access"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/router"
)

const Partitions = 2

// World is everything around sessions: a stream per partition, what SQL has of it, what was confirmed; tokens; who is there, and what presence is
// told. The exported fields are the test's to change, under Mu once something runs.
type World struct {
	T         *testing.T
	Ctx       context.Context
	Registry  *prometheus.Registry
	Router    *router.Router
	CatchUps  *bus.CatchUps
	Confirmer *bus.Confirmer

	Mu              sync.Mutex
	Streams         [Partitions][]api.StoredMessage // seq = index + 1
	Applied         [Partitions]int64
	announced       [Partitions]int64
	copies          chan *bus.Raw
	Down            bool
	Deaf            bool          // history answers no catch-ups
	Delay           time.Duration // of catch-up answers
	Page            int           // messages an answer holds
	HistoryPatience int           // ms that history waits for SQL
	Confirmed       map[string]int64
	Seqs            map[room.Room]int64 // the youngest of each room
	Blocked         map[string]bool     // user+peer: does not see what the peer does
	People
}

// People is the part of a World that is about tokens and presence, and what was told.
type People struct {
	Confirms int
	Notices  []api.Ephemeral
	Last     api.Confirm
	Tokens   map[string]token.Claims
	Ended    map[string]bool // revoked, by SID
	Away     bool            // auth's keys have not been read
	Logouts  chan api.LogoutRequest
	Locked   bool     // everybody is disabled
	Large    bool     // the directory
	Silent   bool     // auth answers no question about a name
	Contacts []string // of everybody, in a roster; nil: no roster
	There    []string // online
	Said     []string // to presence
}

// New makes a world, which ends with the test.
func New(t *testing.T) *World {
	t.Helper()
	w := &World{
		T: t, Page: 1000, HistoryPatience: 200, Confirmed: map[string]int64{}, Seqs: map[room.Room]int64{}, People: People{Tokens: map[string]token.Claims{}, Ended: map[string]bool{}, Logouts: make(chan api.LogoutRequest, 10)},
		Registry: prometheus.NewRegistry(), copies: make(chan *bus.Raw, 16384),
	}
	w.Router = router.New(w, w.Services(), testx.Logger(t), w.Registry)
	w.Router.Prime(make([]int64, Partitions))
	w.CatchUps = bus.NewCatchUps(w.catchUp)
	w.Confirmer = bus.NewConfirmer(w.confirm, testx.Logger(t), w.Registry)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = w.Router.Run(ctx); done <- struct{}{} }()
	go func() { _ = w.Confirmer.Run(ctx); done <- struct{}{} }()
	w.Ctx = ctx
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
	})
	return w
}

// The parts of the gateway that sessions ask.
func (w *World) Copies() <-chan *bus.Raw    { return w.copies }
func (w *World) SubscribeUser(string) error { return nil }
func (w *World) UnsubscribeUser(string)     {}
func (w *World) askRows(_ context.Context, req api.RowsRequest) (resp api.RowsResponse, err error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Down {
		return resp, errors.New("down")
	}
	resp.To = min(req.To, w.Applied[req.P])
	resp.Rows = w.rows(req.P, req.From, resp.To)
	return resp, nil
}
func (w *World) askMessages(_ context.Context, req api.MessagesRequest) (resp api.MessagesResponse, err error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Down {
		return resp, errors.New("down")
	}
	for _, seq := range req.Seqs {
		resp.Messages = append(resp.Messages, w.Streams[req.P][seq-1])
	}
	return resp, nil
}
func (w *World) Sees(user, peer string) (ok, sure bool) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return !w.Blocked[user+peer], true
}

// Services are those that sessions and the router ask; of two handlers of a request the one in more answers.
func (w *World) Services(more ...rpc.Handler) rpc.Caller {
	return rpc.Caller{Timeout: time.Minute, Conn: rpc.Local(append([]rpc.Handler{
		api.HistoryRows.Handle(w.askRows), api.HistoryMessages.Handle(w.askMessages), api.HistoryPage.Handle(w.page),
		api.AuthRelations.Handle(func(context.Context, api.RelationsRequest) (r api.Relations, err error) { return r, nil }),
		api.AuthLogout.Handle(func(_ context.Context, r api.LogoutRequest) (api.Empty, error) {
			w.Logouts <- r
			return api.Empty{}, nil
		}),
	}, more...)...)}
}

// page is history as far as it is asked whether there is a room.
func (w *World) page(_ context.Context, req api.PageRequest) (resp api.PageResponse, err error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Seqs[room.Room{A: req.A, B: req.B}] > 0 {
		resp.Messages = []api.StoredMessage{{}}
	}
	return resp, nil
}

func (w *World) Acquire(string)                              {}
func (w *World) Release(string)                              {}
func (w *World) Unwatch(presence.Watcher)                    {}
func (w *World) LastSeq(context.Context, int) (int64, error) { return 0, nil }
func (w *World) Notify(_ room.Room, e api.Ephemeral) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Notices = append(w.Notices, e)
}

// confirm and catchUp are history.
func (w *World) confirm(_ context.Context, req api.ConfirmRequest) (resp api.Empty, err error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Down {
		return resp, errors.New("down")
	}
	for _, i := range req.Items {
		k := i.User + " " + i.A + "&" + i.B
		w.Confirmed[k] = max(w.Confirmed[k], i.Seq)
		w.Confirms, w.Last = w.Confirms+1, i
	}
	return resp, nil
}

func (w *World) catchUp(ctx context.Context, req api.CatchUpRequest) (resp api.CatchUpResponse, err error) {
	w.Mu.Lock()
	delay := w.Delay
	w.Mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(rand.N(delay)):
		case <-ctx.Done():
		}
	}
	reached := func() bool {
		w.Mu.Lock()
		defer w.Mu.Unlock()
		for p, v := range req.MinApplied {
			if w.Applied[p] < v {
				return w.Down
			}
		}
		return true
	}
	for i := 0; i < w.HistoryPatience && !reached(); i++ {
		time.Sleep(time.Millisecond) // polling interval
	}
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Down || w.Deaf {
		return resp, rpc.ErrUnavailable
	}
	resp.Applied = slices.Clone(w.Applied[:])
	for p, v := range req.MinApplied {
		if w.Applied[p] < v {
			resp.Behind = true
		}
	}
	for _, item := range req.Items {
		resp.Results = append(resp.Results, w.missed(item))
	}
	return resp, nil
}

func (w *World) missed(item api.CatchUpItem) (res api.CatchUpResult) {
	var skip int
	fmt.Sscan(item.Cont, &skip)
	n := 0
	begin := slices.Clone(item.Upto)
	cut := false
	if item.Begin {
		res.Begin = begin
	}
	for p := range w.Streams {
		list := w.Streams[p]
		if item.Vector != nil && item.Since == nil {
			list = list[min(item.Vector[p], int64(len(list))):]
		}
		for _, m := range list {
			rm := room.Room{A: m.A, B: m.B}
			if !rm.Has(item.User) || m.Seq > w.Applied[p] || item.Upto != nil && m.Seq > item.Upto[p] {
				continue
			}
			if item.Rooms != nil && !has(item.Rooms, rm.String()) {
				continue
			}
			from := w.Confirmed[item.User+" "+rm.String()]
			if item.Vector != nil {
				from = item.Vector[p]
			}
			if s, ok := item.Since[rm.String()]; ok {
				from = s
			}
			if m.Seq <= from {
				continue
			}
			begin[p] = min(begin[p], m.Seq-1)
			if n++; n <= skip {
				continue
			}
			if cut = cut || len(res.Messages) == w.Page; cut {
				if res.Cont == "" {
					res.Cont = fmt.Sprint(n - 1)
				}
				continue
			}
			res.Messages = append(res.Messages, m)
		}
	}
	return res
}

func has(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (w *World) rows(p int, from, to int64) (out []api.Row) {
	for _, m := range w.Streams[p][from:to] {
		out = append(out, api.Row{A: m.A, B: m.B, Seq: m.Seq})
	}
	return out
}

// say stores a message; live says whether its copy reaches this gateway.
func (w *World) Say(rm room.Room, sender string, live bool) api.StoredMessage {
	p := subject.Partition(rm, Partitions)
	w.Mu.Lock()
	seq := int64(len(w.Streams[p]) + 1)
	prev := w.Seqs[rm]
	w.Seqs[rm] = seq
	m := api.StoredMessage{P: p, Seq: seq, A: rm.A, B: rm.B, Sender: sender, ID: fmt.Sprintf("%d-%d", p, seq), Content: "c", Prev: &prev, SentAt: 1}
	w.Streams[p] = append(w.Streams[p], m)
	w.Mu.Unlock()
	if live {
		body, _ := json.Marshal(api.StoredPayload{V: 1, Sender: sender, ID: m.ID, Content: m.Content})
		select {
		case w.copies <- bus.NewRaw(rm, p, seq, prev, time.Now(), body):
		case <-w.Ctx.Done():
		}
	}
	return m
}

// apply moves SQL forward by at most n messages a partition and announces it, unless the announcement is lost.
func (w *World) Apply(n int64, lost bool) {
	for p := range Partitions {
		w.Mu.Lock()
		if w.Down {
			w.Mu.Unlock()
			return
		}
		w.Applied[p] = min(w.Applied[p]+n, int64(len(w.Streams[p])))
		a := api.Applied{P: p, From: w.announced[p], To: w.Applied[p], Rows: w.rows(p, w.announced[p], w.Applied[p])}
		w.announced[p] = a.To
		w.Mu.Unlock()
		if b, _ := json.Marshal(a); !lost {
			w.Router.Applied(b)
		}
	}
}

// login gives a token of a new login. Its scope is that of the old clients' /log_in.
func (w *World) Login(user string) string { return w.Token(user, token.ScopeLegacy) }

func (w *World) Token(user, scope string) string {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	tok := fmt.Sprint("token-", len(w.Tokens))
	w.Tokens[tok] = token.Claims{Username: user, SID: "sid-" + tok, Scope: scope, Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
	return tok
}

// Revoke is what auth does; the hub has to be told.
func (w *World) Revoke(tok string) {
	w.Mu.Lock()
	sid := w.Tokens[tok].SID
	w.Ended[sid] = true
	w.Mu.Unlock()
}

func (w *World) Verify(tok string, _ time.Time) (token.Claims, error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	c, ok := w.Tokens[tok]
	switch {
	case w.Away:
		return token.Claims{}, rpc.ErrUnavailable
	case !ok:
		return token.Claims{}, token.ErrInvalid
	case w.Ended[c.SID]:
		return token.Claims{}, access.ErrRevoked
	}
	return c, nil
}
func (w *World) Disabled(string) bool { return w.Locked }

func (w *World) Revoked(c token.Claims) bool {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.Ended[c.SID]
}

// Authorize implements session.Directory.
func (w *World) Authorize(_ context.Context, _, name string) (string, error) {
	w.Mu.Lock()
	silent := w.Silent
	w.Mu.Unlock()
	switch {
	case silent:
		return "", rpc.ErrUnavailable
	case name == "away":
		return "", errors.New("auth cannot be reached")
	case name == "nobody":
		return "", wire.E(wire.UnknownUser, "nobody has this name")
	}
	return name, nil
}

// Recall implements session.Directory.
func (w *World) Recall(ctx context.Context, name string) (registered string, gone bool, err error) {
	if _, err := w.Authorize(ctx, "", name); err != nil && wire.AsError(err).Code != wire.UnknownUser {
		return "", false, err
	}
	switch {
	case strings.EqualFold(name, "erased"):
		return "erased", true, nil
	case strings.EqualFold(name, "nobody"):
		return name, true, nil
	}
	return name, false, nil
}
func (w *World) SmallDirectory() ([]string, bool) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return nil, !w.Large
}
func (w *World) Sight(string) directory.Sight {
	return directory.Sight{Mode: w.Mode(), Contacts: w.Contacts}
}

func (w *World) Mode() api.Mode {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Contacts != nil {
		return api.Roster
	}
	return api.Everyone
}
func (w *World) tell(format string, args ...any) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Said = append(w.Said, fmt.Sprintf(format, args...))
}
func (w *World) Online(_ uint64, user string) { w.tell("online %s", user) }
func (w *World) Gone(_ uint64, user string, deliberate bool) {
	w.tell("gone %s %v", user, deliberate)
}

// Watch tells who is there, as presence does.
func (w *World) Watch(s presence.Watcher, self string, names, hidden []string) {
	w.Mu.Lock()
	var online []string
	for _, u := range w.There {
		if u != self && !slices.Contains(hidden, u) && (names == nil || slices.Contains(names, u)) {
			online = append(online, u)
		}
	}
	list := "everybody"
	if names != nil {
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		list = strings.Join(names, " ")
	}
	w.Said = append(w.Said, "watch "+list)
	w.Mu.Unlock()
	s.PresenceUpdate(online, nil, false, true, names != nil)
}

// heard takes what presence was told.
func (w *World) Heard() []string {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	out := w.Said
	w.Said = nil
	return out
}

var (
	AvisLisa = room.Room{A: "Avi", B: "Lisa"}
	ErasLisa = room.Room{A: "Era", B: "Lisa"}
	Everyone = wire.Join{Rooms: wire.RoomList{All: true}}
)

// verify checks that l has got every message of user above since exactly once, and each room in order but for late ones.
func (w *World) Delivered(l *Wire, user string, since map[room.Room]int64, rooms ...room.Room) {
	w.T.Helper()
	want := map[string]bool{}
	w.Mu.Lock()
	for p := range w.Streams {
		for _, m := range w.Streams[p] {
			rm := room.Room{A: m.A, B: m.B}
			ok := len(rooms) == 0
			for _, r := range rooms {
				ok = ok || r == rm
			}
			if rm.Has(user) && m.Seq > since[rm] && ok {
				want[m.ID] = true
			}
		}
	}
	w.Mu.Unlock()
	testx.Eventually(w.T, "all messages arrive", 10*time.Second, func() bool {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		n := 0
		for _, m := range l.Messages {
			if want[m.ID] {
				n++
			}
		}
		return n >= len(want)
	})
	l.Mu.Lock()
	defer l.Mu.Unlock()
	got := map[string]bool{}
	last := map[string]int64{}
	for _, m := range l.Messages {
		if got[m.ID] {
			w.T.Fatalf("twice: %+v", m)
		}
		got[m.ID] = true
		if !want[m.ID] {
			// A live copy that reaches this gateway after a client that has seen the message elsewhere.
			if rm, _ := room.Parse(m.Room); rm.Has(user) && m.Seq <= since[rm] {
				delete(got, m.ID)
				continue
			}
			w.T.Fatalf("unexpected: %+v", m)
		}
		if m.Seq < last[m.Room] && !m.Late {
			w.T.Fatalf("out of order and not late: %+v after %d", m, last[m.Room])
		}
		last[m.Room] = max(last[m.Room], m.Seq)
	}
	if len(got) != len(want) {
		w.T.Fatalf("got %d of %d", len(got), len(want))
	}
}

func (w *World) SetDeaf(deaf bool) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Deaf = deaf
}

func (w *World) ConfirmedOf(user string, rm room.Room) int64 {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.Confirmed[user+" "+rm.String()]
}

// checked waits until the router knows of all messages of the room's partition.
func (w *World) Checked(rm room.Room) {
	w.T.Helper()
	w.Apply(1<<40, false)
	p := subject.Partition(rm, Partitions)
	w.Mu.Lock()
	n := int64(len(w.Streams[p]))
	w.Mu.Unlock()
	testx.Eventually(w.T, "the router has checked", 10*time.Second, func() bool { return w.Router.VerifiedAt(p) == n })
}

func (w *World) Block(user, peer string) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.Blocked == nil {
		w.Blocked = map[string]bool{}
	}
	w.Blocked[user+peer], w.Blocked[peer+user] = true, true
}

// New implements session.Publisher.
func (w *World) New(m bus.Publication) *bus.Publication { return new(bus.Publisher).New(m) }

// Publish implements session.Publisher: what Say has stored is acknowledged, and of nothing else the outcome is known.
func (w *World) Publish(p *bus.Publication) {
	w.Mu.Lock()
	list := w.Streams[p.P]
	w.Mu.Unlock()
	for i := range list {
		if list[i].ID == p.ID {
			p.Done(&router.FromStored(&list[i]).Message, nil)
			return
		}
	}
	p.Done(nil, bus.ErrUnknown)
}
