package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/tests/chaos/checker"
)

// oldLine is a client of the older system: Socket.IO v5 over a WebSocket, JSON only.
type oldLine struct {
	d    *device
	ws   *websocket.Conn
	jwt  string
	wmu  sync.Mutex
	mu   sync.Mutex
	n    int
	acks map[int]chan json.RawMessage
	gone chan struct{}
}

func (l *oldLine) write(s string) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	_ = l.ws.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a failure shows in the write
	return l.ws.WriteMessage(websocket.TextMessage, []byte(s))
}

// emit sends an event and waits for its ack.
func (l *oldLine) emit(ctx context.Context, event string, data map[string]any) (json.RawMessage, error) {
	b, err := json.Marshal([]any{event, data})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.n++
	n, ch := l.n, make(chan json.RawMessage, 1)
	l.acks[n] = ch
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.acks, n)
	}()
	if err := l.write("42" + strconv.Itoa(n) + string(b)); err != nil {
		return nil, err
	}
	select {
	case r := <-ch:
		return r, nil
	case <-l.gone:
		return nil, errors.New("the connection is gone")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type oldAnswer struct {
	Result, Error, ID string
	Seq               int64
}

func (l *oldLine) call(ctx context.Context, event string, data map[string]any) (oldAnswer, error) {
	r, err := l.emit(ctx, event, data)
	if err != nil {
		return oldAnswer{}, err
	}
	var list []oldAnswer
	if err := json.Unmarshal(r, &list); err != nil || len(list) != 1 {
		return oldAnswer{}, fmt.Errorf("an ack like %s", r)
	}
	return list[0], nil
}

func (l *oldLine) send(ctx context.Context, room, content, id string, retry bool) (int64, error) {
	a, err := l.call(ctx, "client_sends_message", map[string]any{"sender": l.d.p.name, "content": content, "conversation_room": room, "jwt": l.jwt, "id": id, "retry": retry})
	switch {
	case err != nil:
		return 0, err
	case a.Error == "":
		return a.Seq, nil
	case strings.Contains(a.Error, "JWT"):
		l.drop() // the login has ended: a new one
		return 0, errors.New(a.Error)
	case strings.Contains(a.Error, "another message") || strings.Contains(a.Error, "not") && strings.Contains(a.Error, "room"):
		return 0, refusal{a.Error}
	}
	return 0, errors.New(a.Error) // what these clients are told has no code
}

func (l *oldLine) read(context.Context, string, int64) error {
	return errors.New("these clients have no markers")
}

func (l *oldLine) bye() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = l.emit(ctx, "client_disconnection", map[string]any{"client": l.d.p.name, "jwt": l.jwt}) // it is closed in any case
	l.drop()
}

func (l *oldLine) drop() { _ = l.ws.Close() }

func (d *device) oldOnce() error {
	d.p.mu.Lock()
	d.p.wanted++
	login := fmt.Sprintf("%s-%s-%d", d.p.name, d.name, d.p.wanted)
	d.p.mu.Unlock()
	dialer := websocket.Dialer{HandshakeTimeout: openTimeout}
	ws, resp, err := dialer.DialContext(d.w.ctx, "ws"+strings.TrimPrefix(d.entry(), "http")+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return err
	}
	l := &oldLine{d: d, ws: ws, jwt: d.w.c.Token(d.p.name, login, "seed"), acks: map[int]chan json.RawMessage{}, gone: make(chan struct{})}
	defer ws.Close()
	defer close(l.gone)
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	joined := false
	var mu sync.Mutex // of joined: the joiner sets it
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if joined {
			d.detach()
			d.over()
		}
	}()
	for {
		_ = ws.SetReadDeadline(time.Now().Add(50 * time.Second)) // Engine.IO's ping interval and timeout
		_, b, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		switch s := string(b); {
		case strings.HasPrefix(s, "0"):
			if err := l.write("40"); err != nil {
				return err
			}
		case s == "2":
			if err := l.write("3"); err != nil {
				return err
			}
		case strings.HasPrefix(s, "40"):
			// Before the joins go out: what they bring must find its session. Nobody sends before the delay is over.
			mu.Lock()
			joined = true
			mu.Unlock()
			d.begin(true)
			wg.Go(func() { d.joinOld(l, done) })
		case strings.HasPrefix(s, "43"):
			i := 2
			for i < len(s) && s[i] >= '0' && s[i] <= '9' {
				i++
			}
			n, _ := strconv.Atoi(s[2:i]) // digits
			l.mu.Lock()
			ch := l.acks[n]
			l.mu.Unlock()
			if ch != nil {
				select {
				case ch <- json.RawMessage(s[i:]):
				default: // twice
				}
			}
		case strings.HasPrefix(s, "42"):
			d.oldEvent(s[2:])
		}
	}
}

// joinOld joins every room, says that it is alive, and leaves when it is time.
func (d *device) joinOld(l *oldLine, done chan struct{}) {
	ctx, cancel := context.WithTimeout(d.w.ctx, 20*time.Second)
	defer cancel()
	for _, room := range d.p.rooms {
		if a, err := l.call(ctx, "join", map[string]any{"room": room, "client": d.p.name, "jwt": l.jwt}); err != nil || a.Error != "" {
			l.drop()
			return
		}
	}
	settled := time.After(3500 * time.Millisecond) // the server's delay for these clients, and a little
	alive := time.NewTicker(4 * time.Second)
	defer alive.Stop()
	stay := d.stay()
	for {
		select {
		case <-settled:
			d.record(checker.Event{Kind: checker.CaughtUp}) // every room is joined: what is sent from now on comes live
			d.attach(l)
		case <-alive.C:
			b, _ := json.Marshal([]any{"connection_alive", map[string]any{"client": d.p.name}}) // strings: cannot fail
			_ = l.write("42" + string(b))                                                       // a failure shows in the read
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

func (d *device) oldEvent(s string) {
	var raw []json.RawMessage
	var name string
	if json.Unmarshal([]byte(s), &raw) != nil || len(raw) < 2 || json.Unmarshal(raw[0], &name) != nil {
		d.w.t.Errorf("%s/%s: an event like %.80s", d.p.name, d.name, s)
		return
	}
	var m struct {
		Sender, Content, ID string
		Room                string `json:"conversation_room"`
		Seq                 int64
		Late                bool
		Username            string
	}
	if json.Unmarshal(raw[1], &m) != nil {
		return
	}
	switch name {
	case "received_message":
		if m.Sender != "Admin" { // a login that has ended; the ack says so as well
			d.received(m.Room, m.Sender, m.ID, m.Content, m.Seq, m.Late)
		}
	case "new_user_online", "user_has_gone_offline":
		d.mu.Lock()
		d.online[m.Username] = name == "new_user_online"
		d.mu.Unlock()
	}
}
