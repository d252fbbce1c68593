package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/api"
	"parley.example/pkg/natsx"
)

// RPC asks the services, one method a request subject of pkg/api. Every failure is a *wire.Error (see natsx.Call):
// the service's own answer, or unavailable when none comes in time. It is safe for concurrent use.
type RPC struct {
	nc      *nats.Conn
	timeout time.Duration
}

// RPC makes requests that wait for timeout at most (those with a password longer), less when their context ends before.
func (b *Bus) RPC(timeout time.Duration) *RPC { return &RPC{nc: b.nc, timeout: timeout} }

// passwordTime is how long a request that hashes a password is waited for at least: in a storm of logins they queue in
// the service, for 12 s at most, and one that is given up here is hashed there all the same.
const passwordTime = 13 * time.Second

func (r *RPC) patient() *RPC { return &RPC{nc: r.nc, timeout: max(r.timeout, passwordTime)} }

func call[Resp any](ctx context.Context, r *RPC, subject string, req any) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return natsx.Call[Resp](ctx, r.nc, subject, req)
}

// tell is call for requests whose answer is empty.
func tell(ctx context.Context, r *RPC, subject string, req any) error {
	_, err := call[api.Empty](ctx, r, subject, req)
	return err
}

// AuthRegister makes a user.
func (r *RPC) AuthRegister(ctx context.Context, req api.Credentials) (api.User, error) {
	return call[api.User](ctx, r.patient(), api.AuthRegister, req)
}

// AuthLogin begins a login.
func (r *RPC) AuthLogin(ctx context.Context, req api.Credentials) (api.Tokens, error) {
	return call[api.Tokens](ctx, r.patient(), api.AuthLogin, req)
}

// AuthRefresh trades a refresh token for new tokens.
func (r *RPC) AuthRefresh(ctx context.Context, req api.RefreshRequest) (api.Tokens, error) {
	return call[api.Tokens](ctx, r, api.AuthRefresh, req)
}

// AuthUsed tells of the first use of access tokens.
func (r *RPC) AuthUsed(ctx context.Context, req api.UsedRequest) error {
	return tell(ctx, r, api.AuthUsed, req)
}

// AuthLogout ends a login.
func (r *RPC) AuthLogout(ctx context.Context, req api.LogoutRequest) error {
	return tell(ctx, r, api.AuthLogout, req)
}

// AuthCheck checks a password without beginning a login.
func (r *RPC) AuthCheck(ctx context.Context, req api.Credentials) (api.CheckResponse, error) {
	return call[api.CheckResponse](ctx, r.patient(), api.AuthCheck, req)
}

// AuthEndLogins ends all logins of a user.
func (r *RPC) AuthEndLogins(ctx context.Context, req api.EndLoginsRequest) (api.EndLoginsResponse, error) {
	return call[api.EndLoginsResponse](ctx, r, api.AuthEndLogins, req)
}

// AuthContacts is a page of a user's contacts.
func (r *RPC) AuthContacts(ctx context.Context, req api.ContactsRequest) (api.ContactsPage, error) {
	return call[api.ContactsPage](ctx, r, api.AuthContacts, req)
}

// AuthResolve gives names their registered form.
func (r *RPC) AuthResolve(ctx context.Context, req api.ResolveRequest) (api.ResolveResponse, error) {
	return call[api.ResolveResponse](ctx, r, api.AuthResolve, req)
}

// AuthRelations is what decides with whom a user may talk.
func (r *RPC) AuthRelations(ctx context.Context, req api.RelationsRequest) (api.Relations, error) {
	return call[api.Relations](ctx, r, api.AuthRelations, req)
}

// AuthDirectory is all names, while they are few, and who has changed.
func (r *RPC) AuthDirectory(ctx context.Context, req api.DirectoryRequest) (api.DirectoryResponse, error) {
	return call[api.DirectoryResponse](ctx, r, api.AuthDirectory, req)
}

// AuthPutContact asks for, or agrees to, a contact.
func (r *RPC) AuthPutContact(ctx context.Context, req api.PairRequest) (api.PairResponse, error) {
	return call[api.PairResponse](ctx, r, api.AuthPutContact, req)
}

// AuthDeleteContact ends a contact, or a request for one.
func (r *RPC) AuthDeleteContact(ctx context.Context, req api.PairRequest) error {
	return tell(ctx, r, api.AuthDeleteContact, req)
}

// AuthPutBlock blocks a user.
func (r *RPC) AuthPutBlock(ctx context.Context, req api.PairRequest) error {
	return tell(ctx, r, api.AuthPutBlock, req)
}

// AuthDeleteBlock takes a block back.
func (r *RPC) AuthDeleteBlock(ctx context.Context, req api.PairRequest) error {
	return tell(ctx, r, api.AuthDeleteBlock, req)
}

// HistoryCatchUp is what sessions missed.
func (r *RPC) HistoryCatchUp(ctx context.Context, req api.CatchUpRequest) (api.CatchUpResponse, error) {
	return call[api.CatchUpResponse](ctx, r, api.HistoryCatchUp, req)
}

// HistoryPage is a page of a room.
func (r *RPC) HistoryPage(ctx context.Context, req api.PageRequest) (api.PageResponse, error) {
	return call[api.PageResponse](ctx, r, api.HistoryPage, req)
}

// HistoryConversations is a page of a user's conversations.
func (r *RPC) HistoryConversations(ctx context.Context, req api.ConversationsRequest) (api.ConversationsPage, error) {
	return call[api.ConversationsPage](ctx, r, api.HistoryConversations, req)
}

// HistoryFind looks for a message by its sender and id.
func (r *RPC) HistoryFind(ctx context.Context, req api.FindRequest) (api.FindResponse, error) {
	return call[api.FindResponse](ctx, r, api.HistoryFind, req)
}

// HistoryRows names the messages in a stretch of a partition.
func (r *RPC) HistoryRows(ctx context.Context, req api.RowsRequest) (api.RowsResponse, error) {
	return call[api.RowsResponse](ctx, r, api.HistoryRows, req)
}

// HistoryMessages is messages by seq.
func (r *RPC) HistoryMessages(ctx context.Context, req api.MessagesRequest) (api.MessagesResponse, error) {
	return call[api.MessagesResponse](ctx, r, api.HistoryMessages, req)
}

// HistoryConfirm moves delivered cursors.
func (r *RPC) HistoryConfirm(ctx context.Context, req api.ConfirmRequest) error {
	return tell(ctx, r, api.HistoryConfirm, req)
}

// HistoryMarks is the delivered and read marks that moved lately, or those of some rooms.
func (r *RPC) HistoryMarks(ctx context.Context, req api.MarksRequest) (api.MarksResponse, error) {
	return call[api.MarksResponse](ctx, r, api.HistoryMarks, req)
}

// HistoryRead moves a read marker.
func (r *RPC) HistoryRead(ctx context.Context, req api.ReadRequest) (api.ReadResponse, error) {
	return call[api.ReadResponse](ctx, r, api.HistoryRead, req)
}

// PresenceSessions tells of sessions that came or went.
func (r *RPC) PresenceSessions(ctx context.Context, req api.SessionsRequest) error {
	return tell(ctx, r, api.PresenceSessions, req)
}

// PresenceHeartbeat renews this gateway's leases.
func (r *RPC) PresenceHeartbeat(ctx context.Context, req api.HeartbeatRequest) (api.HeartbeatResponse, error) {
	return call[api.HeartbeatResponse](ctx, r, api.PresenceHeartbeat, req)
}

// PresenceSnapshot is who is online in a shard.
func (r *RPC) PresenceSnapshot(ctx context.Context, req api.SnapshotRequest) (api.SnapshotResponse, error) {
	return call[api.SnapshotResponse](ctx, r, api.PresenceSnapshot, req)
}

// PresenceResync replaces what the service knows of this gateway in a shard.
func (r *RPC) PresenceResync(ctx context.Context, req api.ResyncRequest) error {
	return tell(ctx, r, api.PresenceResync, req)
}

// PresenceLastSeen is when users were last online.
func (r *RPC) PresenceLastSeen(ctx context.Context, req api.LastSeenRequest) (api.LastSeenResponse, error) {
	return call[api.LastSeenResponse](ctx, r, api.PresenceLastSeen, req)
}
