// Package target knows how to start each chat system that is measured and how its clients speak. A further system is
// one more file here that implements Target.
package target

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"parley.example/tests/bench/internal/proc"
)

// Kind of a frame that a client got.
type Kind int

// Kinds.
const (
	Other     Kind = iota
	Delivered      // a message for this client, or, as the receipt of some systems, one from it
	Accepted       // the answer to a message of this client
	Refused        // an error frame
)

// Client is who opens a connection.
type Client struct {
	User   string
	Peer   string // to whom it will write
	Resume string // where it left off, "" for a new client
	Local  net.IP // source address, so that one server address can take more than 28,000 connections
	// Got, when not nil, gets the frames that arrive before the client is ready.
	Got func(frame []byte)
}

// Conn is one client's connection. One goroutine reads; any may write.
type Conn interface {
	// Read returns the next frame, in buf when it fits. What the protocol asks of an idle client is done on the way.
	Read(buf []byte) ([]byte, error)
	Write(frame []byte) error
	Close()
}

// Target is a running system. Its clients are u0, u1, … u(Users-1).
type Target interface {
	Name() string
	// Doors is the number of processes that accept clients.
	Doors() int
	// Open returns when the client is authenticated and everything sent to it from now on reaches it. resume is good for a later Open.
	Open(ctx context.Context, door int, c Client) (conn Conn, resume string, err error)
	// AppendSend appends the frame with which from sends to to. n makes the message unique.
	AppendSend(b []byte, from, to string, n int64, content string) []byte
	// Kind reads a frame.
	Kind(frame []byte) Kind
	// Settle returns when nothing that was sent before is still being worked on.
	Settle(ctx context.Context) error
	// Servers are all processes; Front is the one behind a door.
	Servers() *proc.Group
	Front(door int) *proc.Process
	Stop()
}

// HTTP is a Target whose doors answer plain HTTP as well.
type HTTP interface{ Addr(door int) string }

// Profiled is a Target some of whose processes serve /debug/pprof: name → host:port.
type Profiled interface{ Admin() map[string]string }

// Remote is a Target that can be described to another process, which opens connections with Dial.
type Remote interface{ Remote() json.RawMessage }

// Options of a start.
type Options struct {
	Bin   string // folder with the built programs
	Work  string // folder for data and logs
	Users int    // accounts to be there
	Doors int    // processes that accept clients; 0: 1
}

func (o Options) doors() int { return max(1, o.Doors) }

// startTimeout bounds the start of one process.
const startTimeout = 60 * time.Second
