// Package checker finds in a recorded history whether a chat server kept its promises: nothing accepted is lost, doubled, out of order or
// shown to a third person, and what it says of unread messages and of who is there is true. It knows nothing of sockets or processes.
package checker

import (
	"fmt"
	"strings"
	"time"

	"parley.example/tests/picture"
)

// Kind of an Event.
type Kind uint8

// What a history consists of, as its clients saw it.
const (
	Sent               Kind = iota // a message goes out; again under the same id when its outcome was not known
	Accepted                       // the server said that it is stored
	Refused                        // the server said that it is not, and never will be
	Unknown                        // no outcome: unavailable, or the connection was gone
	Received                       // a message came
	Connected                      // a session has joined
	Disconnected                   // it has ended
	CaughtUp                       // everything missed has come: what is sent from now on comes live
	MarkedRead                     // a reader's marker was acknowledged
	Listed                         // one message of a room as history lists it, asked at the end
	Conversation                   // unread count and markers, asked at the end
	Believes                       // who a session believes to be online, asked at the end
	AskedRoom                      // every page of a room has been asked for: what it has was Listed before
	AskedConversations             // every page of a user's conversations: each was a Conversation before
	Rested                         // healed, and nothing comes any more: who is connected has everything
	Parts                          // somebody asks to block the other one of Room, or to end the contact
	Parted                         // it was acknowledged
	Reunites                       // somebody asks to take that back
	Reunited                       // it was acknowledged
	ToldParted                     // a session is told that the other one of Room is no contact any more
	ToldReunited                   // a session is told that it is one
	WentBack                       // a session is told of a mark that is behind one that it was told before
	Says                           // what HTTP says of contacts and marks, asked at the end
	Knows                          // what a session knows of them, asked at the same time

	Kinds = iota // how many there are
)

var kindNames = [...]string{"sends", "is told accepted", "is told refused", "has no outcome of", "receives", "connects", "disconnects", "has caught up",
	"marks as read", "finds listed", "finds conversation", "believes online", "has asked for all of", "has asked for all conversations", "all has come to rest",
	"parts in", "has parted in", "reunites in", "has reunited in", "is told of parting in", "is told of reuniting in", "is told of an old mark in", "is told by HTTP", "knows"}

func (k Kind) String() string { return kindNames[k] }

// Event is one thing that one device saw. Only the fields that its kind needs are set.
type Event struct {
	At      time.Duration // since the beginning
	Kind    Kind
	User    string
	Device  string
	Session int // counts a device's connections

	Room, Sender, ID, Content string
	Seq                       int64
	Late                      bool // the server said that younger ones came before
	Fresh                     bool // Connected: the client knows nothing of its earlier connections
	GaveUp                    bool // Unknown: and it will not be asked for again

	Unread, ReadSeq, PeerReadSeq, DeliveredSeq int64            // Conversation
	PeerDeliveredSeq                           int64            // Conversation
	Watched, Online                            []string         // Believes
	InTheDark                                  bool             // Believes: the server said that it cannot be known
	Picture                                    *picture.Picture // Says, Knows
}

func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10.3fs %s/%s#%d %s", e.At.Seconds(), e.User, e.Device, e.Session, e.Kind)
	if e.ID != "" {
		fmt.Fprintf(&b, " %s by %s in %s", e.ID, e.Sender, e.Room)
	}
	if e.Seq != 0 {
		fmt.Fprintf(&b, " seq %d", e.Seq)
	}
	if e.Late {
		b.WriteString(" late")
	}
	switch e.Kind {
	case Conversation:
		fmt.Fprintf(&b, " %s: %d unread, read to %d, peer to %d, delivered to %d", e.Room, e.Unread, e.ReadSeq, e.PeerReadSeq, e.DeliveredSeq)
	case Believes:
		fmt.Fprintf(&b, " %v of %v", e.Online, e.Watched)
	case Parts, Parted, Reunites, Reunited, ToldParted, ToldReunited:
		fmt.Fprintf(&b, " %s", e.Room)
	case WentBack:
		fmt.Fprintf(&b, " %s, of %s", e.Room, e.Sender)
	}
	return b.String()
}

// Device is what a client is entitled to.
type Device struct {
	User, Name string
	// Dedupes: it drops what it has seen, so each message comes once, whatever breaks.
	Dedupes bool
	// Keeps: the server or the client remembers where this very device is, so it gets every message. Without, what another device of the
	// user has confirmed need not come here when this one was away.
	Keeps bool
	// Echoes: its own messages come back to it like those of others (the old clients). It may be signed out without knowing, and learns that
	// when it sends: what is accepted shows that it was there until then.
	Echoes bool
}

// History is what happened, in the order in which it was recorded. A receipt is never recorded before the sending that caused it.
type History struct {
	Devices []Device
	Events  []Event
}

// Members of a room.
func Members(room string) (a, b string) {
	a, b, _ = strings.Cut(room, "&")
	return a, b
}

func member(room, user string) bool {
	a, b := Members(room)
	return user == a || user == b
}

func peer(room, user string) string {
	a, b := Members(room)
	if a == user {
		return b
	}
	return a
}

// What can be wrong.
const (
	LostPrefix  = "lost: the beginning of a room"
	LostMiddle  = "lost: in the middle"
	LostTail    = "lost: the end of a room"
	Twice       = "received twice"
	Twin        = "one message under two seqs"
	Disorder    = "out of order"
	Disagree    = "two devices disagree"
	Leaked      = "received by a third person"
	Acknowledge = "acknowledged or shown though refused"
	Invented    = "received and never sent"
	Changed     = "content changed"
	Unlisted    = "stored and not in history"
	Markers     = "unread count or marker is wrong"
	Presence    = "presence is wrong"
	Unresolved  = "no outcome in the end"
	Live        = "what was told of contacts or marks is wrong"
	Back        = "a mark went back"
	Permission  = "may write though parted, or may not though reunited"
)

// Violation is one broken promise.
type Violation struct {
	What               string
	Room, User, Device string
	Sender, ID         string
	Text               string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: room %s, %s/%s, message %s of %s: %s", v.What, v.Room, v.User, v.Device, v.ID, v.Sender, v.Text)
}

// Figures of a history, against vacuous passes.
type Figures struct {
	Sent, Resent, Accepted, Refused, Unknown, Received, Late, Again, Connected, Disconnected, Listed, Conversations, Beliefs int
	Reads, Partings, ToldOfPartings, Known                                                                                   int
}

// Count makes the figures. Again counts what clients without dedupe were allowed to see a second time.
func Count(h *History) Figures {
	var f Figures
	sent := map[message]bool{}
	got := map[receipt]bool{}
	for i := range h.Events {
		switch e := &h.Events[i]; e.Kind {
		case Sent:
			f.Sent++
			if k := (message{e.Room, e.Sender, e.ID}); sent[k] {
				f.Resent++
			} else {
				sent[k] = true
			}
		case Accepted:
			f.Accepted++
		case Refused:
			f.Refused++
		case Unknown:
			f.Unknown++
		case Received:
			f.Received++
			if e.Late {
				f.Late++
			}
			k := receipt{e.User, e.Device, e.Sender, e.ID}
			if got[k] {
				f.Again++
			}
			got[k] = true
		case Connected:
			f.Connected++
		case Disconnected:
			f.Disconnected++
		case Listed:
			f.Listed++
		case Conversation:
			f.Conversations++
		case Believes:
			f.Beliefs++
		case MarkedRead:
			f.Reads++
		case Parted:
			f.Partings++
		case ToldParted:
			f.ToldOfPartings++
		case Knows:
			f.Known++
		}
	}
	return f
}

type message struct{ room, sender, id string }

type receipt struct{ user, device, sender, id string }
