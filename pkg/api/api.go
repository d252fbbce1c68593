// Package api is the contract between the gateways and the services behind NATS: the requests (see rpc.Endpoint), their JSON bodies and the events.
//
// Rule for changes: two versions run side by side during a rollout, so fields are added, never renamed or reused.
package api

import (
	"time"

	"parley.example/pkg/rpc"
)

// passwordTime is how long a request that hashes a password is waited for at least: in a storm of logins they queue in auth, for 12 s at most,
// and one that is given up is hashed all the same.
const passwordTime = 13 * time.Second

// The requests.
var (
	AuthRegister      = rpc.Endpoint[Credentials, User]{Subject: "svc.auth.register", Patience: passwordTime}
	AuthLogin         = rpc.Endpoint[Credentials, Tokens]{Subject: "svc.auth.login", Patience: passwordTime}
	AuthRefresh       = rpc.Endpoint[RefreshRequest, Tokens]{Subject: "svc.auth.refresh"}
	AuthLogout        = rpc.Endpoint[LogoutRequest, Empty]{Subject: "svc.auth.logout"}
	AuthUsed          = rpc.Endpoint[UsedRequest, Empty]{Subject: "svc.auth.used"}
	AuthCheck         = rpc.Endpoint[Credentials, CheckResponse]{Subject: "svc.auth.check", Patience: passwordTime}
	AuthEndLogins     = rpc.Endpoint[EndLoginsRequest, EndLoginsResponse]{Subject: "svc.auth.end_logins"}
	AuthContacts      = rpc.Endpoint[ContactsRequest, ContactsPage]{Subject: "svc.auth.contacts"}
	AuthResolve       = rpc.Endpoint[ResolveRequest, ResolveResponse]{Subject: "svc.auth.resolve"}
	AuthRelations     = rpc.Endpoint[RelationsRequest, Relations]{Subject: "svc.auth.relations"}
	AuthDirectory     = rpc.Endpoint[DirectoryRequest, DirectoryResponse]{Subject: "svc.auth.directory"}
	AuthPutContact    = rpc.Endpoint[PairRequest, PairResponse]{Subject: "svc.auth.put_contact"}
	AuthDeleteContact = rpc.Endpoint[PairRequest, Empty]{Subject: "svc.auth.delete_contact"}
	AuthPutBlock      = rpc.Endpoint[PairRequest, Empty]{Subject: "svc.auth.put_block"}
	AuthDeleteBlock   = rpc.Endpoint[PairRequest, Empty]{Subject: "svc.auth.delete_block"}

	HistoryCatchUp       = rpc.Endpoint[CatchUpRequest, CatchUpResponse]{Subject: "svc.history.catch_up"}
	HistoryPage          = rpc.Endpoint[PageRequest, PageResponse]{Subject: "svc.history.page"}
	HistoryConversations = rpc.Endpoint[ConversationsRequest, ConversationsPage]{Subject: "svc.history.conversations"}
	HistoryFind          = rpc.Endpoint[FindRequest, FindResponse]{Subject: "svc.history.find"}
	HistoryRows          = rpc.Endpoint[RowsRequest, RowsResponse]{Subject: "svc.history.rows"}
	HistoryMessages      = rpc.Endpoint[MessagesRequest, MessagesResponse]{Subject: "svc.history.messages"}
	HistoryConfirm       = rpc.Endpoint[ConfirmRequest, Empty]{Subject: "svc.history.confirm"}
	HistoryRead          = rpc.Endpoint[ReadRequest, ReadResponse]{Subject: "svc.history.read"}
	HistoryMarks         = rpc.Endpoint[MarksRequest, MarksResponse]{Subject: "svc.history.marks"}

	PresenceSessions  = rpc.Endpoint[SessionsRequest, Empty]{Subject: "svc.presence.sessions"}
	PresenceHeartbeat = rpc.Endpoint[HeartbeatRequest, HeartbeatResponse]{Subject: "svc.presence.heartbeat"}
	PresenceResync    = rpc.Endpoint[ResyncRequest, Empty]{Subject: "svc.presence.resync"}
	PresenceSnapshot  = rpc.Endpoint[SnapshotRequest, SnapshotResponse]{Subject: "svc.presence.snapshot"}
	PresenceLastSeen  = rpc.Endpoint[LastSeenRequest, LastSeenResponse]{Subject: "svc.presence.last_seen"}
)

// KV buckets. Auth writes them, gateways watch them.
const (
	KeysBucket = "parley_keys" // key id → base64url of an Ed25519 public key
	// RevokedBucket says which tokens are void: "sid.<sid>" those of a login; "user.<token of the name>" → Unix seconds, those that the user was
	// given up to then; "began.<token of the name>" → Unix milliseconds, those of the user's logins that began up to then;
	// "disabled.<token of the name>" that the user is locked out, which is why.
	RevokedBucket = "parley_revoked"
)

// Empty is the body of requests and answers that have none.
type Empty struct{}

// ---- auth ----

// Mode says who is a contact of whom.
type Mode string

// Modes of the directory.
const (
	Everyone Mode = "everyone" // every registered user is everybody's contact
	Roster   Mode = "roster"   // contacts by consent of both
)

// Credentials is the body of register and login. Address is the client's, for throttling.
type Credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Address  string `json:"address,omitempty"`
	Scope    string `json:"scope,omitempty"` // token.ScopeNative when empty
}

// User is a registered user.
type User struct {
	Username string `json:"username"`
}

// Tokens is what a login gives.
type Tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	Username     string `json:"username"`
}

// RefreshRequest trades a refresh token for new tokens.
type RefreshRequest struct {
	RefreshToken string `json:"refresh_token"`
	Address      string `json:"address,omitempty"`
}

// MaxUses bounds UsedRequest.
const MaxUses = 200

// UsedRequest tells that access tokens which came with a refresh were used, so that the refresh tokens before them are good no longer.
// At most MaxUses; it may be repeated.
type UsedRequest struct {
	Uses []Use `json:"uses"`
}

// Use of an access token: its login, and its turn (see token.Claims).
type Use struct {
	SID  string `json:"s"`
	Turn int64  `json:"n"`
}

// LogoutRequest ends one login.
type LogoutRequest struct {
	Username string `json:"username"`
	SID      string `json:"sid"`
}

// CheckResponse answers a check of Credentials, which begins no login.
type CheckResponse struct {
	Username string `json:"username"`
	Admin    bool   `json:"admin,omitempty"`
}

// EndLoginsRequest ends all logins of a user (any case).
type EndLoginsRequest struct {
	Username string `json:"username"`
}

// EndLoginsResponse says how many there were.
type EndLoginsResponse struct {
	Username string `json:"username"` // registered form
	Ended    int    `json:"ended"`
}

// Served is published on subject.ServedEvents: User was served a list of contacts. An old client is told of whom was online in it; whose names
// a native client got (Listed), its sessions get the presence of.
type Served struct {
	User   string   `json:"u"`
	Online []string `json:"on,omitempty"`
	Listed []string `json:"l,omitempty"`
}

// ContactsRequest asks for a page of the contacts of a user, ordered by folded name; for a Prefix without accents, by folded name without
// accents.
type ContactsRequest struct {
	Username string `json:"username"`
	Prefix   string `json:"prefix,omitempty"`
	After    string `json:"after,omitempty"` // Next of the page before
	Limit    int    `json:"limit,omitempty"` // default 100, at most 1,000
	// Among, unless empty: only those of these names, at most 1,000, as they are registered. An auth of before answers as if there were none.
	Among []string `json:"among,omitempty"`
}

// ContactsPage is one page; Next is "" on the last one.
type ContactsPage struct {
	Usernames []string `json:"usernames"`
	Next      string   `json:"next,omitempty"`
}

// ResolveRequest asks for the registered form of names (any case), at most 1,000.
type ResolveRequest struct {
	Names []string `json:"names"`
}

// ResolveResponse has one entry a name, in the same order; "" where nobody has it.
type ResolveResponse struct {
	Usernames []string `json:"usernames"`
	// Erased is the same for names whose users were erased; absent when there are none. It is for rooms of the one who asks: nobody else is to learn
	// that there was such a user.
	Erased []string `json:"erased,omitempty"`
}

// RelationsRequest asks for what decides with whom a user may talk.
type RelationsRequest struct {
	Username string `json:"username"`
}

// Relations of a user. Contacts is filled in roster mode only.
type Relations struct {
	Mode      Mode     `json:"mode"`
	Disabled  bool     `json:"disabled,omitempty"`
	Contacts  []string `json:"contacts,omitempty"`
	Blocked   []string `json:"blocked,omitempty"`
	BlockedBy []string `json:"blocked_by,omitempty"`
	// BlockedByMore: more users block this one than BlockedBy has; Blocked of each of them, which is complete, tells.
	BlockedByMore bool `json:"blocked_by_more,omitempty"`
	// Version that these relations have at least; see DirectoryResponse.
	Version int64 `json:"version,omitempty"`
}

// DirectoryRequest asks for the directory. Since is the Version of an answer before, 0 for none.
type DirectoryRequest struct {
	Since int64 `json:"since,omitempty"`
}

// DirectoryResponse has all names while there are at most Limit of them.
type DirectoryResponse struct {
	Mode      Mode     `json:"mode"`
	Total     int      `json:"total"`
	Limit     int      `json:"limit"`
	Usernames []string `json:"usernames,omitempty"`
	// Version changes with any change of anybody's relations (contacts, blocks, disabled): while it stays, nobody's need
	// to be read again. 0: not known.
	Version int64 `json:"version,omitempty"`
	// Changed are those whose relations have changed after Since, if ChangedKnown.
	Changed      []string `json:"changed,omitempty"`
	ChangedKnown bool     `json:"changed_known,omitempty"`
}

// PairRequest is the body of put_contact, delete_contact, put_block and delete_block.
type PairRequest struct {
	Username string `json:"username"` // who asks
	Peer     string `json:"peer"`
}

// PairResponse of put_contact: State is "requested" until the peer asks too, then "contact".
type PairResponse struct {
	State string `json:"state,omitempty"`
}

// Kinds of DirectoryEvent.
const (
	EventRegistered     = "registered"      // Username is new
	EventContactAdded   = "contact_added"   // both are contacts now (roster)
	EventContactRemoved = "contact_removed" // no longer (roster)
	EventRelations      = "relations"       // a block came or went: reload both
	EventErased         = "erased"          // Username is gone for ever
)

// DirectoryEvent is published on subject.DirectoryEvents. It is a hint: gateways also reload
// what they cached after its stated bound.
type DirectoryEvent struct {
	Kind     string `json:"kind"`
	Username string `json:"username"`
	Peer     string `json:"peer,omitempty"`
}

// ---- stored messages ----

// PayloadVersion is the V of the payloads that this version writes, and the highest that its history stores.
const PayloadVersion = 1

// StoredPayload is the body of a message in a ROOMS stream. Room, seq, prev and time are the stream's.
//
// A change that must not be lost on the way into SQL raises V, also one that only adds a field. History stops before a payload whose V it does not
// know, until a newer one takes over; gateways hand on those fields that they know, whatever V says.
type StoredPayload struct {
	V       int    `json:"v"` // PayloadVersion; absent: 1
	Sender  string `json:"s"`
	ID      string `json:"i"`
	Content string `json:"c"`
}

// Ephemeral is the body of what is published on deliver.<a>.<b> without being stored. Such a message has
// no Nats-Sequence header and has EphemeralHeader.
type Ephemeral struct {
	Event    string `json:"e"` // wire.EvTyping; older gateways also send markers so
	Username string `json:"u"`
	Seq      int64  `json:"q,omitempty"`
	Session  string `json:"n,omitempty"` // the session that caused it does not get it
	At       int64  `json:"t,omitempty"` // Unix ms, of what is good for a moment only
}

// EphemeralHeader marks an Ephemeral.
const EphemeralHeader = "Parley-Ephemeral"

// MaxPartitions bounds P and the vectors in the messages below.
const MaxPartitions = 64

// ---- history ----
//
// SQL is filled behind the streams. A request that reads says what SQL must have before the answer is complete (MinApplied; Seq of ReadRequest), and the
// service waits for that, for a second at most. Then it says that it is behind (find, whose "none" would be a lie, answers unavailable). RowsRequest
// and MessagesRequest do not wait: the one is told how far SQL is, the other asks for what was announced.

// Applied is published on applied.<p> after each commit and every second when idle: SQL now has
// everything of partition P up to To. From is the To of the announcement before, so a hole shows.
type Applied struct {
	P     int   `json:"p"`
	From  int64 `json:"from"`
	To    int64 `json:"to"`
	Epoch int64 `json:"epoch"` // Unix ms of the stream's creation: another stream, other positions
	Rows  []Row `json:"rows,omitempty"`
	// RowsOmitted says that Rows did not fit; ask HistoryRows.
	RowsOmitted bool `json:"rows_omitted,omitempty"`
}

// Row names one stored message.
type Row struct {
	A   string `json:"a"`
	B   string `json:"b"`
	Seq int64  `json:"s"`
}

// RowsRequest asks for the rows of partition P with From < seq ≤ To, oldest first.
type RowsRequest struct {
	P    int   `json:"p"`
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// RowsResponse covers From < seq ≤ To of its own To, which is less than the asked To when there are more.
type RowsResponse struct {
	Rows []Row `json:"rows"`
	To   int64 `json:"to"`
}

// StoredMessage is a message as SQL has it. Prev is nil only for one whose predecessor is unknown.
type StoredMessage struct {
	P       int    `json:"p"`
	Seq     int64  `json:"q"`
	A       string `json:"a"`
	B       string `json:"b"`
	Sender  string `json:"s"`
	ID      string `json:"i"`
	Content string `json:"c"`
	Prev    *int64 `json:"v,omitempty"`
	SentAt  int64  `json:"t"`           // Unix ms
	Alias   int64  `json:"l,omitempty"` // seq of the message that this one repeats; pages hide it
}

// MessagesRequest asks for messages of one partition by seq, at most 500.
type MessagesRequest struct {
	P    int     `json:"p"`
	Seqs []int64 `json:"seqs"`
}

// MessagesResponse has those that exist, oldest first; cut when it would pass 512 KiB.
type MessagesResponse struct {
	Messages []StoredMessage `json:"messages"`
}

// PageRequest asks for a page of a room; at most one of Before and After is not 0. Limit defaults to 50, at most 200.
type PageRequest struct {
	A      string `json:"a"`
	B      string `json:"b"`
	Before int64  `json:"before,omitempty"`
	After  *int64 `json:"after,omitempty"` // 0 is a valid "from the first on"
	Limit  int    `json:"limit,omitempty"`
	// MinApplied is as in CatchUpRequest; of the room's partition, and as far as the page can show it.
	MinApplied []int64 `json:"min_applied,omitempty"`
}

// PageResponse is oldest first. More: there are more in the asked direction.
type PageResponse struct {
	Messages []StoredMessage `json:"messages"`
	More     bool            `json:"more"`
	// Behind: MinApplied was not reached within the service's patience (1 s). The youngest messages may be missing; with After, More is true then.
	Behind bool `json:"behind,omitempty"`
}

// ConversationsRequest asks for a user's conversations, the one with the youngest message first.
type ConversationsRequest struct {
	Username string `json:"username"`
	After    string `json:"after,omitempty"`
	Limit    int    `json:"limit,omitempty"` // default 50, at most 200
	// MinApplied is as in CatchUpRequest.
	MinApplied []int64 `json:"min_applied,omitempty"`
}

// Conversation as one of its two users sees it.
type Conversation struct {
	Room             string         `json:"room"`
	Peer             string         `json:"peer"`
	LastMessage      *StoredMessage `json:"last_message,omitempty"`
	Unread           int64          `json:"unread"`
	ReadSeq          int64          `json:"read_seq"`
	DeliveredSeq     int64          `json:"delivered_seq"`
	PeerReadSeq      int64          `json:"peer_read_seq"`
	PeerDeliveredSeq int64          `json:"peer_delivered_seq"`
}

// ConversationsPage is one page; Next is "" on the last one. What moves while pages are read comes, again, after the others.
type ConversationsPage struct {
	Conversations []Conversation `json:"conversations"`
	Next          string         `json:"next,omitempty"`
	// Behind: MinApplied was not reached within the service's patience (1 s). The youngest messages may be missing.
	Behind bool `json:"behind,omitempty"`
}

// FindRequest asks for the message that sender sent with this id into any room. MinApplied is what SQL must have of
// partition P before the answer "none" counts; the service waits a little for it, else answers unavailable.
type FindRequest struct {
	Sender     string `json:"sender"`
	ID         string `json:"id"`
	P          int    `json:"p"`
	MinApplied int64  `json:"min_applied"`
}

// FindResponse has no Message when there is none.
type FindResponse struct {
	Message *StoredMessage `json:"message,omitempty"`
}

// CatchUpRequest asks what several sessions missed, each on its own terms. The gateway batches requests.
type CatchUpRequest struct {
	Items []CatchUpItem `json:"items"` // at most 200
	// MinApplied[p] is what SQL must have of each partition before the answer is complete; shorter means 0.
	MinApplied []int64 `json:"min_applied"`
}

// CatchUpItem is one session's question. The starting point is, per room: Since[room] if given, else Vector[p]
// if Vector is given, else what Device has confirmed if Device is given, else what any session of the user has confirmed.
type CatchUpItem struct {
	User   string           `json:"user"`
	Rooms  []string         `json:"rooms,omitempty"` // nil: all of the user's
	Since  map[string]int64 `json:"since,omitempty"`
	Vector []int64          `json:"vector,omitempty"`
	Device string           `json:"device,omitempty"`
	// Cont continues a cut answer: copy CatchUpResult.Cont here.
	Cont string `json:"cont,omitempty"`
	// Upto, when given, leaves out messages of partition p above Upto[p].
	Upto []int64 `json:"upto,omitempty"`
	// Begin asks for CatchUpResult.Begin; it needs Upto.
	Begin bool `json:"begin,omitempty"`
}

// CatchUpResult is the answer to the item at the same index.
type CatchUpResult struct {
	Messages []StoredMessage `json:"messages"`       // oldest first within a room; rooms one after the other; no aliases
	Cont     string          `json:"cont,omitempty"` // not "" when there is more
	// Begin is, per partition, the highest seq such that all messages of the whole answer lie above it, at most Upto: who starts
	// from it again misses none of them. It comes with the first part of an answer; nil when it was not asked for or cannot be told.
	Begin []int64 `json:"begin,omitempty"`
}

// CatchUpResponse answers all items from one snapshot of the database.
type CatchUpResponse struct {
	Results []CatchUpResult `json:"results"`
	Applied []int64         `json:"applied"` // SQL's position per partition in that snapshot
	// Behind: MinApplied was not reached within the service's patience (1 s). The results are right as far as Applied goes, which is what a gateway
	// looks at; those of the version before look at Behind.
	Behind bool `json:"behind,omitempty"`
}

// ConfirmRequest moves cursors of what was delivered; they never move back. At most 1,000 items.
type ConfirmRequest struct {
	Items []Confirm `json:"items"`
}

// Confirm says that User (and Device, when named) has everything of the room up to Seq.
type Confirm struct {
	User   string `json:"u"`
	Device string `json:"d,omitempty"`
	A      string `json:"a"`
	B      string `json:"b"`
	Seq    int64  `json:"q"`
	// PeerSeq is the youngest message of the peer among it, of which the two are told; 0: none, as where a session has its own message only.
	PeerSeq int64 `json:"m,omitempty"`
	// Session is the one that has confirmed, which is not told of it.
	Session string `json:"n,omitempty"`
}

// ReadRequest moves the read marker of User in a room to Seq; it never moves back.
type ReadRequest struct {
	User    string `json:"user"`
	A       string `json:"a"`
	B       string `json:"b"`
	Seq     int64  `json:"seq"`
	Session string `json:"session,omitempty"` // the one that has read, which is not told of it
}

// ReadResponse has the marker as it is now, and whether the request moved it.
type ReadResponse struct {
	Seq    int64 `json:"seq"`
	Moved  bool  `json:"moved"`
	Unread int64 `json:"unread"`
	// Behind: SQL did not get to the request's seq within the service's patience (1 s); the marker went as far as SQL does.
	Behind bool `json:"behind,omitempty"`
}
