package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/tests/chaos/checker"
	"parley.example/tests/picture"
)

// sdkLine is a connection of the SDK, which hides reconnects.
type sdkLine struct {
	d    *device
	conn *client.Conn
}

func (l sdkLine) send(ctx context.Context, room, content, id string, retry bool) (int64, error) {
	acc, err := l.conn.SendMessage(ctx, client.Outgoing{Room: room, Content: content, ID: id, Retry: retry})
	var we *wire.Error
	if errors.As(err, &we) {
		return 0, refusal{string(we.Code)}
	}
	return acc.Seq, err
}

// read has no answer of its own: it is said again until a conversation shows it, as an application would that must know.
func (l sdkLine) read(ctx context.Context, room string, seq int64) error {
	for {
		if err := l.conn.Read(ctx, room, seq); err != nil && !errors.Is(err, client.ErrNotConnected) {
			return err
		}
		for range 20 {
			var page client.ConversationsPage
			if err := l.d.w.get(l.d.p.name, "/v1/conversations?limit=100", &page); err != nil {
				return err
			}
			for _, c := range page.Conversations {
				if c.Room == room && c.ReadSeq >= seq {
					return nil
				}
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !l.d.w.quiet.Load() {
			continue // something is broken, and that is what there is to see
		}
		l.d.w.t.Logf("%s/%s: a marker that was said once was not set; errors: %v", l.d.p.name, l.d.name, l.d.refusals())
	}
}

func (l sdkLine) bye()  { _ = l.conn.Close() }
func (l sdkLine) drop() { _ = l.conn.Close() }

func (d *device) sdkOnce() error {
	api, err := client.New(d.entry(), d.w.http)
	if err != nil {
		return err
	}
	s := api.Session(client.Tokens{AccessToken: d.w.c.Token(d.p.name, d.p.name+"-"+d.name, "native"), Username: d.p.name})
	ctx, cancel := context.WithTimeout(d.w.ctx, 20*time.Second)
	conn, err := client.Dial(ctx, client.Options{Session: s, Resume: d.resume, MinBackoff: 50 * time.Millisecond, MaxBackoff: 2 * time.Second})
	cancel()
	if err != nil {
		return err
	}
	_ = conn.Watch(d.w.ctx, d.p.peers) // it holds from the next connection on at the latest
	d.begin(true)
	up, attached := true, false
	before := d.seen // by earlier lives; this one's own is the SDK's to know
	d.seen = map[string]bool{}
	for k := range before {
		d.seen[k] = true
	}
	defer func() {
		if up {
			d.over()
		}
	}()
	stay := d.stay()
	closing := func() {
		go conn.Close() // Events has to be read meanwhile
	}
	for {
		select {
		case ev, ok := <-conn.Events():
			if !ok {
				if err := conn.Err(); !errors.Is(err, client.ErrClosed) {
					d.w.t.Errorf("%s/%s: the SDK gave up: %v", d.p.name, d.name, err)
				}
				return nil
			}
			switch e := ev.(type) {
			case client.Message:
				key := e.Sender + "&" + e.ID
				if before[key] {
					continue
				}
				d.seen[key] = true
				d.received(e.Room, e.Sender, e.ID, e.Content, e.Seq, e.Late)
			case client.CaughtUp:
				d.resume = e.Resume
				d.record(checker.Event{Kind: checker.CaughtUp})
				if !attached {
					attached = true
					d.attach(sdkLine{d, conn})
				}
				d.look()
			case client.Presence:
				d.presence(e.Presence)
			case client.Read:
				d.mark(picture.Mark{Room: e.Room, User: e.Username, Read: true}, e.Seq)
			case client.Delivered:
				d.mark(picture.Mark{Room: e.Room, User: e.Username}, e.Seq)
			case client.ContactChanged:
				d.contact(e.Username, !e.Removed)
			case client.Refused:
				d.refused(string(e.Err.Code))
			case client.Disconnected:
				d.over()
				d.detach()
				up, attached = false, false
				d.presence(wire.Presence{Unknown: true})
			case client.Reconnected:
				d.begin(false)
				up = true
			}
		case <-stay:
			if d.w.quiet.Load() {
				stay = nil
				continue
			}
			d.detach()
			closing()
			stay = nil
		case <-d.leave:
			d.goAway()
			closing()
		case <-d.w.ctx.Done():
			closing()
			for range conn.Events() {
			}
			return nil
		}
	}
}

// goAway notes that the person leaves for good.
func (d *device) goAway() {
	d.detach()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = true
}

// presence keeps what the device believes.
func (d *device) presence(p wire.Presence) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Unknown {
		d.unknown = true
		return
	}
	d.unknown = false
	if p.Snapshot {
		clear(d.online)
	}
	for _, u := range p.Online {
		d.online[u] = true
	}
	for _, o := range p.Offline {
		delete(d.online, o.Username)
	}
}

// plainLine is a WebSocket and nothing more.
type plainLine struct {
	ws  *websocket.Conn
	wmu sync.Mutex

	mu      sync.Mutex
	n       int
	waiting map[string]chan wire.Frame
	gone    chan struct{}
}

func (l *plainLine) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	_ = l.ws.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a failure shows in the write
	return l.ws.WriteMessage(websocket.TextMessage, b)
}

// ask sends an event and waits for the frame that answers it.
func (l *plainLine) ask(ctx context.Context, event string, data any) (wire.Frame, error) {
	l.mu.Lock()
	l.n++
	re := "f" + strconv.Itoa(l.n)
	ch := make(chan wire.Frame, 1)
	l.waiting[re] = ch
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, re)
	}()
	if err := l.write(map[string]any{"event": event, "data": data, "id": re}); err != nil {
		return wire.Frame{}, err
	}
	select {
	case f := <-ch:
		if f.Event == wire.EvError {
			var e wire.Error
			_ = json.Unmarshal(f.Data, &e) // an error without a code is one as well
			return f, refusal{string(e.Code)}
		}
		return f, nil
	case <-l.gone:
		return wire.Frame{}, errors.New("the connection is gone")
	case <-ctx.Done():
		return wire.Frame{}, ctx.Err()
	}
}

func (l *plainLine) send(ctx context.Context, room, content, id string, retry bool) (int64, error) {
	f, err := l.ask(ctx, wire.EvSend, wire.Send{Room: room, Content: content, ID: id, Retry: retry})
	if err != nil {
		return 0, err
	}
	var m wire.Message
	err = json.Unmarshal(f.Data, &m)
	return m.Seq, err
}

func (l *plainLine) read(ctx context.Context, room string, seq int64) error {
	_, err := l.ask(ctx, wire.EvRead, wire.Marker{Room: room, Seq: seq})
	return err
}

func (l *plainLine) bye() {
	_ = l.write(map[string]any{"event": wire.EvDisconnection}) // it is closed in any case
	select {
	case <-l.gone:
	case <-time.After(2 * time.Second):
	}
	l.drop()
}

func (l *plainLine) drop() { _ = l.ws.Close() }

// openTimeout of a socket, as the SDKs have it: an address whose server has just gone may take the connection and say nothing.
const openTimeout = 3 * time.Second

func (d *device) dialPlain(base string) (*websocket.Conn, error) {
	dialer := websocket.Dialer{HandshakeTimeout: openTimeout}
	h := http.Header{"Authorization": {"Bearer " + d.w.c.Token(d.p.name, d.p.name+"-"+d.name, "native")}}
	ws, resp, err := dialer.DialContext(d.w.ctx, "ws"+strings.TrimPrefix(base, "http")+"/v1/ws", h)
	if resp != nil && err != nil {
		resp.Body.Close()
	}
	return ws, err
}

// silence of a server that pings every 25 s and is asked every 5: longer means that it is gone.
const silence = 12 * time.Second

func (d *device) plainOnce() error {
	ws, err := d.dialPlain(d.entry())
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.ws = ws
	d.mu.Unlock()
	l := &plainLine{ws: ws, waiting: map[string]chan wire.Frame{}, gone: make(chan struct{})}
	defer ws.Close()
	defer close(l.gone)
	join := map[string]any{"rooms": "*"}
	if d.sort == named {
		join["device"] = d.name
	}
	if err := l.write(map[string]any{"event": wire.EvJoin, "data": join, "id": "join"}); err != nil {
		return err
	}
	joined := false
	defer func() {
		if joined {
			d.detach()
			d.over()
		}
	}()
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	wg.Go(func() { d.attend(l, done) })
	for {
		_ = ws.SetReadDeadline(time.Now().Add(silence)) // a failure shows in the read
		_, b, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		var f wire.Frame
		if err := json.Unmarshal(b, &f); err != nil {
			d.w.t.Errorf("%s/%s: a frame that is no JSON: %.80q", d.p.name, d.name, b)
			return err
		}
		switch {
		case f.Re == "join" && f.Event == wire.EvAck:
			joined = true
			d.begin(true)
			_ = l.write(map[string]any{"event": wire.EvWatch, "data": wire.Watch{Usernames: d.p.peers}}) // a failure shows in the read
		case f.Re == "join":
			return errors.New("join was refused")
		}
		switch f.Event {
		case wire.EvReceived:
			var m wire.Message
			if json.Unmarshal(f.Data, &m) == nil {
				d.received(m.Room, m.Sender, m.ID, m.Content, m.Seq, m.Late)
			}
		case wire.EvCaughtUp:
			d.record(checker.Event{Kind: checker.CaughtUp})
			d.attach(l)
			d.look()
		case wire.EvPresence:
			var p wire.Presence
			if json.Unmarshal(f.Data, &p) == nil {
				d.presence(p)
			}
		case wire.EvRead, wire.EvDelivered:
			var m wire.Marker
			if json.Unmarshal(f.Data, &m) == nil {
				d.mark(picture.Mark{Room: m.Room, User: m.Username, Read: f.Event == wire.EvRead}, m.Seq)
			}
		case wire.EvContactAdded, wire.EvContactRemoved:
			var c wire.Contact
			if json.Unmarshal(f.Data, &c) == nil {
				d.contact(c.Username, f.Event == wire.EvContactAdded)
			}
		case wire.EvGoingAway:
			return nil
		}
		if f.Re != "" {
			l.mu.Lock()
			ch := l.waiting[f.Re]
			l.mu.Unlock()
			if ch != nil {
				select {
				case ch <- f:
				default: // asked for no more
				}
			}
		}
	}
}

// attend asks now and then whether the server is there, and leaves when it is time.
func (d *device) attend(l *plainLine, done chan struct{}) {
	alive := time.NewTicker(5 * time.Second)
	defer alive.Stop()
	stay := d.stay()
	for {
		select {
		case <-alive.C:
			_ = l.write(map[string]any{"event": wire.EvAlive, "id": "alive"}) // a failure shows in the read
		case <-stay:
			if d.w.quiet.Load() {
				continue
			}
			d.detach()
			if d.pause.IntN(2) == 0 {
				l.bye()
			} else {
				l.drop()
			}
		case bye := <-d.leave:
			d.goAway()
			if bye {
				l.bye()
			} else {
				l.drop()
			}
		case <-d.w.ctx.Done():
			l.drop()
			return
		case <-done:
			return
		}
	}
}

// Visit connects a further device of somebody through base, and ends it when during has returned. What it receives counts.
func (w *World) Visit(who int, base string, during func()) {
	p := w.people[who%len(w.people)]
	w.mu.Lock()
	w.visits++
	d := &device{w: w, p: p, name: fmt.Sprintf("slow%d", w.visits), sort: unnamed, pause: rand.New(rand.NewPCG(w.o.Seed, 1<<33+uint64(w.visits))), up: make(chan struct{}), view: newView(), online: map[string]bool{}, top: map[string]int64{}, base: base}
	w.history.Devices = append(w.history.Devices, checker.Device{User: p.name, Name: d.name})
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.plainOnce() // it ends in one way or another
	}()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	l, err := d.waitLine(ctx)
	cancel()
	if err == nil {
		during()
		l.drop()
	}
	d.mu.Lock()
	if d.ws != nil {
		_ = d.ws.Close()
	}
	d.mu.Unlock()
	<-done
}
