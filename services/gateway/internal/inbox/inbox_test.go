package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/router"
)

func TestMain(m *testing.M) { testx.Main(m) }

// client is the session of an inbox. Its history answers when it is let.
type client struct {
	ctx context.Context
	in  Inbox
	wg  sync.WaitGroup
	let chan struct{}

	mu    sync.Mutex
	items []api.CatchUpItem
	log   []string
	own   int64 // message_accepted stands for this seq
	runs  []bool
}

func (c *client) User() string             { return "Lisa" }
func (c *client) Context() context.Context { return c.ctx }
func (c *client) Send(event string, _ any, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, event)
}
func (c *client) Hand(d *router.Delivery, read bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprint(d.Message.Seq, " ", read, " ", d.Message.Late))
}
func (c *client) Sent(m *api.StoredMessage) bool { return m.Seq == c.own }
func (c *client) CatchUp(runs bool)              { c.runs = append(c.runs, runs) }
func (c *client) Wait(context.Context) error     { return nil }

// said takes what came, when nothing is read any more.
func (c *client) said() (log []string) {
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	log, c.log = c.log, nil
	return log
}

var lisa = room.Room{A: "Avi", B: "Lisa"}

// open makes an inbox whose history has these messages of Avi and Lisa, in the only partition.
func open(t *testing.T, stored ...int64) *client {
	c := &client{let: make(chan struct{})}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithCancel(context.Background())
	r := router.New(nil, rpc.Caller{}, testx.Logger(t), prometheus.NewRegistry())
	r.Prime([]int64{5})
	answer := func(_ context.Context, req api.CatchUpRequest) (resp api.CatchUpResponse, err error) {
		resp.Applied = req.MinApplied
		<-c.let
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, item := range req.Items {
			c.items = append(c.items, item)
			res := api.CatchUpResult{Begin: []int64{1}}
			for _, seq := range stored {
				res.Messages = append(res.Messages, api.StoredMessage{A: "Avi", B: "Lisa", Sender: "Avi", Seq: seq})
			}
			resp.Results = append(resp.Results, res)
		}
		return resp, nil
	}
	c.in.Open(&Desk{Router: r, CatchUps: bus.NewCatchUps(answer), Patience: time.Hour, Go: c.wg.Go, CaughtUp: func(time.Duration) {}, Overtaken: func() {}}, c)
	t.Cleanup(func() { cancel(); c.wg.Wait() })
	return c
}

func delivery(seq int64) *router.Delivery {
	return router.FromStored(&api.StoredMessage{A: "Avi", B: "Lisa", Sender: "Avi", Seq: seq})
}

// What was missed comes first; what came live meanwhile was dropped, because it is read; then live.
func TestJoinReadsThenIsLive(t *testing.T) {
	c := open(t, 3, 4)
	c.own = 4
	c.in.Take(delivery(2)) // nothing is joined
	c.in.Join(Job{Rooms: []room.Room{lisa}})
	if !c.in.Joins(lisa) || !c.in.CatchingUp() || !c.in.Covers(lisa) || c.in.Token() != "" {
		t.Error("the join is not under way")
	}
	close(c.let)
	if got := c.said(); !slices.Equal(got, []string{wire.EvCatchingUp, "3 true false", wire.EvCaughtUp}) {
		t.Fatalf("got %q", got)
	}
	if !c.in.Live(lisa) || c.in.CatchingUp() || !slices.Equal(c.in.Peers(), []string{"Avi"}) || !slices.Equal(c.runs, []bool{true, false}) {
		t.Error("the join is not over")
	}
	if v, err := DecodeResume(c.in.Token(), 1); err != nil || v[0] != 5 {
		t.Errorf("the token is %v, %v", v, err)
	}
	c.in.Take(delivery(5)) // was read, or is not the session's
	c.in.Take(delivery(6))
	c.in.Take(router.FromStored(&api.StoredMessage{A: "Era", B: "Lisa", Sender: "Era", Seq: 7}))
	c.in.End()
	c.in.Take(delivery(8))
	if got := c.said(); !slices.Equal(got, []string{"6 false false"}) {
		t.Fatalf("live came %q", got)
	}
}

// Joins that bring nothing make one; each of the others has its own terms. The end of all has one caught_up.
func TestJoinsThatWaitAreOne(t *testing.T) {
	c := open(t)
	c.in.Join(Job{Rooms: []room.Room{lisa}})
	for i := range 50 {
		c.in.Join(Job{Rooms: []room.Room{{A: "Lisa", B: fmt.Sprint("u", i)}}})
	}
	c.in.Join(Job{All: true, Device: "phone"})
	if err := c.in.Refuses(Job{Rooms: make([]room.Room, wire.MaxJoinRooms+1)}); err == nil {
		t.Error("any number of rooms is taken")
	}
	close(c.let)
	log := c.said()
	if n := len(slices.DeleteFunc(slices.Clone(log), func(e string) bool { return e != wire.EvCaughtUp })); n != 1 {
		t.Errorf("%d times caught_up: %q", n, log)
	}
	if len(c.items) > 3 || c.items[len(c.items)-1].Device != "phone" {
		t.Errorf("history was asked %+v", c.items)
	}
	for range maxJobs + 1 {
		c.in.jobs = append(c.in.jobs, Job{})
	}
	if err := c.in.Refuses(Job{}); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}

func TestResumeTokensKeepPositions(t *testing.T) {
	for range 1000 {
		v := make([]int64, 1+rand.IntN(16))
		for i := range v {
			v[i] = rand.Int64N(1 << rand.IntN(54))
		}
		got, err := DecodeResume(encodeResume(v), len(v))
		if err != nil || !slices.Equal(got, v) {
			t.Fatalf("%v: %v, %v", v, got, err)
		}
		if _, err := DecodeResume(encodeResume(v), len(v)+1); !errors.Is(err, ErrResume) {
			t.Fatalf("for other partitions: %v", err)
		}
	}
	if got := minVector([]int64{1, 5}, maxVector([]int64{2, 3}, []int64{1, 4})); !slices.Equal(got, []int64{1, 4}) {
		t.Errorf("got %v", got)
	}
}
