package session

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/room"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/inbox"
	"parley.example/services/gateway/internal/router"
	"parley.example/services/gateway/internal/session/sessiontest"
)

// talk makes everything move until end is called: people talk, copies get lost, SQL follows, announcements get lost, history goes away and comes back.
func (w *world) talk() (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	var once sync.Once
	end = func() { once.Do(func() { close(stop) }); <-stopped }
	w.T.Cleanup(end)
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-w.Ctx.Done():
				return
			default:
			}
			for range rand.IntN(20) {
				rm := []room.Room{sessiontest.AvisLisa, sessiontest.ErasLisa, {A: "Avi", B: "Era"}}[rand.IntN(3)]
				w.Say(rm, rm.A, rand.IntN(10) > 0)
			}
			w.Apply(rand.Int64N(80), rand.IntN(10) == 0)
			switch i % 50 {
			case 40:
				w.setDown(true)
			case 45:
				w.setDown(false)
			}
			time.Sleep(5 * time.Millisecond) // the pace of the conversation, not a wait
		}
	}()
	return end
}

func (w *world) setDown(down bool) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Down = down
}

// settle has SQL catch up and history announce, every now and then, as it does when idle, until end is called.
func (w *world) settle() (end func()) {
	w.setDown(false)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				w.Apply(1<<40, false)
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// line is a Wire that remembers the order of messages and tokens: a connection that breaks has brought some of them, from the first one on.
type line struct {
	*sessiontest.Wire
	smu  sync.Mutex
	came []arrival
}

type arrival struct {
	message wire.Message
	token   string // "": it is the message
}

func (l *line) arrive(a arrival) {
	l.smu.Lock()
	defer l.smu.Unlock()
	l.came = append(l.came, a)
}

func (l *line) arrived() []arrival {
	l.smu.Lock()
	defer l.smu.Unlock()
	return l.came[:len(l.came):len(l.came)]
}

func (l *line) Send(event string, data any, re string) {
	l.Wire.Send(event, data, re)
	token := ""
	switch d := data.(type) {
	case wire.CatchingUp:
		token = d.Resume
	case wire.CaughtUp:
		token = d.Resume
	case wire.Ack:
		token = d.Resume
	}
	if token != "" {
		l.arrive(arrival{token: token})
	}
}

func (l *line) SendMessage(d *router.Delivery) {
	l.Wire.SendMessage(d)
	l.arrive(arrival{message: d.Message})
}

// This is what clients rely on that do not repair: wherever a connection breaks, with the newest token that it has brought the next one brings all that
// is missing, whatever copies were lost and whatever other sessions of the user have confirmed. What is out of order is late.
func TestResumeWithTheNewestTokenMissesNothing(t *testing.T) {
	for name, patience := range map[string]time.Duration{"history is waited for": 20 * time.Second, "history is overtaken": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.CatchUpPatience = patience })
			w.Page, w.Delay = 50, 5*time.Millisecond
			end := w.talk()
			phone, _ := w.open("Lisa") // it confirms everything at once
			defer phone.Gone(true)
			if err := phone.Join(sessiontest.Everyone, ""); err != nil {
				t.Fatal(err)
			}
			var first []int64 // from here on all has to come
			newest, seen := "", map[[2]int64]bool{}
			live := func(last bool) {
				l := &line{Wire: sessiontest.NewWire()}
				s := w.hub.Open(l, token.Claims{Username: "Lisa", SID: "x", Expires: time.Now().Add(time.Hour)}, false)
				defer s.Gone(false)
				if err := s.Join(wire.Join{Rooms: wire.RoomList{All: true}, Resume: newest}, ""); err != nil {
					t.Fatal(err)
				}
				want := rand.IntN(150)
				if last {
					w.verifySeen(l, first, seen)
					return
				}
				testx.Eventually(t, "something has come", 30*time.Second, func() bool {
					s.Alive("a")
					if question := phone.Tick(time.Now()); question != 0 {
						phone.Answered(question)
					}
					return len(l.arrived()) >= want
				})
				s.Gone(false)
				came := l.arrived()
				came = came[:rand.IntN(len(came)+1)] // the rest was under way
				top := map[string]int64{}
				for _, a := range came {
					if a.token != "" {
						newest = a.token
						if first == nil {
							first, _ = inbox.DecodeResume(newest, sessiontest.Partitions)
						}
						continue
					}
					m := a.message
					rm, _ := room.Parse(m.Room)
					seen[key(rm, m.Seq)] = true
					if m.Seq < top[m.Room] && !m.Late {
						t.Fatalf("%s: %d after %d, and not late", m.Room, m.Seq, top[m.Room])
					}
					top[m.Room] = max(top[m.Room], m.Seq)
				}
			}
			for range 60 {
				live(false)
			}
			end()
			defer w.settle()()
			if first == nil {
				t.Fatal("no token ever came")
			}
			live(true)
		})
	}
}

// key names a message by its partition and seq.
func key(rm room.Room, seq int64) [2]int64 {
	return [2]int64{int64(subject.Partition(rm, sessiontest.Partitions)), seq}
}

// verifySeen waits until all messages of Lisa's above first have come, over l or before.
func (w *world) verifySeen(l *line, first []int64, seen map[[2]int64]bool) {
	w.T.Helper()
	testx.Eventually(w.T, "all messages have come", 30*time.Second, func() bool {
		for _, a := range l.arrived() {
			if rm, err := room.Parse(a.message.Room); err == nil {
				seen[key(rm, a.message.Seq)] = true
			}
		}
		w.Mu.Lock()
		defer w.Mu.Unlock()
		for p := range w.Streams {
			for _, m := range w.Streams[p] {
				rm := room.Room{A: m.A, B: m.B}
				if rm.Has("Lisa") && m.Seq > first[p] && !seen[key(rm, m.Seq)] {
					return false
				}
			}
		}
		return true
	})
}
