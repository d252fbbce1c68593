// Package client is the Go SDK of Parley: the HTTP calls, and a connection that stays up by itself.
//
//	api, _ := client.New("http://127.0.0.1:8080", nil)
//	me, err := api.Login(ctx, "lisa", password)
//	conn, err := client.Dial(ctx, client.Options{Session: me})
//	go func() {
//		for ev := range conn.Events() {
//			if m, ok := ev.(client.Message); ok {
//				fmt.Println(m.Sender, m.Content)
//			}
//		}
//	}()
//	accepted, err := conn.Send(ctx, client.Room("lisa", "avi"), "hello")
//
// Session.History and Session.HistoryAfter go through a conversation, one message after the other.
//
// What the connection does for its user: it joins again after every reconnect and resumes where it was, drops what it has
// seen already (by room and seq), sends a message again under the same id until it has an outcome, renews its token before it runs
// out, and goes elsewhere when the server drains. docs/sdk.md of the repository has its rules. Everything in it has a limit; the
// constants below name them.
package client

import (
	"errors"
	"time"
)

// Limits of one Conn. Reaching one has the outcome that stands beside it.
const (
	DefaultBuffer = 1024    // events not yet read: the socket is no longer read, or ErrLagging when a Send is waiting
	MaxPending    = 1024    // sends without an outcome: ErrTooManyPending
	maxEarly      = 256     // frames before the answer to join: the connection is made anew
	maxFrame      = 4 << 20 // bytes of a frame from the server: the connection is closed
	maxBody       = 8 << 20 // bytes of an HTTP answer: an error
)

const (
	writeTimeout   = 10 * time.Second
	answerTimeout  = 15 * time.Second // a third of it until a server that is silent after a message is asked whether it is there
	openTimeout    = 3 * time.Second  // of a reconnect's first try; twice as long after one that took longer, up to welcomeTimeout
	welcomeTimeout = 10 * time.Second
	checkpoint     = 30 * time.Second // how often a busy connection asks for a fresh resume token
	lagPatience    = time.Second      // how long a full event queue may keep a waiting Send from its answer
)

// Errors of a Conn. What the server said is a *wire.Error, or a *CloseError when it closed the connection.
var (
	ErrClosed         = errors.New("the connection was closed by this side")
	ErrNotConnected   = errors.New("not connected at the moment")
	ErrTooManyPending = errors.New("too many messages wait for an outcome")
	ErrInFlight       = errors.New("a message with this id is being sent already")
	ErrLagging        = errors.New("events are not read fast enough; what was dropped comes again")
)

var errNoAnswer = errors.New("the server does not answer")
