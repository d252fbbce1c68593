package legacy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/session/sessiontest"
)

func TestDelayBeforeAnythingComes(t *testing.T) {
	w := newWorld(t, nil)
	for range 3 {
		w.Say(sessiontest.AvisLisa, "Avi", true)
	}
	w.Apply(10, false)
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa", "Era&Lisa", "Lisa&Avi")
	w.Say(sessiontest.AvisLisa, "Avi", true)
	w.Apply(10, false)
	c.conn.Tick(time.Now())
	c.barrier()
	var pending []room.Room
	c.inside(func() { pending = c.conn.pending })
	if said := w.Heard(); len(c.events) != 0 || len(said) != 0 || !slices.Equal(pending, []room.Room{sessiontest.AvisLisa, sessiontest.ErasLisa}) {
		t.Fatalf("got %q; presence was told %q; pending %v", c.events, said, pending)
	}
	c.begin()
	c.seqs(wire.EvReceived, 1, 2, 3, 4)
	if said := w.Heard(); !slices.Equal(said, []string{"online Lisa", "watch everybody"}) {
		t.Fatalf("presence was told %q", said)
	}
	c.caughtUp()
	w.Say(sessiontest.ErasLisa, "Era", true)
	c.seqs(wire.EvReceived, w.Seqs[sessiontest.ErasLisa])
	// Joins after it are at once.
	w.Say(room.Room{A: "Lisa", B: "Tsahi"}, "Tsahi", true)
	w.Apply(10, false)
	c.mustJoin(tok, "Lisa", "Lisa&Tsahi")
	c.seqs(wire.EvReceived, w.Seqs[room.Room{A: "Lisa", B: "Tsahi"}])
	c.begin() // does nothing the second time
	c.want()
}

func TestDelayEndsByItself(t *testing.T) {
	w := newWorld(t, func(_ *session.Config, s *Config) { s.Delay = time.Millisecond })
	w.Say(sessiontest.AvisLisa, "Leonid", true)
	w.Apply(10, false)
	c := w.client()
	c.mustJoin(w.Login("Lisa"), "lisa", "lisa&Avi") // names as somebody typed them
	c.seqs(evBotMessage, 1)
}

func TestCursorOfAnOldClient(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	s := c.conn.session()
	w.Say(sessiontest.AvisLisa, "Avi", true)
	accept(s, w.Say(sessiontest.AvisLisa, "Lisa", false)) // sent before the delay is over, and not shown
	w.Checked(sessiontest.AvisLisa)
	c.conn.Tick(time.Now())
	c.ws.Send("3", "3")
	c.barrier()
	if asked := s.Tick(time.Now()); asked != 0 || c.question() != 0 || len(c.events) != 0 {
		t.Fatalf("a cursor moves before anything was written: %d %d %q", asked, c.question(), c.events)
	}
	c.conn.sio.Engine().Ping() // a heartbeat, before the messages
	c.begin()
	c.caughtUp()
	c.take(3)
	c.conn.Tick(time.Now())
	if got := c.take(1); got[0] != "ping" {
		t.Fatalf("got %q", got)
	}
	c.ws.Send("3") // to the heartbeat
	c.barrier()
	if c.question() == 0 || w.ConfirmedOf("Lisa", sessiontest.AvisLisa) != 0 {
		t.Fatal("confirmed by the answer to a ping from before")
	}
	c.ws.Send("3")
	testx.Eventually(t, "history is told", 20*time.Second, func() bool { return w.ConfirmedOf("Lisa", sessiontest.AvisLisa) == 2 })
	// Once confirmed, there is nothing to ask.
	c.conn.Tick(time.Now())
	c.want()
}

func TestMessagesOfOnesOwnAreShownOnce(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
	s := c.conn.session()
	accept(s, w.Say(sessiontest.AvisLisa, "Lisa", false)) // during the delay
	w.Apply(10, false)
	c.want()
	c.begin()
	c.seqs(wire.EvReceived, 1)
	c.caughtUp()
	accept(s, w.Say(sessiontest.AvisLisa, "Lisa", true)) // live
	c.seqs(wire.EvReceived, 2)
	// While a catch-up of the room runs, and while that of another one puts off the room's own.
	w.SetDeaf(true)
	c.mustJoin(tok, "Lisa", "Era&Lisa")
	testx.Eventually(t, "the catch-up runs", 20*time.Second, func() bool { return s.CatchingUp() })
	accept(s, w.Say(sessiontest.ErasLisa, "Lisa", true))
	tsahi := room.Room{A: "Lisa", B: "Tsahi"}
	c.mustJoin(tok, "Lisa", "Lisa&Tsahi")
	accept(s, w.Say(tsahi, "Lisa", true))
	w.Apply(10, false)
	w.SetDeaf(false)
	c.caughtUp()
	c.barrier()
	got := map[string]int{}
	for _, e := range c.take(0) {
		for _, r := range []string{"Avi&Lisa", "Era&Lisa", "Lisa&Tsahi"} {
			if strings.Contains(e, strings.ReplaceAll(r, "&", `\u0026`)) || strings.Contains(e, r) {
				got[r]++
			}
		}
	}
	if got["Avi&Lisa"] != 0 || got["Era&Lisa"] != 1 || got["Lisa&Tsahi"] != 1 {
		t.Fatalf("got %v", got)
	}
}

func TestKeepAliveMissingEndsTheLogin(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
	c.begin()
	c.caughtUp()
	w.Heard()
	late := time.Now().Add(62 * time.Second)
	// A sign of life that comes just before the end is one.
	c.inside(func() {
		c.conn.Tick(late)
		c.conn.alive.Add(1)
	})
	c.barrier() // of "nobody", which is no sign of life of Lisa's
	w.Hub.Wait(w.Ctx)
	if c.conn.session() == nil {
		t.Fatal("signed out although it has just said that it is alive")
	}
	old := time.Now().Add(-time.Hour).UnixMilli()
	c.conn.alive.Store(old)
	c.barrier()
	if c.conn.alive.Load() != old {
		t.Fatal("somebody else's sign of life counts")
	}
	if a := c.ask(wire.EvAlive, map[string]any{"client": "LISA"}); a != `{"result":"success"}` || c.conn.alive.Load() == old {
		t.Fatalf("got %s", a)
	}
	c.conn.Tick(time.Now().Add(30 * time.Second))
	c.conn.Tick(late.Add(2 * time.Second))
	if l := enginetest.Wait(t, w.Logouts); l.Username != "Lisa" || l.SID != "sid-"+tok {
		t.Fatalf("got %+v", l)
	}
	testx.Eventually(t, "the session ends", 20*time.Second, func() bool { return c.conn.session() == nil })
	if said := w.Heard(); !slices.Equal(said, []string{"gone Lisa true"}) {
		t.Fatalf("presence was told %q", said)
	}
	// The connection goes on, and a sign of life alone brings nobody back.
	c.ask(wire.EvAlive, map[string]any{"client": "Lisa"})
	if c.conn.alive.Load() != 0 {
		t.Fatal("it counts")
	}
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	c.begin()
	c.caughtUp()
	w.Say(sessiontest.AvisLisa, "Avi", true)
	c.seqs(wire.EvReceived, 1)
}

// The keep-alive counts from the join, whatever else is said; after a new login, from that one's join.
func TestKeepAliveCountsFromTheJoinOfEachLogin(t *testing.T) {
	w := newWorld(t, func(_ *session.Config, c *Config) { c.Alive = 18 * time.Second })
	c := w.client()
	first, second := w.Login("Lisa"), w.Login("Lisa")
	c.mustJoin(first, "Lisa", "Avi&Lisa")
	if !w.legacy.Joined("Lisa") || w.legacy.Joined("Avi") {
		t.Fatal("Lisa has joined")
	}
	ago := func(d time.Duration) int64 {
		at := time.Now().Add(-d).UnixMilli()
		c.conn.alive.Store(at)
		return at
	}
	at := ago(15 * time.Second)
	c.mustJoin(first, "Lisa", "Era&Lisa")
	c.ask(wire.EvSend, map[string]any{"sender": "Lisa", "content": "x", "conversation_room": "Lisa&nobody", "jwt": second})
	if c.conn.alive.Load() != at {
		t.Fatal("what is no sign of life counts as one")
	}
	c.mustJoin(second, "Lisa", "Avi&Lisa")
	if joined := c.conn.alive.Load(); joined-at < 14_000 {
		t.Fatal("the join of a new login does not count")
	}
	// 17 s are kept: at that look nothing is planned yet. At the next one the end is, to the moment.
	at = ago(17 * time.Second)
	c.conn.Tick(time.UnixMilli(at).Add(17 * time.Second))
	w.Hub.Wait(w.Ctx)
	if c.conn.session() == nil {
		t.Fatal("17 s of silence end a login")
	}
	next := time.UnixMilli(at).Add(17*time.Second + time.Millisecond)
	time.Sleep(time.Until(next)) // no look is earlier than the clock
	c.conn.Tick(next)
	if l := enginetest.Wait(t, w.Logouts); l.SID != "sid-"+second || time.Now().Before(time.UnixMilli(at).Add(18*time.Second)) {
		t.Fatalf("the login %s ended after %s", l.SID, time.Since(time.UnixMilli(at)))
	}
	w.Hub.Wait(w.Ctx)
	if w.legacy.Joined("Lisa") {
		t.Fatal("still joined")
	}
}

// A connection that is dead and not known to be is silent; the token that it shares with the one in its place stays good.
func TestKeepAliveIsTheUsers(t *testing.T) {
	w := newWorld(t, func(_ *session.Config, c *Config) { c.Alive = 18 * time.Second })
	tok := w.Login("Lisa")
	dead, living, other := w.client(), w.client(), w.client()
	old := time.Now().Add(-17 * time.Second).UnixMilli()
	dead.mustJoin(tok, "Lisa", "Avi&Lisa")
	dead.conn.alive.Store(old)
	living.mustJoin(tok, "Lisa", "Avi&Lisa") // a sign of life as well
	other.mustJoin(w.Login("Avi"), "Avi", "Avi&Lisa")
	if dead.conn.alive.Load() == old {
		t.Fatal("the join does not count")
	}
	for _, c := range []*client{dead, living, other} {
		c.conn.alive.Store(old)
	}
	living.ask(wire.EvAlive, map[string]any{"client": "Lisa"})
	if dead.conn.alive.Load() == old || living.conn.alive.Load() == old || other.conn.alive.Load() != old {
		t.Fatal("a sign of life is of its user, on all connections")
	}
	// Who is silent on all of them goes, on all of them.
	dead.conn.Tick(time.Now().Add(time.Minute))
	if l := enginetest.Wait(t, w.Logouts); l.SID != "sid-"+tok {
		t.Fatalf("got %+v", l)
	}
	living.ask(wire.EvDisconnection, map[string]any{"client": "Lisa", "jwt": tok})
	w.Hub.Wait(w.Ctx)
	if w.legacy.Joined("Lisa") || !w.legacy.Joined("Avi") {
		t.Fatal("who has joined is not who has")
	}
}

func TestSignOutEndsTheLogin(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	tok := w.Login("Lisa")
	goodbye := func(jwt, user string) string {
		return c.ask(wire.EvDisconnection, map[string]any{"client": user, "jwt": jwt})
	}
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
	c.begin()
	c.caughtUp()
	w.Heard()
	if a := goodbye("rubbish", "Lisa"); a != `{"error":"Invalid JWT"}` || c.conn.session() == nil {
		t.Fatalf("got %s", a)
	}
	if a := goodbye(tok, "Lisa"); a != `{"result":"success"}` {
		t.Fatalf("got %s", a)
	}
	if l := enginetest.Wait(t, w.Logouts); l.Username != "Lisa" || l.SID != "sid-"+tok {
		t.Fatalf("got %+v", l)
	}
	if said := w.Heard(); !slices.Equal(said, []string{"gone Lisa true"}) || c.conn.session() != nil {
		t.Fatalf("presence was told %q", said)
	}
	// Where the revocation is yet to be heard of, the connection itself knows: whatever comes behind a good-bye is too late.
	if a := c.join(tok, "Lisa", "Avi&Lisa"); a != `{"error":"Invalid JWT"}` || c.conn.session() != nil {
		t.Fatalf("after the good-bye: got %s", a)
	}
	w.Say(sessiontest.AvisLisa, "Avi", true)
	c.want()
	if want := []string{`["new_user_online",{"username":"Lisa"}]`, `["user_has_gone_offline",{"username":"Lisa"}]`}; !slices.Equal(c.own, want) {
		t.Fatalf("of herself she heard %q", c.own)
	}
	// Without a session before it as well, and during the delay.
	tok = w.Login("Avi")
	if a := goodbye(tok, "Avi"); a != `{"result":"success"}` {
		t.Fatalf("got %s", a)
	}
	enginetest.Wait(t, w.Logouts)
	tok = w.Login("Era")
	c.mustJoin(tok, "Era", "Era&Lisa")
	goodbye(tok, "Era")
	enginetest.Wait(t, w.Logouts)
	c.begin()
	c.inside(func() {
		if said := w.Heard(); len(said) != 0 || c.conn.delay != nil || c.conn.pending != nil {
			t.Errorf("presence was told %q", said)
		}
	})
}

func TestPresenceIsToldHowAConnectionEnds(t *testing.T) {
	for name, end := range map[string]struct {
		do         func(c *client)
		deliberate bool
	}{
		"lost":                      {func(c *client) { c.ws.Abort() }, false},
		"closed":                    {func(c *client) { c.ws.Send("1") }, true},
		"the namespace was left":    {func(c *client) { c.ws.Send("41") }, true},
		"closed by the WebSocket's": {func(c *client) { c.ws.Close(1000) }, true},
		"it went away":              {func(c *client) { c.ws.Close(1001) }, false},
		"bad packets":               {func(c *client) { c.ws.Send("4junk") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			c := w.client()
			c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
			c.begin()
			c.caughtUp()
			w.Heard()
			end.do(c)
			var said []string
			testx.Eventually(t, "presence is told", 20*time.Second, func() bool { said = append(said, w.Heard()...); return len(said) > 0 })
			if want := fmt.Sprintf("gone Lisa %v", end.deliberate); !slices.Equal(said, []string{want}) {
				t.Fatalf("presence was told %q", said)
			}
			if len(w.Logouts) != 0 {
				t.Fatal("the login has ended")
			}
		})
	}
}

func TestLoginRevokedEndsTheSessionOnly(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
	c.begin()
	c.caughtUp()
	w.Void(w.Login("Lisa")) // another login's
	w.Hub.Wait(w.Ctx)
	if c.conn.session() == nil {
		t.Fatal("ended with another login")
	}
	w.Heard()
	w.Void(tok)
	testx.Eventually(t, "the session ends", 20*time.Second, func() bool { return c.conn.session() == nil })
	if said := w.Heard(); !slices.Equal(said, []string{"gone Lisa true"}) {
		t.Fatalf("presence was told %q", said)
	}
	if a := c.join(tok, "Lisa", "Avi&Lisa"); a != `{"error":"Invalid JWT"}` {
		t.Fatalf("got %s", a)
	}
	a := c.ask(wire.EvSend, map[string]any{"sender": "Lisa", "content": "x", "conversation_room": "Avi&Lisa", "jwt": tok})
	if a != `{"error":"Invalid JWT"}` {
		t.Fatalf("got %s", a)
	}
	c.want(`["received_message",{"sender":"Admin","content":"Error! User 'Lisa' must disconnect, re login and reconnect so the conversation can be resumed."}]`)
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
}

func TestLoginTokensAreGoodForTheirUserOnly(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	lisa := w.Login("Lisa")
	admin := func(sender string) string {
		return `["received_message",{"sender":"Admin","content":"Error! User '` + sender + `' must disconnect, re login and reconnect so the conversation can be resumed."}]`
	}
	refused := func(name, tok, user, rm string) {
		t.Helper()
		if a := c.join(tok, user, rm); a != `{"error":"Invalid JWT"}` {
			t.Fatalf("%s: got %s", name, a)
		}
		a := c.ask(wire.EvSend, map[string]any{"sender": user, "content": "x", "conversation_room": rm, "jwt": tok})
		if a != `{"error":"Invalid JWT"}` {
			t.Fatalf("%s: got %s", name, a)
		}
		c.want(admin(strings.ReplaceAll(user, `"`, `\"`)))
		if a := c.ask(wire.EvDisconnection, map[string]any{"client": user, "jwt": tok}); a != `{"error":"Invalid JWT"}` {
			t.Fatalf("%s: got %s", name, a)
		}
	}
	for range 2 { // before anybody has joined, and after Lisa has
		refused("blank", "", "Lisa", "Avi&Lisa")
		refused("rubbish", "x.y.z", "Lisa", "Avi&Lisa")
		refused("another user's", w.Login("Avi"), "Lisa", "Avi&Lisa")
		refused("for another user", lisa, "Avi", "Avi&Lisa")
		refused("of no scope", w.Token("Lisa", ""), "Lisa", "Avi&Lisa")
		refused("of the admin's scope alone", w.Token("Lisa", token.ScopeAdmin), "Lisa", "Avi&Lisa")
		refused("a name that ends the text", "", `Li"sa`, "x")
		c.mustJoin(lisa, "Lisa", "Avi&Lisa")
	}
	refused("of a second user on the connection", w.Login("Avi"), "Avi", "Avi&Lisa")
	// The native scope is as good, and a new login of the same user goes on with the session.
	s := c.conn.session()
	c.mustJoin(w.Token("Lisa", token.ScopeNative), "Lisa", "Avi&Lisa")
	if c.conn.session() != s || s.Claims().Scope != token.ScopeNative {
		t.Fatal("it is another session")
	}
	// One that was found good is looked at again.
	w.Mu.Lock()
	old := w.Tokens[lisa]
	w.Mu.Unlock()
	c.mustJoin(lisa, "Lisa", "Avi&Lisa")
	expired := old
	expired.Expires = time.Now().Add(-time.Second)
	_ = s.Renew(expired)
	refused("run out", lisa, "Lisa", "Avi&Lisa")
	_ = s.Renew(old)
	w.Mu.Lock()
	w.Ended[old.SID] = true // the gateway's verifier knows, the search for connections comes later
	w.Mu.Unlock()
	refused("revoked", lisa, "Lisa", "Avi&Lisa")
	w.Mu.Lock()
	w.Away = true
	w.Mu.Unlock()
	if a := c.join("new", "Lisa", "Avi&Lisa"); strings.Contains(a, "JWT") || !strings.Contains(a, `{"error":`) {
		t.Fatalf("got %s", a)
	}
	c.want() // nobody is told to log in again because auth is away
}

func TestAnswersToWhatIsNotRight(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	tok := w.Login("Lisa")
	for _, x := range []struct {
		event string
		data  map[string]any
		want  string
	}{
		{wire.EvJoin, map[string]any{"client": "Lisa", "jwt": tok}, `{"error":"Invalid request, missing required field: room"}`},
		{wire.EvJoin, map[string]any{"room": "Avi&Lisa", "client": "Lisa"}, `{"error":"Invalid request, missing required field: jwt"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "jwt": tok, "content": "x"}, `{"error":"Invalid request, missing required field: conversation_room"}`},
		{wire.EvDisconnection, nil, `{"error":"Invalid request, missing required field: client"}`},
		// A key that is there is not missing, whatever it says.
		{wire.EvJoin, map[string]any{"room": 1, "client": "Lisa", "jwt": tok}, `{"error":"a room is two different user names joined with \u0026"}`},
		{wire.EvJoin, map[string]any{"room": []string{"Avi&Lisa"}, "client": "Lisa", "jwt": tok}, `{"error":"a room is two different user names joined with \u0026"}`},
		{wire.EvJoin, map[string]any{"room": "Avi&Lisa", "client": nil, "jwt": tok}, `{"error":"Invalid JWT"}`},
		{wire.EvJoin, map[string]any{"room": "Avi&Lisa", "client": "Lisa", "jwt": nil}, `{"error":"Invalid JWT"}`},
		{wire.EvJoin, map[string]any{"room": "Avi&Lisa", "client": "Lisa", "jwt": 7}, `{"error":"Invalid JWT"}`},
		{wire.EvJoin, map[string]any{"Room": "Avi&Lisa", "client": "Lisa", "jwt": tok}, `{"error":"Invalid request, missing required field: room"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "content": 5, "conversation_room": "Avi&Lisa", "jwt": tok}, `{"error":"content is non-empty text without NUL characters"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "content": "x", "conversation_room": nil, "jwt": tok}, `{"error":"a room is two different user names joined with \u0026"}`},
		{wire.EvDisconnection, map[string]any{"client": []string{}, "jwt": tok}, `{"error":"Invalid JWT"}`},
		{wire.EvAlive, map[string]any{"client": []string{}}, `{"result":"success"}`},
		{wire.EvJoin, nil, `{"error":"Invalid request, missing required field: room"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "content": "x", "conversation_room": "Avi&Lisa", "jwt": tok, "id": 7}, `{"error":"Invalid request"}`},
		{"typing", map[string]any{}, `{"error":"there is no event \"typing\""}`},
		{wire.EvJoin, map[string]any{"room": "Avi&Era", "client": "Lisa", "jwt": tok}, `{"error":"this is not a room of yours"}`},
		{wire.EvJoin, map[string]any{"room": "rubbish", "client": "Lisa", "jwt": tok}, `{"error":"a room is two different user names joined with \u0026"}`},
		{wire.EvJoin, map[string]any{"room": "Lisa&nobody", "client": "Lisa", "jwt": tok}, `{"error":"there is no such user"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "content": "x", "conversation_room": "Lisa&nobody", "jwt": tok}, `{"error":"there is no such user"}`},
		{wire.EvSend, map[string]any{"sender": "Lisa", "content": "", "conversation_room": "Avi&Lisa", "jwt": tok}, `{"error":"content is non-empty text without NUL characters"}`},
		{wire.EvJoin, map[string]any{"room": "Lisa&away", "client": "Lisa", "jwt": tok}, `{"error":"something went wrong here; try again"}`},
	} {
		if a := c.ask(x.event, x.data); a != x.want {
			t.Fatalf("%s %v: got %s", x.event, x.data, a)
		}
	}
	c.ws.Send(`42["typing",{}]`, `451-9["join",{"_placeholder":true,"num":0}]`)
	c.ws.SendBinary(1)
	if id, ack := c.next(); id != "" || !strings.HasPrefix(c.take(1)[0], `["error",{"code":"invalid_argument"`) {
		t.Fatalf("got %s %s", id, ack)
	}
	if _, ack := c.next(); ack != `{"error":"binary data has no place here"}` {
		t.Fatalf("got %s", ack)
	}
	c.ws.Send("40/admin,{}")
	c.ws.Want(`44/admin,{"message":"Invalid namespace"}`)
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
}

func TestLimitsEndTheConnection(t *testing.T) {
	w := newWorld(t, func(c *session.Config, _ *Config) { c.FramesPerSecond = 1 })
	c := w.client()
	for range 3 * (MaxContacts + 100) {
		c.ws.Send(`42["connection_alive",{"client":"x"}]`)
	}
	c.ws.WantClose(wire.CloseRate.Code)
	c = w.client()
	for range 2 * 30 {
		c.ws.Send(`42["what"]`)
	}
	c.ws.WantClose(wire.CloseBadFrames.Code)
	// By polling as well; what was said first is not lost.
	p := w.site.Open()
	p.Post("40\x1e" + strings.Repeat("42[\"what\"]\x1e", 2*30) + "6")
	if a := p.Get(); a.Status != http.StatusBadRequest {
		t.Fatalf("got %+v", a)
	}
}

// TestLimitsCountComingAndGoing: entering and leaving the namespace costs more than an event, and needs no token.
func TestLimitsCountComingAndGoing(t *testing.T) {
	w := newWorld(t, nil)
	for name, packets := range map[string]string{"in and out": "41\x1e40", "another namespace": "40/other,"} {
		c := w.client()
		for range 30 + 1 {
			c.ws.Send(strings.Split(packets, "\x1e")...)
		}
		c.ws.WantClose(wire.CloseRate.Code)
		p := w.site.Open()
		p.Post("40\x1e" + strings.Repeat(packets+"\x1e", 30+1) + "6")
		if a := p.Get(); a.Status != http.StatusBadRequest {
			t.Fatalf("%s: got %+v", name, a)
		}
	}
	// As often as anybody has reason to.
	c := w.client()
	for range 10 {
		c.ws.Send("41", "40")
		if m := c.ws.Next(); !strings.HasPrefix(m.Data, "40{") {
			t.Fatalf("got %+v", m)
		}
	}
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
}

// TestLoginTokensAreNotTriedForEver: each other token costs the check of a signature, whoever sends it.
func TestLoginTokensAreNotTriedForEver(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	for range 3 * 30 { // one that ran out, for each room
		if a := c.join("a.b.c", "Lisa", "Avi&Lisa"); a != `{"error":"Invalid JWT"}` {
			t.Fatalf("got %s", a)
		}
	}
	for i := range 2 * 30 {
		c.ws.Send(fmt.Sprintf(`42["join",{"room":"Avi&Lisa","client":"Lisa","jwt":"a.b.%d"}]`, i))
	}
	c.ws.WantClose(wire.CloseBadFrames.Code)
}

func TestLoginThatNeverComes(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client()
	now := time.Now()
	c.conn.Tick(now.Add(55 * time.Second))
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	c.conn.quietSince.Store(0)
	c.conn.Tick(now) // somebody is signed in
	c.barrier()
	tok := w.Login("Lisa")
	c.ask(wire.EvDisconnection, map[string]any{"client": "Lisa", "jwt": tok})
	c.conn.Tick(now.Add(55 * time.Second))
	c.barrier()
	c.conn.Tick(now.Add(70 * time.Second))
	c.ws.WantClose(wire.CloseNoAuth.Code)
}

func TestLimitsOfConnections(t *testing.T) {
	w := newWorld(t, nil)
	get := func() enginetest.Answer {
		return w.site.Do(context.Background(), http.MethodGet, "EIO=4&transport=polling", "", nil)
	}
	limits := w.Table.Limits
	w.Table.PerAddress = 0
	if a := get(); a.Status != http.StatusTooManyRequests {
		t.Fatalf("got %+v", a)
	}
	w.Table.Limits = limits
	c := w.client()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan struct{})
	go func() { w.Table.Drain(ctx, time.Millisecond); close(drained) }()
	c.ws.WantClose(wire.CloseDraining.Code)
	enginetest.Wait(t, drained)
	if a := get(); a.Status != http.StatusServiceUnavailable {
		t.Fatalf("got %+v", a)
	}
	if ws, status := w.site.Dial("EIO=4&transport=websocket", ""); ws != nil || status != http.StatusServiceUnavailable {
		t.Fatalf("got %d", status)
	}
}

func TestLimitsOfSessionsOfOneUser(t *testing.T) {
	w := newWorld(t, func(c *session.Config, _ *Config) { c.UserConnections = 1 })
	one, two := w.client(), w.client()
	one.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	two.inside(func() { two.conn.tokens.noPlace = time.Now() }) // it has waited for it, for another room
	if a := two.join(w.Login("Lisa"), "Lisa", "Avi&Lisa"); a != `{"error":"this user has too many connections here; close one"}` {
		t.Fatalf("got %s", a)
	}
	one.ws.Send("41")
	testx.Eventually(t, "the place is free", 20*time.Second, func() bool { return two.join(w.Login("Lisa"), "Lisa", "Avi&Lisa") == `{"result":"success"}` })
}

func online(u string) string  { return `["new_user_online",{"username":"` + u + `"}]` }
func offline(u string) string { return `["user_has_gone_offline",{"username":"` + u + `"}]` }

// update tells a session's client of presence.
func update(s *session.Session, online []string, offline []api.PresenceChange, unknown, snapshot, partial bool) {
	p := &wire.Presence{Online: online, Unknown: unknown, Snapshot: snapshot, Partial: partial}
	for _, o := range offline {
		p.Offline = append(p.Offline, wire.Offline{Username: o.User})
	}
	s.Send(wire.EvPresence, p, "")
}

func TestPresenceStartsFromTheServedListAndAlternates(t *testing.T) {
	w := newWorld(t, nil)
	w.There = []string{"Avi", "Era", "Lisa"}
	w.legacy.Served("Lisa", []string{"Avi", "Tsahi", "Lisa"})
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa")
	c.begin()
	c.want(offline("Tsahi"), online("Era")) // since the list was served; nothing of Lisa herself
	s := c.caughtUp()
	change := func(u string) []api.PresenceChange { return []api.PresenceChange{{User: u}} }
	update(s, []string{"Avi"}, nil, false, false, false)
	update(s, []string{"Era", "Tsahi"}, change("Avi"), false, false, false)
	update(s, nil, change("Avi"), false, false, false)
	update(s, nil, nil, true, false, false) // unknown for a while
	update(s, []string{"Avi", "Tsahi"}, nil, false, true, false)
	got := c.take(4)
	if want := []string{online("Tsahi"), offline("Avi"), offline("Era"), online("Avi")}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	c.want()
	// A new login on the same connection starts anew, from a new list or from none.
	c.ask(wire.EvDisconnection, map[string]any{"client": "Lisa", "jwt": tok})
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	c.begin()
	c.want(online("Avi"), online("Era"))
}

func TestPresenceInALargeDirectoryIsOfJoinedRooms(t *testing.T) {
	w := newWorld(t, nil)
	w.Large, w.There = true, []string{"Avi", "Tsahi", "Zoe"}
	w.legacy.Served("Lisa", []string{"Avi", "Era"})
	c := w.client()
	tok := w.Login("Lisa")
	c.mustJoin(tok, "Lisa", "Avi&Lisa", "Era&Lisa")
	c.begin()
	c.want(offline("Era")) // Avi was there before, and is
	c.caughtUp()
	if said := w.Heard(); said[len(said)-1] != "watch Avi Era" {
		t.Fatalf("presence was told %q", said)
	}
	// Rooms that are joined later are added, also while their catch-ups still wait.
	w.SetDeaf(true)
	c.mustJoin(tok, "Lisa", "Lisa&Tsahi", "Lisa&Moshe", "Lisa&Zoe")
	if said := w.Heard(); said[len(said)-1] != "watch Avi Era Moshe Tsahi Zoe" {
		t.Fatalf("presence was told %q", said)
	}
	c.want(online("Tsahi"), online("Zoe"))
	w.SetDeaf(false)
	c.caughtUp()
}

// Who is watched is asked of auth. While that does not answer, nobody is taken for a stranger: what was watched stays, else presence is unknown.
func TestPresenceListWaitsForAuth(t *testing.T) {
	w := newWorld(t, nil)
	silent := func(yes bool) { w.Mu.Lock(); defer w.Mu.Unlock(); w.Silent = yes }
	silent(true)
	s, l := w.open("Lisa")
	defer s.Gone(true)
	count := func(event string) (n int) {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		for _, e := range l.Events {
			if e == event {
				n++
			}
		}
		return n
	}
	var said []string
	watches := func(list string) bool {
		said = append(said, w.Heard()...)
		return slices.Contains(said, "watch "+list)
	}
	if err := s.Watch([]string{"Avi", "nobody", "Era"}, "1"); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "it hears that presence is unknown", 20*time.Second, func() bool { return count(wire.EvPresence) == 1 })
	silent(false)
	testx.Eventually(t, "auth is asked again", 20*time.Second, func() bool { return watches("Avi Era") })
	silent(true)
	if err := s.Watch([]string{"Tsahi"}, "2"); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "the second list is taken", 20*time.Second, func() bool { return count(wire.EvAck) == 2 })
	if len(w.Heard()) > 0 || count(wire.EvPresence) != 2 {
		t.Fatal("what was watched is not any more")
	}
	silent(false)
	testx.Eventually(t, "auth is asked again", 20*time.Second, func() bool { return watches("Tsahi") })
}

func TestPresenceInARosterIsOfContacts(t *testing.T) {
	w := newWorld(t, nil)
	w.Contacts, w.There = []string{"Avi", "Era"}, []string{"Avi", "Zoe"}
	c := w.client()
	c.mustJoin(w.Login("Lisa"), "Lisa", "Avi&Lisa")
	c.begin()
	c.want(online("Avi"))
	if said := w.Heard(); !slices.Equal(said, []string{"online Lisa", "watch Avi Era"}) {
		t.Fatalf("presence was told %q", said)
	}
}

func TestPresenceListsAreForgotten(t *testing.T) {
	s := newServed()
	l := &Legacy{served: s}
	l.Served("Lisa", []string{"Avi"})
	if got := s.take("Lisa"); !slices.Equal(got, []string{"Avi"}) || s.take("Lisa") != nil || s.take("Avi") != nil {
		t.Fatalf("got %q", got)
	}
	s.rows.Add("Lisa", servedList{[]string{"Avi"}, time.Now().Add(-servedFor - time.Second)})
	if s.take("Lisa") != nil {
		t.Fatal("an old list is taken")
	}
	for i := range 2 * servedUsers {
		l.Served(fmt.Sprint(i), nil)
	}
	if s.rows.Len() != servedUsers {
		t.Fatalf("%d lists are kept", s.rows.Len())
	}
}

func TestConfig(t *testing.T) {
	good := Config{Delay: 3 * time.Second, Alive: 12 * time.Second, PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, Idle: time.Minute}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	err := Config{Delay: -1}.Validate()
	for _, name := range []string{"socketio-alive", "socketio-ping-interval", "socketio-ping-timeout", "socketio-idle", "socketio-delay"} {
		if err == nil || !strings.Contains(err.Error(), name+":") {
			t.Fatalf("%s: got %v", name, err)
		}
	}
}
