package marks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/router"
)

func TestMain(m *testing.M) { testx.Main(m) }

// scene is what a tracker works with: a history that the test decides about, and one session of each of two users.
type scene struct {
	t         *testing.T
	publish   func([]byte)
	reconnect func()
	deaf      chan struct{}
	listens   chan struct{}

	mu    sync.Mutex
	away  bool
	now   []api.Mark // what history says
	asked []api.MarksRequest
	told  map[string][]string // by user
}

func (s *scene) Subscribe(_ string, f func([]byte)) (func(), error) {
	s.publish = f
	return func() {}, nil
}
func (s *scene) OnReconnect(f func()) { s.reconnect = f; close(s.listens) } // it comes after Subscribe
func (s *scene) Users() int           { return 2 }
func (s *scene) ask(_ context.Context, req api.MarksRequest) (api.MarksResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return api.MarksResponse{}, errors.New("away")
	}
	s.asked = append(s.asked, req)
	return api.MarksResponse{Rows: slices.Clone(s.now)}, nil
}

// Members are those of Avi and Lisa.
func (s *scene) Members(user string) []router.Member {
	if user != "Avi" && user != "Lisa" {
		return nil
	}
	return []router.Member{member{s, user}}
}

type member struct {
	s    *scene
	user string
}

func (m member) Deliver(*router.Delivery) {}
func (m member) Notify(r room.Room, e *api.Ephemeral) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.told[m.user] = append(m.s.told[m.user], fmt.Sprint(e.Event, " ", e.Username, " ", e.Seq))
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, told: map[string][]string{}, deaf: make(chan struct{}, 100), listens: make(chan struct{})}
	tr := New(Deps{Bus: s, Ask: s.ask, Members: s, Deaf: func() { s.deaf <- struct{}{} }, Log: testx.Logger(t), Registry: prometheus.NewRegistry()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = tr.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-s.listens
	return s
}

func (s *scene) announce(a api.Marks) {
	body, _ := json.Marshal(a)
	s.publish(body)
}

func (s *scene) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// tells waits until a user was told this, since the last time.
func (s *scene) tells(user string, want ...string) {
	s.t.Helper()
	var have []string
	testx.Eventually(s.t, fmt.Sprintf("%s is told %q", user, want), 20*time.Second, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		have = slices.Sorted(slices.Values(s.told[user]))
		return slices.Equal(have, want)
	})
	s.set(func() { s.told[user] = nil })
}

func read(seq int64) api.Mark { return api.Mark{User: "Avi", Peer: "Lisa", Read: seq} }

// A hole in a chain has history asked for what has moved since the chain was last whole; what is told already is not told again.
func TestMarksOfAHoleAreAskedFor(t *testing.T) {
	s := newScene(t)
	s.announce(api.Marks{Source: "h", From: 0, To: 1, Rows: []api.Mark{read(1)}})
	s.tells("Lisa", "message_read Avi 1")
	s.tells("Avi", "message_read Avi 1")
	s.set(func() {
		s.now = []api.Mark{read(3), {User: "Lisa", Peer: "Avi", Read: 2, Delivered: 3}, {User: "Bob", Peer: "Eva", Read: 9}}
	})
	s.announce(api.Marks{Source: "h", From: 2, To: 2})
	s.tells("Lisa", "message_delivered Lisa 3", "message_read Avi 3", "message_read Lisa 2")
	<-s.deaf
	s.announce(api.Marks{Source: "h", From: 2, To: 3, Rows: []api.Mark{read(3)}})
	s.announce(api.Marks{Source: "h", From: 3, To: 4, Rows: []api.Mark{read(2)}})
	s.announce(api.Marks{Source: "h", From: 4, To: 5, Rows: []api.Mark{read(4)}})
	s.tells("Lisa", "message_read Avi 4")
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := time.Duration(s.asked[0].AgeMS) * time.Millisecond; len(s.asked) != 1 || age < margin || age > margin+20*time.Second {
		t.Errorf("asked %+v", s.asked)
	}
}

// A reconnect is reason enough, and so is silence; while history does not answer, the question stays.
func TestMarksThatMayHaveBeenMissedAreAskedFor(t *testing.T) {
	for name, lose := range map[string]func(*scene){
		"a reconnect": func(s *scene) { s.reconnect() },
		"silence":     func(*scene) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.announce(api.Marks{Source: "h", From: 0, To: 1, Rows: []api.Mark{read(1)}})
			s.tells("Lisa", "message_read Avi 1")
			s.set(func() { s.away, s.now = true, []api.Mark{read(2)} })
			lose(s)
			<-s.deaf
			s.set(func() { s.away = false })
			s.tells("Lisa", "message_read Avi 2")
		})
	}
}

// A chain that has ended as it should is missed by nobody; one whose beginning was not heard is a hole.
func TestMarksChainsBeginAndEnd(t *testing.T) {
	s := newScene(t)
	s.announce(api.Marks{Source: "old", From: 0, To: 1, Rows: []api.Mark{read(1)}, Ended: true})
	s.announce(api.Marks{Source: "new", From: 0, To: 0})
	s.announce(api.Marks{Source: "new", From: 0, To: 1, Rows: []api.Mark{read(2)}, Ended: true})
	s.tells("Lisa", "message_read Avi 1", "message_read Avi 2")
	s.set(func() { s.now = []api.Mark{read(3)} })
	s.announce(api.Marks{Source: "third", From: 7, To: 7, Ended: true})
	s.tells("Lisa", "message_read Avi 3")
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.asked); n != 1 {
		t.Errorf("%d questions", n)
	}
}

// Where two users may see each other again, everything is told again.
func TestMarksShownAgain(t *testing.T) {
	s := &scene{t: t, told: map[string][]string{}}
	tr := New(Deps{Bus: s, Ask: s.ask, Members: s, Deaf: func() {}, Log: testx.Logger(t), Registry: prometheus.NewRegistry()})
	tr.announced(api.Marks{Source: "h", To: 1, Rows: []api.Mark{read(1)}}, time.Now())
	s.now = []api.Mark{read(1)}
	tr.Shown("Lisa", "Avi")
	if err := tr.askAll(t.Context(), time.Time{}, tr.pairs); err != nil || len(s.told["Lisa"]) != 2 {
		t.Errorf("%v, told %q", err, s.told)
	}
	if want := []api.Pair{{User: "Avi", Peer: "Lisa"}}; len(s.asked) != 1 || !slices.Equal(s.asked[0].Pairs, want) {
		t.Errorf("asked %+v", s.asked)
	}
}

// A mark never goes back, not even when an answer is older than what was announced meanwhile.
func TestMarksNeverGoBack(t *testing.T) {
	s := &scene{t: t, told: map[string][]string{}}
	tr := New(Deps{Bus: s, Ask: s.ask, Members: s, Deaf: func() {}, Log: testx.Logger(t), Registry: prometheus.NewRegistry()})
	tr.announced(api.Marks{Source: "h", To: 1, Rows: []api.Mark{read(4)}}, time.Now())
	s.now = []api.Mark{read(3)}
	tr.Shown("Lisa", "Avi")
	if err := tr.askAll(t.Context(), time.Time{}, tr.pairs); err != nil || !slices.Equal(s.told["Lisa"], []string{"message_read Avi 4", "message_read Avi 4"}) {
		t.Errorf("%v, told %q", err, s.told["Lisa"])
	}
	const top = 20000
	var wg sync.WaitGroup
	var next atomic.Int64
	next.Store(4)
	s.told = map[string][]string{}
	for range 2 { // who hears announcements, and who asks
		wg.Go(func() {
			for seq := next.Add(1); seq <= top; seq = next.Add(1) {
				tr.tell(read(seq), false)
			}
		})
	}
	wg.Wait()
	last := int64(0)
	for _, told := range s.told["Lisa"] {
		var seq int64
		if _, err := fmt.Sscanf(told, "message_read Avi %d", &seq); err != nil || seq <= last {
			t.Fatalf("told %q after %d (%v)", told, last, err)
		}
		last = seq
	}
	if last != top {
		t.Errorf("told of %d at last", last)
	}
}
