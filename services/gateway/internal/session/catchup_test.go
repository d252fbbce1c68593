package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
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
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/presence"
	"parley.example/services/gateway/internal/router"
)

func TestMain(m *testing.M) { testx.Main(m) }

const partitions = 2

// world is everything around sessions: a stream per partition, what SQL has of it, what was confirmed.
type world struct {
	t      *testing.T
	ctx    context.Context
	opened []*Session
	hub    *Hub
	router *router.Router

	mu        sync.Mutex
	streams   [partitions][]api.StoredMessage // seq = index + 1
	applied   [partitions]int64
	announced [partitions]int64
	down      bool
	deaf      bool          // history answers no catch-ups
	delay     time.Duration // of catch-up answers
	page      int           // messages an answer holds
	confirmed map[string]int64
	confirms  int
	notices   []api.Ephemeral
	last      api.Confirm
	lastSeq   map[room.Room]int64
	blocked   map[string]bool // user+peer: does not see what the peer does
}

func newWorld(t *testing.T, cfg func(*Config)) *world {
	t.Helper()
	w := &world{t: t, page: 1000, confirmed: map[string]int64{}, lastSeq: map[room.Room]int64{}}
	reg := prometheus.NewRegistry()
	w.router = router.New(w, testx.Logger(t), reg)
	w.router.Prime(make([]int64, partitions))
	c := Config{FrameBytes: 65536, ContentBytes: 16384, MessagesPerMinute: 600, MessageBurst: 300, FramesPerSecond: 100, Heartbeat: 25 * time.Second,
		AuthTimeout: 10 * time.Second, UserConnections: 1000, CatchUpPatience: 20 * time.Second, TokenGrace: time.Hour}
	if cfg != nil {
		cfg(&c)
	}
	w.hub = NewHub(c, Deps{
		Log: testx.Logger(t), Registry: reg, Router: w.router, CatchUps: bus.NewCatchUps(w.catchUp),
		Confirmer: bus.NewConfirmer(w.confirm, testx.Logger(t), reg), Bus: w, Directory: w, Presence: w, Auth: w, History: pages{w: w},
		Places: Places{Total: 1000, PerAddress: 1000, Address: func(*http.Request) netip.Addr { return netip.Addr{} }},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = w.router.Run(ctx); done <- struct{}{} }()
	go func() { _ = w.hub.Confirmer.Run(ctx); done <- struct{}{} }()
	w.ctx = ctx
	t.Cleanup(func() {
		for _, s := range w.opened { // those that a failed test left
			s.cancel()
		}
		cancel()
		<-done
		<-done
		w.hub.Wait(context.Background())
	})
	return w
}

// The parts of the gateway that sessions ask.
func (w *world) SubscribeUser(string) error { return nil }
func (w *world) UnsubscribeUser(string)     {}
func (w *world) Rows(_ context.Context, req api.RowsRequest) (resp api.RowsResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return resp, errors.New("down")
	}
	resp.To = min(req.To, w.applied[req.P])
	resp.Rows = w.rows(req.P, req.From, resp.To)
	return resp, nil
}
func (w *world) Messages(_ context.Context, req api.MessagesRequest) (resp api.MessagesResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return resp, errors.New("down")
	}
	for _, seq := range req.Seqs {
		resp.Messages = append(resp.Messages, w.streams[req.P][seq-1])
	}
	return resp, nil
}
func (w *world) Peer(_ context.Context, user, name string) (string, error) {
	if name == "nobody" {
		return "", wire.E(wire.UnknownUser, "nobody has this name")
	}
	return name, nil
}
func (w *world) Recall(_ context.Context, name string) (registered string, gone bool, err error) {
	switch {
	case strings.EqualFold(name, "erased"):
		return "erased", true, nil
	case strings.EqualFold(name, "nobody"):
		return name, true, nil
	}
	return name, false, nil
}
func (w *world) Sees(user, peer string) (ok, sure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.blocked[user+peer], true
}

// pages is history as far as it is asked whether there is a room.
type pages struct {
	History
	w *world
}

func (h pages) HistoryPage(_ context.Context, req api.PageRequest) (resp api.PageResponse, err error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.w.lastSeq[room.Room{A: req.A, B: req.B}] > 0 {
		resp.Messages = []api.StoredMessage{{}}
	}
	return resp, nil
}

func (w *world) Acquire(string)                                     {}
func (w *world) Release(string)                                     {}
func (w *world) SmallDirectory() ([]string, bool)                   { return nil, true }
func (w *world) Sight(string) directory.Sight                       { return directory.Sight{Mode: api.Everyone} }
func (w *world) Mode() api.Mode                                     { return api.Everyone }
func (w *world) Online(uint64, string)                              {}
func (w *world) Gone(uint64, string, bool)                          {}
func (w *world) Watch(presence.Watcher, string, []string, []string) {}
func (w *world) Unwatch(presence.Watcher)                           {}
func (w *world) LastSeq(context.Context, int) (int64, error)        { return 0, nil }
func (w *world) Notify(_ room.Room, e api.Ephemeral) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notices = append(w.notices, e)
}
func (w *world) AuthLogout(context.Context, api.LogoutRequest) error { return nil }
func (w *world) AuthRelations(context.Context, api.RelationsRequest) (api.Relations, error) {
	return api.Relations{}, nil
}

// confirm and catchUp are history.
func (w *world) confirm(_ context.Context, req api.ConfirmRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return errors.New("down")
	}
	for _, i := range req.Items {
		k := i.User + " " + i.A + "&" + i.B
		w.confirmed[k] = max(w.confirmed[k], i.Seq)
		w.confirms, w.last = w.confirms+1, i
	}
	return nil
}

func (w *world) catchUp(ctx context.Context, req api.CatchUpRequest) (resp api.CatchUpResponse, err error) {
	w.mu.Lock()
	delay := w.delay
	w.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(rand.N(delay)):
		case <-ctx.Done():
		}
	}
	reached := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for p, v := range req.MinApplied {
			if w.applied[p] < v {
				return w.down
			}
		}
		return true
	}
	for i := 0; i < 200 && !reached(); i++ { // the service's patience
		time.Sleep(time.Millisecond) // polling interval
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down || w.deaf {
		return resp, rpc.ErrUnavailable
	}
	resp.Applied = w.applied[:]
	for p, v := range req.MinApplied {
		if w.applied[p] < v {
			resp.Behind = true
		}
	}
	for _, item := range req.Items {
		resp.Results = append(resp.Results, w.missed(item))
	}
	return resp, nil
}

func (w *world) missed(item api.CatchUpItem) (res api.CatchUpResult) {
	var skip int
	fmt.Sscan(item.Cont, &skip)
	n := 0
	begin := slices.Clone(item.Upto)
	cut := false
	if item.Begin {
		res.Begin = begin
	}
	for p := range w.streams {
		list := w.streams[p]
		if item.Vector != nil && item.Since == nil {
			list = list[min(item.Vector[p], int64(len(list))):]
		}
		for _, m := range list {
			rm := room.Room{A: m.A, B: m.B}
			if !rm.Has(item.User) || m.Seq > w.applied[p] || item.Upto != nil && m.Seq > item.Upto[p] {
				continue
			}
			if item.Rooms != nil && !has(item.Rooms, rm.String()) {
				continue
			}
			from := w.confirmed[item.User+" "+rm.String()]
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
			if cut = cut || len(res.Messages) == w.page; cut {
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

func (w *world) rows(p int, from, to int64) (out []api.Row) {
	for _, m := range w.streams[p][from:to] {
		out = append(out, api.Row{A: m.A, B: m.B, Seq: m.Seq})
	}
	return out
}

// say stores a message; live says whether its copy reaches this gateway.
func (w *world) say(rm room.Room, sender string, live bool) api.StoredMessage {
	p := subject.Partition(rm, partitions)
	w.mu.Lock()
	seq := int64(len(w.streams[p]) + 1)
	prev := w.lastSeq[rm]
	w.lastSeq[rm] = seq
	m := api.StoredMessage{P: p, Seq: seq, A: rm.A, B: rm.B, Sender: sender, ID: fmt.Sprintf("%d-%d", p, seq), Content: "c", Prev: &prev, SentAt: 1}
	w.streams[p] = append(w.streams[p], m)
	w.mu.Unlock()
	if live {
		body, _ := json.Marshal(api.StoredPayload{V: 1, Sender: sender, ID: m.ID, Content: m.Content})
		select {
		case w.router.Copies() <- bus.Copy{Subject: subject.Deliver(rm), Body: body, Stream: subject.Stream(p), Seq: seq, LastSeq: prev, Time: time.Now()}:
		case <-w.ctx.Done():
		}
	}
	return m
}

// apply moves SQL forward by at most n messages a partition and announces it, unless the announcement is lost.
func (w *world) apply(n int64, lost bool) {
	for p := range partitions {
		w.mu.Lock()
		if w.down {
			w.mu.Unlock()
			return
		}
		w.applied[p] = min(w.applied[p]+n, int64(len(w.streams[p])))
		a := api.Applied{P: p, From: w.announced[p], To: w.applied[p], Rows: w.rows(p, w.announced[p], w.applied[p])}
		w.announced[p] = a.To
		w.mu.Unlock()
		if b, _ := json.Marshal(a); !lost {
			w.router.Applied(b)
		}
	}
}

// wireLog is a Wire that remembers.
type wireLog struct {
	mu         sync.Mutex
	messages   []wire.Message
	events     []string
	marks      []wire.Marker
	markEvents []string // of marks
	resume     string
	begins     []string // of catching_up
	beginAt    []int    // and how many messages had come then
	acks       []wire.Ack
	errors     []wire.Code
	closed     *wire.Close
	probes     []uint32
	rx         int64
	echoes     bool
	caught     chan struct{}
}

func newWireLog() *wireLog { return &wireLog{rx: time.Now().Unix(), caught: make(chan struct{}, 1000)} }

func (l *wireLog) Send(event string, data any, _ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event)
	if m, ok := data.(wire.Marker); ok {
		l.marks, l.markEvents = append(l.marks, m), append(l.markEvents, event)
	}
	if c, ok := data.(wire.CatchingUp); ok {
		l.begins = append(l.begins, c.Resume)
		l.beginAt = append(l.beginAt, len(l.messages))
	}
	if a, ok := data.(wire.Ack); ok {
		l.acks = append(l.acks, a)
	}
	if e, ok := data.(*wire.Error); ok {
		l.errors = append(l.errors, e.Code)
	}
	if c, ok := data.(wire.CaughtUp); ok {
		l.resume = c.Resume
		l.caught <- struct{}{}
	}
	if a, ok := data.(wire.Ack); ok && a.Resume != "" {
		l.resume = a.Resume
	}
}
func (l *wireLog) SendMessage(d *router.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, d.Message)
}
func (l *wireLog) Probe(n uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.probes = append(l.probes, n)
}
func (l *wireLog) Beats() bool         { return false }
func (l *wireLog) Echoes() bool        { return l.echoes }
func (l *wireLog) LastReceived() int64 { return l.rx }
func (l *wireLog) JoinSent(s *Session, r room.Room) error {
	return s.joinSent(r)
}
func (l *wireLog) Close(why wire.Close)       { l.mu.Lock(); defer l.mu.Unlock(); l.closed = &why }
func (l *wireLog) Wait(context.Context) error { return nil }

func (w *world) open(user string) (*Session, *wireLog) {
	w.t.Helper()
	l := newWireLog()
	s, err := w.hub.open(l, token.Claims{Username: user, SID: "x", Expires: time.Now().Add(time.Hour)}, false)
	if err != nil {
		w.t.Fatal(err)
	}
	w.opened = append(w.opened, s)
	return s, l
}

func (l *wireLog) waitCaughtUp(t *testing.T) {
	t.Helper()
	select {
	case <-l.caught:
	case <-time.After(30 * time.Second):
		t.Fatal("never caught up")
	}
}

var (
	avisLisa = room.Room{A: "Avi", B: "Lisa"}
	erasLisa = room.Room{A: "Era", B: "Lisa"}
	everyone = wire.Join{Rooms: wire.RoomList{All: true}}
)

// verify checks that l has got every message of user above since exactly once, and each room in order but for late ones.
func (w *world) verify(l *wireLog, user string, since map[room.Room]int64, rooms ...room.Room) {
	w.t.Helper()
	want := map[string]bool{}
	w.mu.Lock()
	for p := range w.streams {
		for _, m := range w.streams[p] {
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
	w.mu.Unlock()
	testx.Eventually(w.t, "all messages arrive", 10*time.Second, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for _, m := range l.messages {
			if want[m.ID] {
				n++
			}
		}
		return n >= len(want)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	got := map[string]bool{}
	last := map[string]int64{}
	for _, m := range l.messages {
		if got[m.ID] {
			w.t.Fatalf("twice: %+v", m)
		}
		got[m.ID] = true
		if !want[m.ID] {
			// A live copy that reaches this gateway after a client that has seen the message elsewhere.
			if rm, _ := room.Parse(m.Room); rm.Has(user) && m.Seq <= since[rm] {
				delete(got, m.ID)
				continue
			}
			w.t.Fatalf("unexpected: %+v", m)
		}
		if m.Seq < last[m.Room] && !m.Late {
			w.t.Fatalf("out of order and not late: %+v after %d", m, last[m.Room])
		}
		last[m.Room] = max(last[m.Room], m.Seq)
	}
	if len(got) != len(want) {
		w.t.Fatalf("got %d of %d", len(got), len(want))
	}
}

func TestJoinGetsWhatWasMissedThenLive(t *testing.T) {
	w := newWorld(t, nil)
	w.page = 7
	for range 100 {
		w.say(avisLisa, "Avi", true)
		w.say(erasLisa, "Era", true)
	}
	w.apply(1000, false)
	s, l := w.open("Lisa")
	defer s.gone(true)
	if err := s.Join(everyone, ""); err != nil {
		t.Fatal(err)
	}
	l.waitCaughtUp(t)
	for range 10 {
		w.say(avisLisa, "Avi", true)
	}
	w.verify(l, "Lisa", nil)
}

// TestJoinsWhileEverythingMoves is the property: whatever is live, lost, late or slow, each session gets each message once, in order but for late
// ones.
func TestJoinsWhileEverythingMoves(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience time.Duration
		delay    time.Duration
	}{
		{"history is quick", 20 * time.Second, 0},
		{"history is slow", 20 * time.Second, 20 * time.Millisecond},
		{"history is slower than joins wait", 5 * time.Millisecond, 40 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.CatchUpPatience = c.patience })
			w.page, w.delay = 300, c.delay
			end := w.talk()
			type joined struct {
				s     *Session
				l     *wireLog
				rooms []room.Room
				since map[room.Room]int64
			}
			var all []joined
			for i := range 40 {
				s, l := w.open("Lisa")
				j := joined{s: s, l: l}
				req := everyone
				if i%3 == 1 {
					req = wire.Join{Room: "Lisa&Avi"}
					j.rooms = []room.Room{avisLisa}
				}
				if i%3 == 2 { // a client that comes back
					w.mu.Lock()
					j.since = map[room.Room]int64{avisLisa: w.lastSeq[avisLisa] / 2, erasLisa: w.lastSeq[erasLisa]}
					w.mu.Unlock()
					req.Since = map[string]int64{"Avi&Lisa": j.since[avisLisa], "Era&Lisa": j.since[erasLisa]}
				}
				if err := s.Join(req, ""); err != nil {
					t.Fatal(err)
				}
				all = append(all, j)
				if i%2 == 0 {
					l.waitCaughtUp(t)
				}
			}
			end()
			w.mu.Lock()
			w.down = false
			w.mu.Unlock()
			defer w.settle()()
			for _, j := range all {
				w.verify(j.l, "Lisa", j.since, j.rooms...)
				j.s.gone(true)
			}
		})
	}
}

func TestResumeTokenContinuesWhereItStood(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	_ = s.Join(everyone, "")
	l.waitCaughtUp(t)
	for range 10 {
		w.say(avisLisa, "Avi", true)
	}
	w.verify(l, "Lisa", nil)
	w.apply(1000, false)
	testx.Eventually(t, "the router has checked", 10*time.Second, func() bool { return w.router.CheckedAt(subject.Partition(avisLisa, partitions)) == 10 })
	s.Alive("1")
	tok := l.resume
	s.gone(false)
	for range 5 {
		w.say(avisLisa, "Avi", true)
	}
	w.apply(1000, false)
	s2, l2 := w.open("Lisa")
	defer s2.gone(true)
	if err := s2.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: tok}, ""); err != nil {
		t.Fatal(err)
	}
	l2.waitCaughtUp(t)
	w.verify(l2, "Lisa", map[room.Room]int64{avisLisa: 10})
	for _, bad := range []string{"x", "AQ", "AQEB", tok + "AA", "\x00"} {
		if err := s2.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: bad}, ""); !errors.Is(err, errResume) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
}

func TestHistoryAwayMakesItLate(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
	var last api.StoredMessage
	for range 5 {
		last = w.say(avisLisa, "Avi", true)
	}
	testx.Eventually(t, "the gateway knows of all", 10*time.Second, func() bool { return w.router.Position()[last.P] == last.Seq })
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	testx.Eventually(t, "the session is live", 10*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.floor != nil })
	w.say(avisLisa, "Avi", true)
	testx.Eventually(t, "the live one comes", 10*time.Second, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.messages) == 1 })
	if l.messages[0].Seq != 6 || l.messages[0].Late {
		t.Fatalf("got %+v", l.messages[0])
	}
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	w.apply(1000, false)
	l.waitCaughtUp(t)
	w.verify(l, "Lisa", nil)
	for _, m := range l.messages[1:] {
		if !m.Late {
			t.Fatalf("not late: %+v", m)
		}
	}
}

func TestCursorMovesOnlyByAnAnswerAndOnlyUpToWhatIsChecked(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	l.waitCaughtUp(t)
	w.say(avisLisa, "Avi", true)
	w.verify(l, "Lisa", nil)
	confirmed := func() int64 { w.mu.Lock(); defer w.mu.Unlock(); return w.confirmed["Lisa Avi&Lisa"] }
	s.tick(time.Now())
	if len(l.probes) != 0 {
		t.Fatal("history has not announced it: an older one may be missing")
	}
	w.apply(10, false)
	testx.Eventually(t, "the router has checked", 10*time.Second, func() bool { return w.router.CheckedAt(subject.Partition(avisLisa, partitions)) == 1 })
	s.tick(time.Now())
	if len(l.probes) != 1 || confirmed() != 0 {
		t.Fatal("written is not received")
	}
	s.Answered(l.probes[0] + 1) // not the question that was asked
	w.say(avisLisa, "Avi", true)
	w.apply(10, false)
	w.verify(l, "Lisa", nil)
	s.Answered(l.probes[0])
	testx.Eventually(t, "history is told", 10*time.Second, func() bool { return confirmed() == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.confirms != 1 || w.last.PeerSeq != 1 || w.last.Session != s.name() {
		t.Fatalf("%d confirmations, the last one %+v", w.confirms, w.last)
	}
}

func TestDeadLinkIsClosed(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.gone(false)
	s.tick(time.Now().Add(40 * time.Second))
	if len(l.probes) != 1 || l.closed != nil {
		t.Fatal("an idle link is asked first")
	}
	s.tick(time.Now().Add(51 * time.Second))
	if l.closed == nil || l.closed.Code != wire.CloseNoPong.Code {
		t.Fatalf("got %v", l.closed)
	}
}

func TestAcceptedIsNotReceivedAsWell(t *testing.T) {
	w := newWorld(t, nil)
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	// While the join waits for history, one message is accepted and another is under way.
	first, second := w.say(avisLisa, "Lisa", false), w.say(avisLisa, "Lisa", false)
	var p bus.Publisher
	two := &outgoing{pub: p.New(bus.Publication{Room: avisLisa, P: second.P, ID: second.ID, Content: second.Content})}
	one := &outgoing{pub: p.New(bus.Publication{Room: avisLisa, P: first.P, ID: first.ID, Content: first.Content}), next: two}
	third := w.say(avisLisa, "Avi", false)
	s.mu.Lock()
	s.queues, s.queued = map[room.Room]*outgoing{avisLisa: one}, 2
	s.accepted(one, &wire.Message{ID: first.ID, Seq: first.Seq}, first.P)
	s.mu.Unlock()
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	w.apply(10, false)
	w.verifyOnly(l, third.ID)
}

// What is stored and whose outcome could not be told is accepted as soon as it is seen: its sender would not get it otherwise.
func TestUnknownOutcomeOfWhatWasSeen(t *testing.T) {
	w := newWorld(t, nil)
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	s, l := w.open("Lisa")
	defer s.gone(true)
	_ = s.Join(everyone, "")
	var p bus.Publisher
	send := func(m api.StoredMessage) *outgoing {
		o := &outgoing{retry: true, pub: p.New(bus.Publication{Room: avisLisa, P: m.P, ID: m.ID, Content: m.Content})}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queues, s.queued = map[room.Room]*outgoing{avisLisa: o}, 1
		return o
	}
	accepted := func(n int) {
		t.Helper()
		l.mu.Lock()
		defer l.mu.Unlock()
		got := 0
		for _, e := range l.events {
			if e == wire.EvAccepted {
				got++
			}
		}
		if got != n || len(l.messages) > 0 {
			t.Fatalf("%d accepted, want %d; received %+v", got, n, l.messages)
		}
	}
	// Read by the catch-up.
	o := send(w.say(avisLisa, "Lisa", false))
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	w.apply(10, false)
	l.waitCaughtUp(t)
	s.done(o, nil, bus.ErrUnknown)
	accepted(1)
	// It comes live while SQL is asked for it, and that fails.
	m := w.say(avisLisa, "Lisa", false)
	o = send(m)
	d := router.FromStored(&m)
	s.Deliver(d)
	s.done(o, nil, bus.ErrUnknown)
	accepted(2)
	// Nobody has seen it: its outcome is not known.
	s.done(send(m), nil, bus.ErrUnknown)
	accepted(2)
}

// Where own messages are shown like others, they come in the order of all, whatever a catch-up still has to read and whoever tells their outcome.
func TestEchoesKeepTheOrder(t *testing.T) {
	w := newWorld(t, nil)
	w.setDeaf(true)
	s, l := w.open("Lisa")
	l.echoes = true
	defer s.gone(true)
	_ = s.Join(everyone, "")
	testx.Eventually(t, "the catch-up runs", 10*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.catching != nil })
	var p bus.Publisher
	send := func(m api.StoredMessage) *outgoing {
		o := &outgoing{pub: p.New(bus.Publication{Room: avisLisa, P: m.P, ID: m.ID, Content: m.Content})}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queues, s.queued = map[room.Room]*outgoing{avisLisa: o}, 1
		return o
	}
	peer := func() {
		m := w.say(avisLisa, "Avi", false)
		s.Deliver(router.FromStored(&m))
	}
	both := func(answerFirst bool) {
		peer()
		m := w.say(avisLisa, "Lisa", false)
		o, d := send(m), router.FromStored(&m)
		if answerFirst {
			s.done(o, &d.Message, nil)
		}
		s.Deliver(d)
		if !answerFirst {
			s.done(o, nil, bus.ErrUnknown) // what was seen is stored
		}
	}
	both(true)
	both(false)
	// One that the catch-up sees before its outcome is known.
	peer()
	last := w.say(avisLisa, "Lisa", false)
	o := send(last)
	w.apply(10, false)
	w.setDeaf(false)
	l.waitCaughtUp(t)
	s.done(o, &router.FromStored(&last).Message, nil)
	s.Deliver(router.FromStored(&last))
	// Live; past the router, which would find them missing if SQL were said to have them.
	both(true)
	both(false)
	w.verify(l, "Lisa", nil)
	for _, m := range l.messages {
		if m.Late {
			t.Fatalf("late: %+v", m)
		}
	}
	if n := strings.Count(strings.Join(l.events, " "), wire.EvAccepted); n != 5 {
		t.Fatalf("%d were accepted, want 5", n)
	}
}

// verifyOnly checks that one message arrives and nothing else.
func (w *world) verifyOnly(l *wireLog, id string) {
	w.t.Helper()
	l.waitCaughtUp(w.t)
	testx.Eventually(w.t, "the message arrives", 10*time.Second, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.messages) > 0 })
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.messages) != 1 || l.messages[0].ID != id {
		w.t.Fatalf("got %+v", l.messages)
	}
}
