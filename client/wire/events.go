package wire

import (
	"encoding/json"
	"errors"
	"time"
)

// The event names of the protocol.
const (
	EvAuthenticate  = "authenticate"
	EvRefreshToken  = "refresh_token"
	EvJoin          = "join"
	EvSend          = "client_sends_message"
	EvTyping        = "typing"
	EvRead          = "message_read"
	EvWatch         = "watch_presence"
	EvAlive         = "connection_alive"
	EvDisconnection = "client_disconnection"

	EvWelcome        = "welcome"
	EvAck            = "ack"
	EvAccepted       = "message_accepted"
	EvReceived       = "received_message"
	EvPresence       = "presence"
	EvDelivered      = "message_delivered"
	EvContactAdded   = "contact_added"
	EvContactRemoved = "contact_removed"
	EvGoingAway      = "going_away"
	EvCatchingUp     = "catching_up"
	EvCaughtUp       = "caught_up"
	EvError          = "error"
)

// ClientEvents and ServerEvents list who may say what.
var (
	ClientEvents = []string{EvAuthenticate, EvRefreshToken, EvJoin, EvSend, EvTyping, EvRead, EvWatch, EvAlive, EvDisconnection}
	ServerEvents = []string{EvWelcome, EvAck, EvAccepted, EvReceived, EvPresence, EvTyping, EvRead, EvDelivered, EvContactAdded,
		EvContactRemoved, EvGoingAway, EvCatchingUp, EvCaughtUp, EvError}
)

// Frame is one JSON object on the socket.
type Frame struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data,omitempty"`
	ID    string          `json:"id,omitempty"` // the client's, on frames that it sends
	Re    string          `json:"re,omitempty"` // the ID of the frame that this one answers
}

// Authenticate is the data of authenticate and refresh_token.
type Authenticate struct {
	Token string `json:"token"`
}

// Join is the data of join. Exactly one of Room and Rooms is set.
type Join struct {
	Room   string           `json:"room,omitempty"`
	Rooms  RoomList         `json:"rooms,omitzero"`
	Since  map[string]int64 `json:"since,omitempty"` // room to the last seq seen there
	Resume string           `json:"resume,omitempty"`
	Device string           `json:"device,omitempty"`
}

// RoomList is either "*" or a list of rooms.
type RoomList struct {
	All  bool
	List []string
}

// IsZero reports that the field was not given.
func (r RoomList) IsZero() bool { return !r.All && r.List == nil }

// MarshalJSON writes "*" or the list.
func (r RoomList) MarshalJSON() ([]byte, error) {
	if r.All {
		return []byte(`"*"`), nil
	}
	b := []byte{'['}
	for i, name := range r.List {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, name)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads "*" or a list of strings.
func (r *RoomList) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil // absent, as elsewhere
	}
	var s string
	if json.Unmarshal(b, &s) == nil {
		if s != "*" {
			return E(InvalidArgument, `rooms is a list of rooms or "*"`)
		}
		*r = RoomList{All: true}
		return nil
	}
	r.List = []string{}
	return json.Unmarshal(b, &r.List)
}

// Send is the data of client_sends_message.
type Send struct {
	Room    string `json:"conversation_room"`
	Content string `json:"content"`
	ID      string `json:"id,omitempty"` // idempotency key, unique per sender
	Retry   bool   `json:"retry,omitempty"`
}

// Marker is the data of typing, message_read and message_delivered; Username is set by the server only.
type Marker struct {
	Room     string `json:"conversation_room"`
	Username string `json:"username,omitempty"`
	Seq      int64  `json:"seq,omitempty"`
}

// Watch is the data of watch_presence.
type Watch struct {
	Usernames []string `json:"usernames"`
}

// Welcome is the data of welcome.
type Welcome struct {
	Username   string    `json:"username"`
	Session    string    `json:"session"`
	ServerTime Timestamp `json:"server_time"`
	HeartbeatS int       `json:"heartbeat_s"` // the server pings at least this often; silence for twice as long means a dead link
	Limits     Limits    `json:"limits"`
}

// Limits tells a client what it may send.
type Limits struct {
	FrameBytes        int `json:"frame_bytes"`
	ContentBytes      int `json:"content_bytes"`
	MessagesPerMinute int `json:"messages_per_minute"`
}

// Ack is the data of ack: only the fields that the answered event has.
type Ack struct {
	Joined  []string  `json:"joined,omitempty"`  // ["*"] for all
	Refused []Refusal `json:"refused,omitempty"` // of a list of rooms, those that were not joined
	Resume  string    `json:"resume,omitempty"`
}

// Refusal is a room, as the client wrote it, that could not be joined, or whose place in since does not count.
type Refusal struct {
	Room string `json:"room"`
	Code Code   `json:"code"`
}

// Message is the data of received_message and, without Sender and Content, of message_accepted.
type Message struct {
	Sender  string    `json:"sender,omitempty"`
	Content string    `json:"content"`
	Room    string    `json:"conversation_room"`
	ID      string    `json:"id"`
	Seq     int64     `json:"seq"`
	Prev    *int64    `json:"prev,omitempty"` // 0: the first of the room; nil: not known at once
	SentAt  Timestamp `json:"sent_at"`
	Late    bool      `json:"late,omitempty"`
}

// Presence is the data of presence.
type Presence struct {
	Online   []string  `json:"online"`
	Offline  []Offline `json:"offline"`
	Snapshot bool      `json:"snapshot,omitempty"`
	Partial  bool      `json:"partial,omitempty"` // of a snapshot: whom it does not name at all is not known
	Unknown  bool      `json:"unknown,omitempty"`
}

// Offline is one user that is not there. LastSeen is absent when nobody knows it.
type Offline struct {
	Username string    `json:"username"`
	LastSeen Timestamp `json:"last_seen,omitzero"`
}

// Contact is the data of contact_added and contact_removed.
type Contact struct {
	Username string `json:"username"`
	Room     string `json:"room"`
}

// GoingAway is the data of going_away.
type GoingAway struct {
	ReconnectInMS int64 `json:"reconnect_in_ms"`
}

// CatchingUp is the data of catching_up: where the catch-up that follows begins.
type CatchingUp struct {
	Resume string `json:"resume"`
}

// CaughtUp is the data of caught_up.
type CaughtUp struct {
	Resume string `json:"resume"`
}

// Timestamp is a time that is written as RFC 3339 in UTC with milliseconds.
type Timestamp struct{ time.Time }

const timestampLayout = "2006-01-02T15:04:05.000Z"

// AppendJSON appends the quoted form to b.
func (t Timestamp) AppendJSON(b []byte) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timestampLayout)
	return append(b, '"')
}

// MarshalJSON writes the quoted form.
func (t Timestamp) MarshalJSON() ([]byte, error) { return t.AppendJSON(make([]byte, 0, 26)), nil }

var errYear = errors.New("a year is 0 to 9999")

// UnmarshalJSON reads any RFC 3339 time.
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.Parse(time.RFC3339Nano, s)
	if v = v.UTC(); err == nil && (v.Year() < 0 || v.Year() > 9999) {
		err = errYear // the shift to UTC left what RFC 3339 can say
	}
	t.Time = v
	return err
}

// Millis makes a Timestamp of Unix milliseconds; 0 is the zero Timestamp ("not known").
func Millis(ms int64) Timestamp {
	if ms == 0 {
		return Timestamp{}
	}
	return Timestamp{time.UnixMilli(ms).UTC()}
}
