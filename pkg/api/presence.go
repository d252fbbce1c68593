package api

// PresenceShards is S: every user belongs to one of these shards, each a Redis Cluster hash slot. Fixed: changing it needs empty Redis.
const PresenceShards = 16

// PresenceShard is the shard of a user (FNV-1a). Gateways and presence must agree on it.
func PresenceShard(user string) int {
	h := uint32(2166136261)
	for i := 0; i < len(user); i++ {
		h = (h ^ uint32(user[i])) * 16777619
	}
	return int(h % PresenceShards)
}

// SessionsRequest tells of sessions that came or went at one gateway. It is idempotent and
// order-independent per session id: an id that went never comes back.
type SessionsRequest struct {
	Gateway string          `json:"gateway"` // unique per process start, so a restarted gateway is another one
	Changes []SessionChange `json:"changes"`
}

// SessionChange is one session.
type SessionChange struct {
	ID         uint64 `json:"id,string"` // random 64 bits, never 0
	User       string `json:"u"`
	Gone       bool   `json:"gone,omitempty"`
	Deliberate bool   `json:"deliberate,omitempty"` // no grace: the user said good-bye
}

// HeartbeatRequest renews the leases of one gateway in all shards (every 1.5 s).
type HeartbeatRequest struct {
	Gateway string                      `json:"gateway"`
	Digests [PresenceShards]ShardDigest `json:"digests"`
	// RenewOnly: a SessionsRequest is under way, so the digests would not match; compare nothing.
	RenewOnly bool `json:"renew_only,omitempty"`
}

// ShardDigest describes the sessions that a gateway holds in a shard, and what it saw of the shard.
type ShardDigest struct {
	Count int `json:"n"`
	// Hi and Lo are the sums of the upper and the lower halves of the ids, modulo 2^32.
	Hi uint32 `json:"h"`
	Lo uint32 `json:"l"`
	// Epoch and Version are what the gateway saw last: a store that has less has lost data.
	Epoch   string `json:"epoch,omitempty"`
	Version int64  `json:"version,omitempty"`
}

// Add puts a session into the digest.
func (d *ShardDigest) Add(id uint64) {
	d.Count++
	d.Hi += uint32(id >> 32)
	d.Lo += uint32(id)
}

// Remove takes a session out of the digest.
func (d *ShardDigest) Remove(id uint64) {
	d.Count--
	d.Hi -= uint32(id >> 32)
	d.Lo -= uint32(id)
}

// HeartbeatResponse says what to do about each shard.
type HeartbeatResponse struct {
	Shards [PresenceShards]ShardState `json:"shards"`
}

// ShardState is where a shard stands.
type ShardState struct {
	Epoch   string `json:"epoch"`
	Version int64  `json:"version"`
	// Resync: the digest did not match; send all sessions of this shard again (a ResyncRequest).
	Resync bool `json:"resync,omitempty"`
	// Settling: the epoch is new and gateways are registering again; presence of this shard is unknown.
	Settling bool `json:"settling,omitempty"`
}

// ResyncRequest carries all sessions that a gateway holds in one shard and whose ids are in a range; what it does
// not name there is gone, with grace.
type ResyncRequest struct {
	Gateway  string          `json:"gateway"`
	Shard    int             `json:"shard"`
	Sessions []SessionChange `json:"sessions"` // at most PresenceResyncMax
	// From and To bound the range, both included; To 0 means no upper bound.
	From uint64 `json:"from,string,omitempty"`
	To   uint64 `json:"to,string,omitempty"`
}

// Limits of the requests. A larger one is answered with invalid_argument.
const (
	PresenceSessionsMax = 500  // changes in a SessionsRequest
	PresenceResyncMax   = 2000 // sessions in a ResyncRequest
	PresenceLastSeenMax = 1000 // users in a LastSeenRequest
	PresenceListMax     = 1000 // changes in one Changes
)

// Changes is published on presence.<shard>: users who came online or went offline, in order. Versions are dense
// within an epoch, so a missing batch shows and is answered with a snapshot. An empty List says that the epoch is new (Settling)
// or has just settled (ask for a snapshot).
type Changes struct {
	Shard int              `json:"shard"`
	Epoch string           `json:"epoch"`
	From  int64            `json:"from"` // version before the first change
	List  []PresenceChange `json:"list,omitempty"`
	// Settling: see ShardState.
	Settling bool `json:"settling,omitempty"`
}

// PresenceChange is one user's change. LastSeen (Unix ms) is set when the user went offline.
type PresenceChange struct {
	User     string `json:"u"`
	Online   bool   `json:"on,omitempty"`
	LastSeen int64  `json:"t,omitempty"`
}

// SnapshotRequest asks who is online in one shard, by name after After.
type SnapshotRequest struct {
	Shard int    `json:"shard"`
	After string `json:"after,omitempty"`
}

// PresencePageBytes bounds the names in one SnapshotResponse, so that it fits into a NATS message.
const PresencePageBytes = 384 << 10

// SnapshotResponse is consistent with Version. More: there are more names after the last one; pages of different versions make
// up a snapshot of the first one's when all changes since that are applied to it again.
type SnapshotResponse struct {
	Epoch    string   `json:"epoch"`
	Version  int64    `json:"version"`
	Settling bool     `json:"settling,omitempty"`
	Online   []string `json:"online"`
	More     bool     `json:"more,omitempty"`
}

// LastSeenRequest asks when users were last online, at most 1,000.
type LastSeenRequest struct {
	Users []string `json:"users"`
}

// LastSeenResponse has Unix ms per user in the same order; 0 where nobody knows.
type LastSeenResponse struct {
	LastSeen []int64 `json:"last_seen"`
}
