package session

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/directory"
	"parley.example/services/gateway/internal/session/sessiontest"
)

// strict is a world in which some people may not be talked to.
type strict struct{ *world }

func (s strict) Authorize(_ context.Context, user, name string) (string, error) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if s.Blocked[user+name] {
		return "", wire.E(wire.Forbidden, "you cannot talk to this user")
	}
	return name, nil
}

// modest is one where a question to the directory is the only way to know.
type modest struct{ strict }

func (modest) Sees(string, string) (ok, sure bool) { return false, false }

// What one peer does must not keep a client from the rooms of all others.
func TestJoinOfAListJoinsWhatCanBeJoined(t *testing.T) {
	w := newWorld(t, nil)
	w.hub.Directory = strict{w}
	w.Say(sessiontest.AvisLisa, "Avi", true)
	gone := room.Room{A: "Lisa", B: "erased"}
	w.Say(gone, "erased", true)
	w.Checked(sessiontest.AvisLisa)
	w.Checked(gone)
	w.Block("Lisa", "Avi")
	s, l := w.open("Lisa")
	defer s.Gone(true)
	list := []string{"Avi&Lisa", "Lisa&erased", "Avi&Era", "Lisa&nobody", "rubbish", "Era&Lisa", "Era&Lisa"}
	if err := s.Join(wire.Join{Rooms: wire.RoomList{List: list}, Since: map[string]int64{"Avi&Era": 3, "Avi&Lisa": 0, "what": 1}}, "1"); err != nil {
		t.Fatal(err)
	}
	a := l.LastAck(t)
	if !slices.Equal(a.Joined, []string{"Avi&Lisa", "Lisa&erased", "Era&Lisa"}) {
		t.Errorf("joined %q", a.Joined)
	}
	slices.SortFunc(a.Refused, func(x, y wire.Refusal) int { return strings.Compare(x.Room, y.Room) })
	want := []wire.Refusal{{Room: "Avi&Era", Code: wire.Forbidden}, {Room: "Lisa&nobody", Code: wire.UnknownUser},
		{Room: "rubbish", Code: wire.InvalidArgument}, {Room: "what", Code: wire.InvalidArgument}}
	if !slices.Equal(a.Refused, want) {
		t.Errorf("refused %v", a.Refused)
	}
	l.WaitCaughtUp(t)
	if len(l.Seqs(sessiontest.AvisLisa)) != 1 || len(l.Seqs(gone)) != 1 {
		t.Errorf("one's own rooms are not read: %v %v", l.Seqs(sessiontest.AvisLisa), l.Seqs(gone))
	}
	// Only writing needs the other one's permission.
	if _, err := s.Admit(wire.Send{Room: "Avi&Lisa", Content: "x"}); wire.AsError(err).Code != wire.Forbidden {
		t.Errorf("sending: %v", err)
	}
	if err := s.Typing("Avi&Lisa"); wire.AsError(err).Code != wire.Forbidden {
		t.Errorf("typing: %v", err)
	}
}

// The room of an erased person is named after the registered name, and is the peer's in each spelling.
func TestJoinOfAnErasedPersonsRoomInEachSpelling(t *testing.T) {
	w := newWorld(t, nil)
	gone := room.Room{A: "Lisa", B: "erased"}
	w.Say(gone, "erased", true)
	w.Checked(gone)
	for _, name := range []string{"Lisa&erased", "ERASED&lisa", "lisa&Erased"} {
		s, l := w.open("Lisa")
		if err := s.Join(wire.Join{Room: name}, "1"); err != nil {
			t.Fatal(err)
		}
		l.WaitCaughtUp(t)
		if got := l.LastAck(t).Joined; !slices.Equal(got, []string{"Lisa&erased"}) || len(l.Seqs(gone)) != 1 {
			t.Errorf("%s: joined %q, read %v", name, got, l.Seqs(gone))
		}
		s.Gone(true)
	}
	// With somebody else nothing was said: then the name is nobody's.
	s, _ := w.open("Era")
	defer s.Gone(true)
	for _, name := range []string{"Era&erased", "Era&Erased", "Era&nobody"} {
		if err := s.Join(wire.Join{Room: name}, "1"); wire.AsError(err).Code != wire.UnknownUser {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// roster is a world where the only contact of everybody is Avi.
type roster struct{ strict }

func (roster) Mode() api.Mode { return api.Roster }

func (r roster) Recall(ctx context.Context, name string) (registered string, gone bool, err error) {
	if room.Fold(name) == "era" {
		return "Era", false, nil
	}
	return r.strict.Recall(ctx, name)
}

func (roster) Authorize(_ context.Context, _, name string) (string, error) {
	if name == "Avi" {
		return name, nil
	}
	return "", wire.E(wire.Forbidden, "you cannot talk to this user")
}

// In a roster the answer to a join does not tell who there is, or was: only contacts are named as they are registered.
func TestJoinInARosterDoesNotTellNames(t *testing.T) {
	w := newWorld(t, nil)
	w.hub.Directory = roster{strict{w}}
	gone := room.Room{A: "Lisa", B: "erased"}
	w.Say(gone, "erased", true)
	w.Checked(gone)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	if err := s.Join(wire.Join{Rooms: wire.RoomList{List: []string{"lisa&Avi", "lisa&ERA", "NOBODY&lisa", "lisa&ERASED"}}}, "1"); err != nil {
		t.Fatal(err)
	}
	if a := l.LastAck(t); !slices.Equal(a.Joined, []string{"Avi&Lisa", "ERA&Lisa", "Lisa&NOBODY", "ERASED&Lisa"}) || a.Refused != nil {
		t.Errorf("joined %q, refused %v", a.Joined, a.Refused)
	}
	l.WaitCaughtUp(t)
	if len(l.Seqs(gone)) != 1 {
		t.Errorf("what an erased person said is not read: %v", l.Seqs(gone))
	}
}

func TestJoinOfNothingIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	for _, j := range []wire.Join{{Room: "Avi&Era"}, {Rooms: wire.RoomList{List: []string{"Avi&Era", "rubbish"}}}} {
		if err := s.Join(j, "1"); wire.AsError(err).Code != wire.Forbidden {
			t.Errorf("%v: %v", j, err)
		}
	}
	if s.active.Load() {
		t.Error("the user is online without a room")
	}
	// Without an id there is no ack, and a refusal is told all the same.
	if err := s.Join(wire.Join{Rooms: wire.RoomList{List: []string{"Avi&Lisa", "Avi&Era"}}}, ""); err != nil {
		t.Fatal(err)
	}
	if got := l.Codes(); !slices.Equal(got, []wire.Code{wire.Forbidden}) {
		t.Errorf("told %v", got)
	}
	l.WaitCaughtUp(t)
}

// What is read is one's own; the peer's permission is for writing.
func TestReceiptsReadMarkerNeedsNoPermission(t *testing.T) {
	w := newWorld(t, nil)
	w.hub.Directory = strict{w}
	w.hub.Services = w.Services(api.HistoryRead.Handle((&reads{}).read))
	w.Block("Lisa", "Avi")
	s, l := w.open("Lisa")
	defer s.Gone(true)
	if err := s.Read("Avi&Lisa", 1, "9"); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "an ack comes", 10*time.Second, func() bool { l.Mu.Lock(); defer l.Mu.Unlock(); return len(l.Acks) == 1 })
}

// Whoever may not see a user's presence learns of no marker either.
func TestReceiptsOfBlockedUsers(t *testing.T) {
	for name, dir := range map[string]func(w *world) Directory{
		"from what is known": func(w *world) Directory { return strict{w} },
		"by asking":          func(w *world) Directory { return modest{strict{w}} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.hub.Directory = dir(w)
			w.Block("Lisa", "Avi")
			s, l := w.open("Lisa")
			defer s.Gone(true)
			_ = s.Join(sessiontest.Everyone, "")
			l.WaitCaughtUp(t)
			for _, ev := range []string{wire.EvDelivered, wire.EvRead, wire.EvTyping} {
				s.Notify(sessiontest.AvisLisa, &api.Ephemeral{Event: ev, Username: "Avi", Seq: 1, Session: "other"})
			}
			s.Notify(sessiontest.AvisLisa, &api.Ephemeral{Event: wire.EvRead, Username: "Lisa", Seq: 1, Session: "other"}) // one's own other session
			s.Notify(sessiontest.ErasLisa, &api.Ephemeral{Event: wire.EvDelivered, Username: "Era", Seq: 1, Session: "other"})
			had := func() (out []string) {
				l.Mu.Lock()
				defer l.Mu.Unlock()
				for _, e := range l.Events {
					if e == wire.EvDelivered || e == wire.EvRead || e == wire.EvTyping {
						out = append(out, e)
					}
				}
				slices.Sort(out)
				return out
			}
			testx.Eventually(t, "others are heard of", 10*time.Second, func() bool { return len(had()) >= 2 })
			testx.Eventually(t, "nothing is asked any more", 10*time.Second, func() bool { s.notices.mu.Lock(); defer s.notices.mu.Unlock(); return !s.notices.asking })
			if got := had(); !slices.Equal(got, []string{wire.EvDelivered, wire.EvRead}) {
				t.Errorf("got %v", got)
			}
		})
	}
}

var _ Directory = (*directory.Directory)(nil)

// A second join delivers what the session has not been sent, and nothing twice; what comes live meanwhile keeps its order.
func TestJoinASecondTimeStartsFromWhatWasSent(t *testing.T) {
	w := newWorld(t, nil)
	for range 5 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Say(sessiontest.ErasLisa, "Era", true)
	w.Checked(sessiontest.AvisLisa)
	w.Checked(sessiontest.ErasLisa)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	for _, j := range []wire.Join{{Room: "Avi&Lisa"}, {Room: "Avi&Lisa"}, {Rooms: wire.RoomList{List: []string{"Avi&Lisa", "Era&Lisa"}}}, sessiontest.Everyone, sessiontest.Everyone, {Room: "Era&Lisa"}} {
		if err := s.Join(j, ""); err != nil {
			t.Fatal(err)
		}
		l.WaitCaughtUp(t)
		w.Say(sessiontest.AvisLisa, "Avi", true)
		w.Say(sessiontest.ErasLisa, "Era", true)
		w.Checked(sessiontest.ErasLisa)
	}
	w.Checked(sessiontest.AvisLisa)
	w.Delivered(l, "Lisa", nil)
	if got := l.Seqs(sessiontest.AvisLisa); !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
	// Who asks for it gets it once more, marked.
	n := len(l.Seqs(sessiontest.AvisLisa))
	if err := s.Join(wire.Join{Room: "Avi&Lisa", Since: map[string]int64{"Avi&Lisa": 0}}, ""); err != nil {
		t.Fatal(err)
	}
	l.WaitCaughtUp(t)
	l.Mu.Lock()
	defer l.Mu.Unlock()
	again := 0
	for _, m := range l.Messages {
		if m.Late {
			again++
		}
	}
	if again != n {
		t.Errorf("%d of %d came again", again, n)
	}
}

// A connection that breaks before caught_up comes again with the token of catching_up and misses nothing, whatever other sessions of the user
// have confirmed meanwhile.
func TestJoinSaysWhereItBegins(t *testing.T) {
	for name, j := range map[string]wire.Join{
		"all":           sessiontest.Everyone,
		"as a device":   {Rooms: wire.RoomList{All: true}, Device: "d"},
		"a list":        {Rooms: wire.RoomList{List: []string{"Avi&Lisa", "Era&Lisa"}}},
		"from a seq on": {Rooms: wire.RoomList{All: true}, Since: map[string]int64{"Avi&Lisa": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.Page = 2
			for range 9 {
				w.Say(sessiontest.AvisLisa, "Avi", true)
				w.Say(sessiontest.ErasLisa, "Era", true)
			}
			w.Checked(sessiontest.AvisLisa)
			w.Checked(sessiontest.ErasLisa)
			w.Confirmed["Lisa Avi&Lisa"] = 3
			w.Confirmed["Lisa Era&Lisa"] = 5
			since := map[room.Room]int64{sessiontest.AvisLisa: 3, sessiontest.ErasLisa: 5}
			if j.Since != nil {
				since[sessiontest.AvisLisa] = 2
			}
			s, l := w.open("Lisa")
			defer s.Gone(true)
			if err := s.Join(j, ""); err != nil {
				t.Fatal(err)
			}
			l.WaitCaughtUp(t)
			l.Mu.Lock()
			begins, at := slices.Clone(l.Begins), slices.Clone(l.BeginAt)
			l.Mu.Unlock()
			if len(begins) != 1 || at[0] != 0 {
				t.Fatalf("%d times catching_up, after %v messages", len(begins), at)
			}
			s.Gone(false)
			// Another session has confirmed everything.
			w.Mu.Lock()
			w.Confirmed["Lisa Avi&Lisa"], w.Confirmed["Lisa Era&Lisa"] = 1000, 1000
			w.Mu.Unlock()
			next, got := w.open("Lisa")
			defer next.Gone(true)
			if err := next.Join(wire.Join{Rooms: j.Rooms, Resume: begins[0]}, ""); err != nil {
				t.Fatal(err)
			}
			got.WaitCaughtUp(t)
			for rm, from := range since {
				seqs := got.Seqs(rm)
				all := l.Seqs(rm)
				if len(all) == 0 || all[0] <= from {
					t.Fatalf("%v: the first connection got %v", rm, all)
				}
				for _, seq := range all {
					if !slices.Contains(seqs, seq) {
						t.Errorf("%v: %d is missed, got %v", rm, seq, seqs)
					}
				}
			}
			if name != "from a seq on" && len(got.Seqs(sessiontest.AvisLisa)) == 9 && len(got.Seqs(sessiontest.ErasLisa)) == 9 {
				t.Error("it begins with the first message ever")
			}
			// With a resume token it begins there.
			if got.Begins[0] != begins[0] {
				t.Error("a join with a token begins elsewhere")
			}
		})
	}
}

// A token that a connection gets while a second join runs must not be above what that one misses.
func TestResumeTokensCoverAllJoins(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CatchUpPatience = time.Millisecond })
	for range 4 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
		w.Say(sessiontest.ErasLisa, "Era", true)
	}
	w.Checked(sessiontest.AvisLisa)
	w.Checked(sessiontest.ErasLisa)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(wire.Join{Room: "Avi&Lisa"}, "")
	l.WaitCaughtUp(t)
	w.SetDeaf(true)
	_ = s.Join(wire.Join{Room: "Era&Lisa"}, "")
	s.Alive("a")
	if a := l.LastAck(t); a.Resume != "" {
		t.Fatal("a token although it is not known what the second room misses")
	}
	w.SetDeaf(false)
	l.WaitCaughtUp(t)
	l.Mu.Lock()
	begin := l.Begins[len(l.Begins)-1]
	l.Mu.Unlock()
	next, got := w.open("Lisa")
	defer next.Gone(true)
	_ = next.Join(wire.Join{Rooms: wire.RoomList{List: []string{"Avi&Lisa", "Era&Lisa"}}, Resume: begin}, "")
	got.WaitCaughtUp(t)
	if n := len(got.Seqs(sessiontest.ErasLisa)); n != 4 {
		t.Errorf("%d of 4 of the second room", n)
	}
	// Two joins at once have one end, which covers both.
	third, both := w.open("Lisa")
	defer third.Gone(true)
	w.SetDeaf(true)
	_ = third.Join(wire.Join{Room: "Avi&Lisa", Resume: l.Resume}, "")
	_ = third.Join(wire.Join{Room: "Era&Lisa", Since: map[string]int64{"Era&Lisa": 0}}, "")
	w.SetDeaf(false)
	both.WaitCaughtUp(t)
	if n := len(both.Seqs(sessiontest.ErasLisa)); n != 4 {
		t.Errorf("caught up after %d of 4 of the second room", n)
	}
}

// ignorant knows nothing until it is told.
type ignorant struct {
	modest
	known *atomic.Bool
}

func (d ignorant) Authorize(ctx context.Context, user, name string) (string, error) {
	if !d.known.Load() {
		return "", rpc.ErrUnavailable
	}
	return d.modest.Authorize(ctx, user, name)
}

// While nothing is known of a user's relations, no mark is lost, and none comes after a younger one.
func TestReceiptsMarksWaitForTheDirectory(t *testing.T) {
	w := newWorld(t, nil)
	var known atomic.Bool
	w.hub.Directory = ignorant{modest{strict{w}}, &known}
	s, l := w.open("Lisa")
	defer s.Gone(true)
	_ = s.Join(sessiontest.Everyone, "")
	l.WaitCaughtUp(t)
	notify := func(seq int64) {
		for _, r := range []room.Room{sessiontest.AvisLisa, sessiontest.ErasLisa} {
			for _, ev := range []string{wire.EvDelivered, wire.EvRead} {
				s.Notify(r, &api.Ephemeral{Event: ev, Username: r.Peer("Lisa"), Seq: seq, Session: "other"})
			}
		}
	}
	for seq := range int64(50) {
		notify(seq + 1)
	}
	known.Store(true)
	for seq := range int64(50) {
		notify(seq + 51)
	}
	testx.Eventually(t, "all marks are told", 10*time.Second, func() bool { s.notices.mu.Lock(); defer s.notices.mu.Unlock(); return !s.notices.asking })
	l.Mu.Lock()
	defer l.Mu.Unlock()
	last := map[string]int64{}
	for i, m := range l.Marks {
		k := l.MarkEvents[i] + " " + m.Username
		if m.Seq <= last[k] {
			t.Errorf("%s %d after %d", k, m.Seq, last[k])
		}
		last[k] = m.Seq
	}
	for _, k := range []string{"message_read Avi", "message_delivered Avi", "message_read Era", "message_delivered Era"} {
		if last[k] != 100 {
			t.Errorf("%s: told of %d", k, last[k])
		}
	}
}
