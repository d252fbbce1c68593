package wire

// Credentials is the body of POST /v1/users and of POST /v1/sessions.
type Credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// User is a registered user: the answer of POST /v1/users.
type User struct {
	Username string `json:"username"` // registered form
}

// Tokens is what a login gives, and a renewal. Keep the refresh token secret: each is good until what it was traded for is used.
type Tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	Username     string `json:"username"`   // registered form
}

// RefreshToken is the body of POST /v1/sessions/refresh.
type RefreshToken struct {
	RefreshToken string `json:"refresh_token"`
}

// ContactInfo is a user that one may chat with: a row of GET /v1/contacts.
type ContactInfo struct {
	Username string    `json:"username"`
	Room     string    `json:"room"`
	Online   *bool     `json:"online"`             // nil: the server cannot tell now
	LastSeen Timestamp `json:"last_seen,omitzero"` // zero while online, and when not known
}

// ContactsPage answers GET /v1/contacts; Next goes into `after` of the next request, "" is the end.
type ContactsPage struct {
	Contacts []ContactInfo `json:"contacts"`
	Next     string        `json:"next,omitempty"`
}

// ContactState answers PUT /v1/contacts/{username}.
type ContactState struct {
	State string `json:"state"` // "requested" until the other one asks too, then "contact"
}

// Conversation is a room as its user sees it: a row of GET /v1/conversations. The seqs are the markers of both.
type Conversation struct {
	Room             string   `json:"room"`
	Peer             string   `json:"peer"`
	LastMessage      *Message `json:"last_message,omitempty"`
	Unread           int64    `json:"unread"`
	ReadSeq          int64    `json:"read_seq"`
	DeliveredSeq     int64    `json:"delivered_seq"`
	PeerReadSeq      int64    `json:"peer_read_seq"`
	PeerDeliveredSeq int64    `json:"peer_delivered_seq"`
}

// ConversationsPage answers GET /v1/conversations, the one with the youngest message first; Next goes into `after` of the next request, "" is the end.
type ConversationsPage struct {
	Conversations []Conversation `json:"conversations"`
	Next          string         `json:"next,omitempty"`
	Behind        bool           `json:"behind,omitempty"` // as in MessagesPage
}

// MessagesPage answers GET /v1/rooms/{room}/messages, oldest first. More: there are more in the asked direction. Behind: the server's history is
// more than a second behind, and the youngest messages may be missing.
type MessagesPage struct {
	Messages []Message `json:"messages"`
	More     bool      `json:"more"`
	Behind   bool      `json:"behind,omitempty"`
}

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Type         string `json:"type"` // names the code: urn:parley:error:<code>
	Title        string `json:"title"`
	Status       int    `json:"status"`
	Detail       string `json:"detail"`
	Code         Code   `json:"code"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}
