package socketio

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/engineio"
)

// Config of connections.
type Config struct {
	// ConnectTimeout ends a connection that has been in no namespace for so long.
	ConnectTimeout time.Duration
	// Attachments and AttachmentBytes bound what one binary packet may bring; more ends the connection.
	Attachments     int
	AttachmentBytes int
}

// Handler is the program behind one connection. Its calls come one after the other, Closed last.
type Handler interface {
	// Connect says whether the client may enter a namespace, with the payload that it gave (nil for none). The text of an error is told to the client.
	Connect(namespace string, auth json.RawMessage) error
	// Connected comes when the client has been told that it is in.
	Connected(namespace string, auth json.RawMessage)
	Event(e Event)
	// Disconnected: the client has left a namespace.
	Disconnected(namespace string)
	// Pong is engineio.Handler's.
	Pong(n uint32)
	Closed(why wire.Close)
}

// Event is what a client emitted. Args and Attachments are valid during the call only.
type Event struct {
	Namespace   string
	Name        string
	Args        []json.RawMessage
	Attachments [][]byte // that placeholders in Args stand for
	Ack         Ack
}

// Ack names the acknowledgement that a client waits for. The zero value stands for none.
type Ack struct {
	namespace string
	id        uint64
	wanted    bool
}

// Wanted reports whether the client waits.
func (a Ack) Wanted() bool { return a.wanted }

// ErrAcks says that too many acknowledgements of the client are outstanding.
var ErrAcks = errors.New("too many acknowledgements are outstanding")

// maxAcks bounds what a client may owe.
const maxAcks = 256

// Conn is one client. The methods that send may be called from any goroutine.
type Conn struct {
	cfg     *Config
	engine  *engineio.Conn
	handler Handler

	// Of the packets' side.
	inside  []string // namespaces that the client is in
	partial *partial // a binary packet that waits for its attachments
	timer   *time.Timer

	mu      sync.Mutex
	acks    map[uint64]func(args []json.RawMessage, attachments [][]byte)
	lastAck uint64
}

type partial struct {
	packet
	got   [][]byte
	bytes int
}

// New makes the engineio.Handler of a connection. Its namespaces are h's to choose. cfg is shared and must not change.
func New(cfg *Config, e *engineio.Conn, h Handler) *Conn {
	c := &Conn{cfg: cfg, engine: e, handler: h}
	c.expectConnect()
	return c
}

// expectConnect gives the client time to enter a namespace.
func (c *Conn) expectConnect() {
	c.timer = time.AfterFunc(c.cfg.ConnectTimeout, func() {
		c.engine.Do(func() {
			if len(c.inside) == 0 {
				c.engine.Close(wire.CloseNoAuth)
			}
		})
	})
}

// Discard is for a Conn whose connection is refused after all.
func (c *Conn) Discard() { c.timer.Stop() }

// Engine is the connection below.
func (c *Conn) Engine() *engineio.Conn { return c.engine }

// Pong implements engineio.Handler.
func (c *Conn) Pong(n uint32) { c.handler.Pong(n) }

// Closed implements engineio.Handler.
func (c *Conn) Closed(why wire.Close) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.inside, c.partial = nil, nil
	c.handler.Closed(why)
}

// Text implements engineio.Handler.
func (c *Conn) Text(b []byte) {
	p, err := decode(b)
	if err != nil || c.partial != nil || p.attachments > c.cfg.Attachments {
		c.engine.Close(wire.CloseProtocol)
		return
	}
	if (p.kind == typeBinaryEvent || p.kind == typeBinaryAck) && !placeholders(p.data, p.attachments) {
		c.engine.Close(wire.CloseProtocol)
		return
	}
	if p.attachments > 0 {
		w := &partial{packet: p}
		w.data = bytes.Clone(p.data) // b is the caller's
		c.partial = w
		return
	}
	c.handle(p, nil)
}

// Binary implements engineio.Handler.
func (c *Conn) Binary(b []byte) {
	w := c.partial
	if w == nil {
		c.engine.Close(wire.CloseProtocol)
		return
	}
	if w.bytes += len(b); w.bytes > c.cfg.AttachmentBytes {
		c.engine.Close(wire.CloseTooLarge)
		return
	}
	if w.got = append(w.got, bytes.Clone(b)); len(w.got) == w.attachments {
		c.partial = nil
		c.handle(w.packet, w.got)
	}
}

func (c *Conn) isInside(namespace string) bool {
	for _, n := range c.inside {
		if n == namespace {
			return true
		}
	}
	return false
}

// handle does what a whole packet asks for.
func (c *Conn) handle(p packet, attachments [][]byte) {
	if p.kind == typeConnect {
		c.connect(p)
		return
	}
	if !c.isInside(p.namespace) {
		c.engine.Close(wire.CloseProtocol)
		return
	}
	switch p.kind {
	case typeDisconnect:
		for i, n := range c.inside {
			if n == p.namespace {
				c.inside = append(c.inside[:i:i], c.inside[i+1:]...)
				break
			}
		}
		c.handler.Disconnected(p.namespace)
		if len(c.inside) == 0 {
			c.expectConnect()
		}
	case typeEvent, typeBinaryEvent:
		name, args, err := event(p.data)
		if err != nil {
			c.engine.Close(wire.CloseProtocol)
			return
		}
		c.handler.Event(Event{p.namespace, name, args, attachments, Ack{p.namespace, p.id, p.hasID}})
	case typeAck, typeBinaryAck:
		c.mu.Lock()
		f := c.acks[p.id]
		delete(c.acks, p.id)
		c.mu.Unlock()
		if f == nil {
			return // nobody asked for it, or twice
		}
		var args []json.RawMessage
		if json.Unmarshal(p.data, &args) == nil {
			f(args, attachments)
		}
	}
}

func (c *Conn) connect(p packet) {
	if c.isInside(p.namespace) {
		c.engine.Close(wire.CloseProtocol)
		return
	}
	if err := c.handler.Connect(p.namespace, p.data); err != nil {
		text, _ := json.Marshal(struct { // cannot fail
			Message string `json:"message"`
		}{err.Error()})
		c.send(packet{kind: typeConnectError, namespace: p.namespace, data: text})
		return
	}
	c.inside = append(c.inside, p.namespace)
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.send(packet{kind: typeConnect, namespace: p.namespace, data: []byte(`{"sid":"` + newID() + `"}`)})
	c.handler.Connected(p.namespace, p.data)
}

// newID is a socket's id. It is not the connection's: that one is as good as a password.
func newID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (c *Conn) send(p packet) { c.engine.SendText(p.encode()) }

// EventFrame encodes an event in the root namespace, to be sent by SendFrame to any number of connections. data is its one argument, as JSON.
func EventFrame(name string, data []byte) []byte {
	return engineio.Frame(AppendEvent(make([]byte, 0, len(name)+len(data)+16), name, data))
}

// AppendEvent appends the packet that EventFrame wraps.
func AppendEvent(b []byte, name string, data []byte) []byte {
	b = append(b, typeEvent, '[')
	b = wire.AppendString(b, name)
	b = append(b, ',')
	b = append(b, data...)
	return append(b, ']')
}

// SendFrame sends what EventFrame made.
func (c *Conn) SendFrame(frame []byte) { c.engine.SendFrame(frame) }

// Emit sends an event; args is a JSON array that begins with its name.
func (c *Conn) Emit(namespace string, args []byte, attachments ...[]byte) {
	p := packet{kind: typeEvent, namespace: namespace, data: args}
	c.withAttachments(p, attachments)
}

// EmitAck is Emit for an event that the client is to acknowledge: then f is called with what it says, as Handler's methods are.
func (c *Conn) EmitAck(namespace string, args []byte, f func(args []json.RawMessage, attachments [][]byte)) error {
	c.mu.Lock()
	if len(c.acks) >= maxAcks {
		c.mu.Unlock()
		return ErrAcks
	}
	if c.acks == nil {
		c.acks = map[uint64]func([]json.RawMessage, [][]byte){}
	}
	id := c.lastAck
	c.lastAck++
	c.acks[id] = f
	c.mu.Unlock()
	c.send(packet{kind: typeEvent, namespace: namespace, id: id, hasID: true, data: args})
	return nil
}

// Answer gives an acknowledgement; args is a JSON array. It does nothing when the client does not wait.
func (c *Conn) Answer(a Ack, args []byte, attachments ...[]byte) {
	if a.wanted {
		c.withAttachments(packet{kind: typeAck, namespace: a.namespace, id: a.id, hasID: true, data: args}, attachments)
	}
}

func (c *Conn) withAttachments(p packet, attachments [][]byte) {
	if len(attachments) > 0 {
		p.kind += typeBinaryEvent - typeEvent
		p.attachments = len(attachments)
	}
	c.engine.SendAll(p.encode(), attachments)
}

// String and ParseAck turn an Ack into text and back, for programs that pass it through one. "" is none.
func (a Ack) String() string {
	if !a.wanted {
		return ""
	}
	return strconv.FormatUint(a.id, 10) + a.namespace
}

// ParseAck is the inverse of Ack.String.
func ParseAck(s string) (Ack, error) {
	if s == "" {
		return Ack{}, nil
	}
	n, rest, ok := number([]byte(s))
	if !ok || len(rest) == 0 {
		return Ack{}, fmt.Errorf("%q names no acknowledgement", s)
	}
	return Ack{string(rest), n, true}, nil
}
