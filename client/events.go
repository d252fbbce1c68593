package client

import (
	"fmt"
	"time"

	"parley.example/client/wire"
)

// Event is one of the types of this file.
type Event interface{ event() }

// Message was sent by the other user of its room, or by another session of one's own. Each comes once. Late says
// that younger ones of the room came before it: sort by Seq to show it.
type Message struct{ wire.Message }

// Presence tells who came and who left. After Snapshot everybody that it does not name is offline or, when it is Partial, not known:
// it is of a list then (Watch, a roster, or who is near where everybody would be too many). Unknown: the server
// cannot tell for now; a snapshot follows when it can.
type Presence struct{ wire.Presence }

// Typing says that Username types in Room; it holds for 5 s.
type Typing struct{ Room, Username string }

// Read says that Username has read Room up to Seq; it may be oneself on another device.
type Read struct {
	Room, Username string
	Seq            int64
}

// Delivered says that Username has received Room up to Seq.
type Delivered struct {
	Room, Username string
	Seq            int64
}

// ContactChanged says that somebody became a contact, or is none any more.
type ContactChanged struct {
	wire.Contact
	Removed bool
}

// CaughtUp says that everything missed has come. Resume goes into Options.Resume of a later process, if all
// events before this one have been dealt with.
type CaughtUp struct{ Resume string }

// Disconnected says that the connection broke and a new one is tried after Wait.
type Disconnected struct {
	Err  error
	Wait time.Duration
}

// Reconnected says that it is back; what was missed comes next, then CaughtUp.
type Reconnected struct{}

// Refused is an error of the server about something that has no other answer, such as a typing event.
type Refused struct{ Err *wire.Error }

// NotJoined says that a room of Options.Rooms could not be joined, and why; the others were.
type NotJoined struct {
	Room string
	Code wire.Code
}

func (NotJoined) event()      {}
func (Message) event()        {}
func (Presence) event()       {}
func (Typing) event()         {}
func (Read) event()           {}
func (Delivered) event()      {}
func (ContactChanged) event() {}
func (CaughtUp) event()       {}
func (Disconnected) event()   {}
func (Reconnected) event()    {}
func (Refused) event()        {}

// CloseError says how the server closed the connection; wire.Closes lists the ways.
type CloseError struct {
	Code   int
	Reason string
}

// Error makes *CloseError an error.
func (e *CloseError) Error() string {
	return fmt.Sprintf("the server closed the connection: %d %s", e.Code, e.Reason)
}
