// Package echo has the servers that the authors of Engine.IO and Socket.IO expect behind their conformance suites.
package echo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/socketio"
	"parley.example/services/gateway/internal/wsconn"
)

// The settings that the suites are written for.
const (
	PingInterval   = 300 * time.Millisecond
	PingTimeout    = 200 * time.Millisecond
	MaxPayload     = 1_000_000
	ConnectTimeout = time.Second
)

// Engine is their configuration of Engine.IO.
func Engine() engineio.Config {
	return engineio.Config{
		PingInterval: PingInterval, PingTimeout: PingTimeout, MaxPayload: MaxPayload,
		Budget: &wsconn.Budget{PerConn: 4 << 20, Total: 64 << 20},
	}
}

// NewEngine sends every message back.
func NewEngine(cfg engineio.Config) *engineio.Server {
	return engineio.New(cfg, func(c *engineio.Conn, _ *http.Request) (engineio.Handler, error) { return messages{c}, nil })
}

type messages struct{ c *engineio.Conn }

// Text implements engineio.Handler.
func (m messages) Text(b []byte) { m.c.SendText(b) }

// Binary implements engineio.Handler.
func (m messages) Binary(b []byte) { m.c.SendBinary(bytes.Clone(b)) }

// Pong implements engineio.Handler.
func (m messages) Pong(uint32) {}

// Closed implements engineio.Handler.
func (m messages) Closed(wire.Close) {}

// SocketIO is their configuration of Socket.IO.
func SocketIO() socketio.Config {
	return socketio.Config{ConnectTimeout: ConnectTimeout, Attachments: 10, AttachmentBytes: MaxPayload}
}

// NewSocketIO has two namespaces, tells clients the payload that they came with, and sends back what it gets.
func NewSocketIO(cfg engineio.Config, scfg socketio.Config) *engineio.Server {
	return engineio.New(cfg, func(c *engineio.Conn, _ *http.Request) (engineio.Handler, error) {
		e := &events{}
		e.c = socketio.New(&scfg, c, e)
		return e.c, nil
	})
}

type events struct{ c *socketio.Conn }

// Connect implements socketio.Handler.
func (e *events) Connect(namespace string, _ json.RawMessage) error {
	if namespace != socketio.Root && namespace != "/custom" {
		//lint:ignore ST1005 the reference implementation's text
		return errors.New("Invalid namespace")
	}
	return nil
}

// Connected implements socketio.Handler.
func (e *events) Connected(namespace string, auth json.RawMessage) {
	if auth == nil {
		auth = json.RawMessage("{}")
	}
	// The suite listens for one message at a time and misses a second one that comes in the same TCP segment, as ours do.
	// A payload has room for both: there, the packet that this runs for could not even be answered before a poll comes.
	if !e.c.Engine().Polling() {
		_ = e.c.Engine().Wait(context.Background()) // ends with the connection
		time.Sleep(5 * time.Millisecond)
	}
	e.c.Emit(namespace, list([]json.RawMessage{[]byte(`"auth"`), auth}))
}

// Event implements socketio.Handler.
func (e *events) Event(ev socketio.Event) {
	switch ev.Name {
	case "message":
		e.c.Emit(ev.Namespace, list(append([]json.RawMessage{[]byte(`"message-back"`)}, ev.Args...)), ev.Attachments...)
	case "message-with-ack":
		e.c.Answer(ev.Ack, list(ev.Args), ev.Attachments...)
	case "ask": // beyond the suite: asks for an ack of its own, and tells what it says
		_ = e.c.EmitAck(ev.Namespace, list(append([]json.RawMessage{[]byte(`"question"`)}, ev.Args...)), func(args []json.RawMessage, _ [][]byte) {
			e.c.Emit(ev.Namespace, list(append([]json.RawMessage{[]byte(`"answered"`)}, args...)))
		})
	}
}

func list(args []json.RawMessage) []byte {
	return append(append([]byte{'['}, bytes.Join(raw(args), []byte{','})...), ']')
}

func raw(args []json.RawMessage) [][]byte {
	out := make([][]byte, len(args))
	for i, a := range args {
		out[i] = a
	}
	return out
}

// Disconnected implements socketio.Handler.
func (e *events) Disconnected(string) {}

// Pong implements socketio.Handler.
func (e *events) Pong(uint32) {}

// Closed implements socketio.Handler.
func (e *events) Closed(wire.Close) {}
