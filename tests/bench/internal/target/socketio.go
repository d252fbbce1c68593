package target

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"parley.example/pkg/token"
	"parley.example/tests/bench/internal/ws"
)

// OneRoom is p with native clients that join the room with their peer only, as the old clients do.
func OneRoom(p Target, name string) Target { return &oneRoom{p.(*parley), name} }

type oneRoom struct {
	*parley
	name string
}

func (o *oneRoom) Name() string { return o.name }

func (o *oneRoom) Open(ctx context.Context, d int, c Client) (Conn, string, error) {
	return o.openNative(ctx, d, c, fmt.Appendf(nil, `{"event":"join","data":{"room":%q}}`, roomOf(c.User, c.Peer)))
}

// SocketIO is p with clients of the older system: Socket.IO over a WebSocket. They join the room with their peer.
func SocketIO(p Target, name string) Target {
	return newSocketIO(p, name, func(ctx context.Context, addr string, c Client) (Conn, error) {
		conn, err := ws.Dial(ctx, addr, c.Local, "/socket.io/?EIO=4&transport=websocket", nil)
		if err != nil {
			return nil, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			conn.SetDeadline(deadline)
		}
		return &engine{conn}, nil
	})
}

// Polling is p with clients of the older system that stay on HTTP long-polling.
func Polling(p Target, name string) Target { return newSocketIO(p, name, dialPolling) }

type socketIO struct {
	*parley
	name string
	dial func(ctx context.Context, addr string, c Client) (Conn, error)
	keep *keeper
}

func newSocketIO(t Target, name string, dial func(context.Context, string, Client) (Conn, error)) Target {
	p := t.(*parley)
	s := &socketIO{p, name, dial, startKeeper()}
	p.before = append(p.before, s.keep.stop)
	return s
}

func (s *socketIO) Name() string { return s.name }

// roomOf is a room as the old clients write it.
func roomOf(a, b string) string { return min(a, b) + "&" + max(a, b) }

var (
	sioOpened    = []byte(`0{"sid":`)
	sioConnected = []byte(`40{"sid":`)
	sioJoined    = []byte(`430[{"result":"success"}]`)
	sioAck       = []byte(`430[`)
	sioReceived  = []byte(`42["received_message",`)
	sioAdmin     = []byte(`42["received_message",{"sender":"Admin",`)
	sioError     = []byte(`42["error",`)
)

// Open returns when the join was acknowledged. What is sent from then on arrives: live, or read from history when the gateway
// had not finished yet.
func (s *socketIO) Open(ctx context.Context, d int, c Client) (_ Conn, _ string, err error) {
	tok, err := s.token(c.User, token.ScopeLegacy)
	if err != nil {
		return nil, "", err
	}
	conn, err := s.dial(ctx, s.doors[d].addr, c)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	buf := make([]byte, 1<<10)
	expect := func(want, other []byte) error {
		for {
			b, err := conn.Read(buf)
			switch {
			case err != nil:
				return fmt.Errorf("join as %s: %w", c.User, err)
			case bytes.HasPrefix(b, want):
				return nil
			case bytes.HasPrefix(b, other):
				return fmt.Errorf("join as %s: got %s", c.User, b)
			case c.Got != nil:
				c.Got(b)
			}
		}
	}
	if err := expect(sioOpened, nil); err != nil {
		return nil, "", err
	}
	if err := conn.Write([]byte("40")); err != nil {
		return nil, "", err
	}
	if err := expect(sioConnected, nil); err != nil {
		return nil, "", err
	}
	if err := conn.Write(fmt.Appendf(nil, `420["join",{"room":%q,"client":%q,"jwt":%q}]`, roomOf(c.User, c.Peer), c.User, tok)); err != nil {
		return nil, "", err
	}
	if err := expect(sioJoined, sioAck); err != nil {
		return nil, "", err
	}
	if e, ok := conn.(*engine); ok {
		e.SetDeadline(time.Time{})
	}
	s.keep.add(conn, fmt.Appendf(nil, `42["connection_alive",{"client":%q}]`, c.User))
	return conn, "", nil
}

func (s *socketIO) Kind(frame []byte) Kind {
	switch {
	case bytes.HasPrefix(frame, sioAdmin), bytes.HasPrefix(frame, sioError):
		return Refused
	case bytes.HasPrefix(frame, sioReceived):
		return Delivered
	}
	return Other
}

// AppendSend writes a message as the old clients do: they neither number it nor ask for an acknowledgement.
func (s *socketIO) AppendSend(b []byte, from, to string, _ int64, content string) []byte {
	tok, _ := s.token(from, token.ScopeLegacy) // it has connected with it
	b = append(b, `42["client_sends_message",{"sender":`...)
	b = strconv.AppendQuote(b, from)
	b = append(append(b, `,"content":"`...), content...)
	b = append(append(b, `","conversation_room":"`...), roomOf(from, to)...)
	b = append(append(b, `","jwt":"`...), tok...)
	return append(b, `"}]`...)
}

// engine answers the heartbeats of Engine.IO on a WebSocket.
type engine struct{ *ws.Conn }

func (e *engine) Read(buf []byte) ([]byte, error) {
	for {
		b, err := e.Conn.Read(buf)
		if err != nil || len(b) != 1 || b[0] != '2' {
			return b, err
		}
		if err := e.Write([]byte("3")); err != nil {
			return nil, err
		}
	}
}

// keeper sends connection_alive for all clients of a target, each every 6 s, spread evenly.
type keeper struct {
	mu    sync.Mutex
	slots [aliveEvery / aliveStep][]kept
	next  int // the slot of the next client
	turn  int // the slot whose time has come

	end chan struct{}
	wg  sync.WaitGroup
}

type kept struct {
	conn  Conn
	alive []byte
}

const (
	aliveEvery = 6 * time.Second
	aliveStep  = 10 * time.Millisecond
	// aliveStride is prime to the number of slots, so that clients that come one after the other are spread over all of them.
	aliveStride = 233
)

func startKeeper() *keeper {
	k := &keeper{end: make(chan struct{})}
	k.wg.Add(1)
	go k.run()
	return k
}

func (k *keeper) add(c Conn, alive []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slots[k.next] = append(k.slots[k.next], kept{c, alive})
	k.next = (k.next + aliveStride) % len(k.slots)
}

func (k *keeper) run() {
	defer k.wg.Done()
	t := time.NewTicker(aliveStep)
	defer t.Stop()
	began, done := time.Now(), 0
	for {
		select {
		case <-k.end:
			return
		case <-t.C:
		}
		for ; done < int(time.Since(began)/aliveStep); done++ { // a busy machine swallows ticks
			k.step()
		}
	}
}

// step drops the connections that are gone: their readers know.
func (k *keeper) step() {
	k.mu.Lock()
	i := k.turn
	k.turn = (k.turn + 1) % len(k.slots)
	list := k.slots[i]
	k.slots[i] = nil
	k.mu.Unlock()
	left := list[:0]
	for _, c := range list {
		if c.conn.Write(c.alive) == nil {
			left = append(left, c)
		}
	}
	k.mu.Lock()
	k.slots[i] = append(left, k.slots[i]...)
	k.mu.Unlock()
}

func (k *keeper) stop() {
	close(k.end)
	k.wg.Wait()
}
