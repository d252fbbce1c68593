package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/bus"
)

func TestMain(m *testing.M) { testx.Main(m) }

// history is a Source with every message it was told of.
type history struct {
	mu       sync.Mutex
	copies   chan *bus.Raw
	rows     []api.Row
	down     bool
	asked    int // requests that were answered
	refused  int
	released chan struct{} // when not nil, requests wait for it
}

func (h *history) Copies() <-chan *bus.Raw {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.copies == nil {
		h.copies = make(chan *bus.Raw, 16384)
	}
	return h.copies
}

// feed is where copies for r are put.
func feed(r *Router) chan<- *bus.Raw {
	h := r.src.(*history)
	h.Copies()
	return h.copies
}

func (h *history) SubscribeUser(string) error { return nil }
func (h *history) UnsubscribeUser(string)     {}

func (h *history) services() rpc.Caller {
	return rpc.Caller{Timeout: time.Minute, Conn: rpc.Local(api.HistoryRows.Handle(h.askRows), api.HistoryMessages.Handle(h.askMessages))}
}

func (h *history) answer() error {
	h.mu.Lock()
	gate := h.released
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		h.refused++
		return errors.New("down")
	}
	h.asked++
	return nil
}

func (h *history) askRows(_ context.Context, req api.RowsRequest) (api.RowsResponse, error) {
	if err := h.answer(); err != nil {
		return api.RowsResponse{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	resp := api.RowsResponse{To: req.To}
	for _, r := range h.rows {
		if r.Seq > req.From && r.Seq <= req.To {
			resp.Rows = append(resp.Rows, r)
		}
		if len(resp.Rows) == 50 { // cut, as a real answer would be
			resp.To = r.Seq
			break
		}
	}
	return resp, nil
}

func (h *history) askMessages(_ context.Context, req api.MessagesRequest) (resp api.MessagesResponse, err error) {
	if err := h.answer(); err != nil {
		return resp, err
	}
	for i, seq := range req.Seqs {
		if i == 20 {
			break // cut by size
		}
		h.mu.Lock()
		for _, r := range h.rows {
			if r.Seq == seq {
				resp.Messages = append(resp.Messages, api.StoredMessage{P: req.P, Seq: seq, A: r.A, B: r.B, Sender: r.A, ID: fmt.Sprint("m", seq), Content: "c", SentAt: 1})
			}
		}
		h.mu.Unlock()
	}
	return resp, nil
}

// member records what it was handed.
type member struct {
	got     chan *Delivery
	notices chan *api.Ephemeral
}

func newMember() *member {
	return &member{make(chan *Delivery, 10000), make(chan *api.Ephemeral, 100)}
}
func (m *member) Deliver(d *Delivery)                  { m.got <- d }
func (m *member) Notify(_ room.Room, e *api.Ephemeral) { m.notices <- e }

func start(t *testing.T, h *history, last int64) *Router {
	t.Helper()
	r := New(h, h.services(), testx.Logger(t), prometheus.NewRegistry())
	r.Prime([]int64{last})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func live(rm room.Room, seq, prev int64) *bus.Raw {
	body, _ := json.Marshal(api.StoredPayload{V: 1, Sender: rm.A, ID: fmt.Sprint("m", seq), Content: "c"})
	return bus.NewRaw(rm, 0, seq, prev, time.Now(), body)
}

// A gateway of the next version may be there already: what it wrote is handed on, as far as this one knows it.
func TestCopyOfANewerVersionIsHandedOn(t *testing.T) {
	r := start(t, &history{}, 10)
	m := newMember()
	if err := r.Add("Lisa", m); err != nil {
		t.Fatal(err)
	}
	c := live(lisa, 11, 9)
	c.Data = []byte(`{"v":2,"s":"Avi","i":"n1","c":"a poll","kind":"poll","meta":{"choices":["x","y"]},"reply_to":4}`)
	feed(r) <- c
	if got := next(t, m).Message; got.Seq != 11 || got.Sender != "Avi" || got.ID != "n1" || got.Content != "a poll" || *got.Prev != 9 {
		t.Fatalf("%+v", got)
	}
	c = live(lisa, 12, 11)
	c.Data = []byte(`{"v":3,"s":["Avi"],"i":{},"c":[]}`) // nothing that this one can read: it is counted, and nothing breaks
	feed(r) <- c
	nothing(t, r, m, lisa, 13)
}

func announce(r *Router, from, to int64, rows ...api.Row) {
	b, _ := json.Marshal(api.Applied{P: 0, From: from, To: to, Rows: rows})
	r.Applied(b)
}

func next(t *testing.T, m *member) *Delivery {
	t.Helper()
	select {
	case d := <-m.got:
		return d
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was delivered")
		return nil
	}
}

// nothing sends a marker through the router and checks that it is the next thing that arrives.
func nothing(t *testing.T, r *Router, m *member, rm room.Room, seq int64) {
	t.Helper()
	feed(r) <- live(rm, seq, 0)
	if d := next(t, m); d.Message.Seq != seq {
		t.Fatalf("got seq %d, expected nothing before %d", d.Message.Seq, seq)
	}
}

var lisa = room.Room{A: "Avi", B: "Lisa"}

func TestCopyReachesBothOnce(t *testing.T) {
	r := start(t, &history{}, 10)
	a, b1, b2 := newMember(), newMember(), newMember()
	for m, name := range map[*member]string{a: "Avi", b1: "Lisa", b2: "Lisa"} {
		if err := r.Add(name, m); err != nil {
			t.Fatal(err)
		}
	}
	feed(r) <- live(lisa, 11, 7)
	feed(r) <- live(lisa, 11, 7) // by the other subscription
	feed(r) <- live(lisa, 12, 11)
	for _, m := range []*member{a, b1, b2} {
		d := next(t, m)
		if d.Message.Seq != 11 || *d.Message.Prev != 7 || d.Message.Late || d.Message.Room != "Avi&Lisa" || d.Message.Sender != "Avi" {
			t.Fatalf("got %+v", d.Message)
		}
		if d := next(t, m); d.Message.Seq != 12 {
			t.Fatalf("the twin was delivered too: %+v", d.Message)
		}
	}
}

func TestCopyOfTheFirstOfARoomHasNoPrev(t *testing.T) {
	r := start(t, &history{}, 0)
	m := newMember()
	_ = r.Add("Lisa", m)
	feed(r) <- live(lisa, 1, 0)
	if d := next(t, m); d.Message.Prev != nil {
		t.Fatal("0 may also mean that the previous one was purged")
	}
}

func TestRepairOfAMissingCopy(t *testing.T) {
	h := &history{rows: []api.Row{{A: "Avi", B: "Lisa", Seq: 11}, {A: "Avi", B: "Lisa", Seq: 12}, {A: "Era", B: "Tsahi", Seq: 13}}}
	r := start(t, h, 10)
	m := newMember()
	_ = r.Add("Lisa", m)
	feed(r) <- live(lisa, 12, 11)
	if d := next(t, m); d.Message.Seq != 12 {
		t.Fatal(d.Message)
	}
	announce(r, 10, 13, h.rows...)
	d := next(t, m)
	if d.Message.Seq != 11 || !d.Message.Late {
		t.Fatalf("got %+v", d.Message)
	}
	feed(r) <- live(lisa, 11, 0) // it comes after all
	nothing(t, r, m, lisa, 14)
	testx.Eventually(t, "checked moves", 10*time.Second, func() bool { return r.VerifiedAt(0) == 13 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked != 1 {
		t.Fatalf("history was asked %d times", h.asked)
	}
}

func TestRepairAsksForAHoleAlsoWhenHistoryIsAway(t *testing.T) {
	h := &history{down: true}
	for i := int64(11); i <= 210; i++ {
		h.rows = append(h.rows, api.Row{A: "Avi", B: "Lisa", Seq: i})
	}
	r := start(t, h, 10)
	m := newMember()
	_ = r.Add("Avi", m)
	announce(r, 200, 205, h.rows[190:195]...) // 11 to 200 never came
	announce(r, 205, 210, h.rows[195:200]...)
	testx.Eventually(t, "history is asked", 10*time.Second, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.refused > 1 })
	if r.VerifiedAt(0) != 10 {
		t.Fatal("nothing is checked while history is away")
	}
	h.mu.Lock()
	h.down = false
	h.mu.Unlock()
	// The real service announces every second; so does this test, until all is repaired.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				announce(r, 210, 210)
			}
		}
	}()
	for i := int64(11); i <= 210; i++ {
		if d := next(t, m); d.Message.Seq != i || d.Message.Late {
			t.Fatalf("at %d: got %+v", i, d.Message)
		}
	}
	testx.Eventually(t, "checked moves", 10*time.Second, func() bool { return r.VerifiedAt(0) == 210 })
}

func TestPositionCoversWhatWasRoutedBeforeJoining(t *testing.T) {
	r := start(t, &history{}, 0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for seq := int64(1); ; seq++ {
			select {
			case feed(r) <- live(lisa, seq, seq-1):
			case <-stop:
				return
			}
		}
	}()
	// Sessions come while messages run: the first one that each gets live lies right above a position it was told, or below.
	for range 500 {
		m := &member{make(chan *Delivery, 1<<16), nil}
		_ = r.Add("Lisa", m)
		pos := r.Routed()[0]
		if d := next(t, m); d.Message.Seq > pos+1 {
			t.Fatalf("joined at %d, the first live one is %d", pos, d.Message.Seq)
		}
		r.Remove("Lisa", m)
	}
	close(stop)
	<-stopped
}

func TestCopyThatIsGarbageIsDropped(t *testing.T) {
	r := start(t, &history{}, 0)
	m := newMember()
	_ = r.Add("Lisa", m)
	raw := func(change func(m *bus.Raw)) *bus.Raw { m := live(lisa, 1, 0); change(m); return m }
	for _, m := range []*bus.Raw{
		{}, {Subject: "deliver.a"}, raw(func(m *bus.Raw) { m.Subject = "deliver.b.a" }), raw(func(m *bus.Raw) { m.Header.Set("Nats-Stream", "OTHER") }),
		raw(func(m *bus.Raw) { m.Header.Set("Nats-Stream", "ROOMS_9") }), raw(func(m *bus.Raw) { m.Header.Set("Nats-Sequence", "0") }),
		raw(func(m *bus.Raw) { m.Data = []byte("{") }), bus.NewRaw(lisa, 0, 2, 0, time.Now(), []byte(`{"s":"Era"}`)),
		raw(func(m *bus.Raw) { m.Header.Set(api.EphemeralHeader, "1"); m.Data = nil }),
	} {
		feed(r) <- m
	}
	r.Applied([]byte("x"))
	announceRaw, _ := json.Marshal(api.Applied{P: 7, From: 0, To: 5})
	r.Applied(announceRaw)
	nothing(t, r, m, lisa, 3)
}

func TestNoticeGoesToItsOwnUserOnly(t *testing.T) {
	r := start(t, &history{}, 0)
	a, b := newMember(), newMember()
	_ = r.Add("Avi", a)
	_ = r.Add("Lisa", b)
	body, _ := json.Marshal(api.Ephemeral{Event: "typing", Username: "Avi"})
	feed(r) <- &bus.Raw{
		Subject: subject.Deliver(lisa), Header: nats.Header{api.EphemeralHeader: {"1"}}, Data: body,
		Sub: &nats.Subscription{Subject: "deliver.*." + subject.Token("Lisa")},
	}
	nothing(t, r, b, lisa, 1)
	if len(b.notices) != 1 || len(a.notices) != 0 {
		t.Fatalf("Avi got %d, Lisa got %d", len(a.notices), len(b.notices))
	}
}

func TestSeenAgainstAModel(t *testing.T) {
	s, model := newSeen(), map[int64]bool{}
	for range 200000 {
		seq := rand.Int64N(400000)
		if s.add(seq) == model[seq] {
			t.Fatalf("seq %d: wrong", seq)
		}
		model[seq] = true
	}
	for seq := range int64(400000) {
		if s.has(seq) != model[seq] {
			t.Fatalf("seq %d: marked %v", seq, !model[seq])
		}
	}
	s.forget(390000)
	for seq := int64(260000); seq < 400000; seq++ {
		if s.has(seq) != model[seq] {
			t.Fatalf("seq %d was forgotten", seq)
		}
	}
	for i := range int64(2 * maxChunks) {
		s.add(i << chunkBits)
	}
	if len(s.chunks) > maxChunks {
		t.Fatal("unbounded")
	}
}

// What an old copy of the stream stores after younger messages were seen is not shown: it was not accepted, and its seqs belong to others.
func TestCopyOfAStreamThatWentBackIsDropped(t *testing.T) {
	r := start(t, &history{}, 0)
	m := newMember()
	_ = r.Add("Lisa", m)
	feed(r) <- live(lisa, 9, 0)
	next(t, m)
	old := live(lisa, 5, 0)
	old.Header.Set("Nats-Time-Stamp", time.Now().Add(2*clocks).UTC().Format(time.RFC3339Nano))
	feed(r) <- old
	late := live(lisa, 6, 0)
	late.Header.Set("Nats-Time-Stamp", time.Now().Add(-time.Minute).UTC().Format(time.RFC3339Nano)) // one that was on its way for long is another matter
	feed(r) <- late
	if d := next(t, m); d.Message.Seq != 6 || !d.Message.Late {
		t.Fatalf("got %+v", d.Message)
	}
	nothing(t, r, m, lisa, 10)
}
