package bus

import (
	"context"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
)

// RPC asks the services, one method a request of pkg/api. Every failure is a *wire.Error (see rpc.Endpoint): the service's own answer, or
// unavailable when none comes in time. It is safe for concurrent use.
type RPC struct{ to rpc.Caller }

// RPC makes requests that wait for timeout at most (those with a password longer), less when their context ends before.
func (b *Bus) RPC(timeout time.Duration) *RPC {
	return &RPC{rpc.Caller{Conn: b.nc, Timeout: timeout}}
}

// AuthRegister makes a user.
func (r *RPC) AuthRegister(ctx context.Context, req api.Credentials) (api.User, error) {
	return api.AuthRegister.Call(ctx, r.to, req)
}

// AuthLogin begins a login.
func (r *RPC) AuthLogin(ctx context.Context, req api.Credentials) (api.Tokens, error) {
	return api.AuthLogin.Call(ctx, r.to, req)
}

// AuthRefresh trades a refresh token for new tokens.
func (r *RPC) AuthRefresh(ctx context.Context, req api.RefreshRequest) (api.Tokens, error) {
	return api.AuthRefresh.Call(ctx, r.to, req)
}

// AuthUsed tells of the first use of access tokens.
func (r *RPC) AuthUsed(ctx context.Context, req api.UsedRequest) error {
	_, err := api.AuthUsed.Call(ctx, r.to, req)
	return err
}

// AuthLogout ends a login.
func (r *RPC) AuthLogout(ctx context.Context, req api.LogoutRequest) error {
	_, err := api.AuthLogout.Call(ctx, r.to, req)
	return err
}

// AuthCheck checks a password without beginning a login.
func (r *RPC) AuthCheck(ctx context.Context, req api.Credentials) (api.CheckResponse, error) {
	return api.AuthCheck.Call(ctx, r.to, req)
}

// AuthEndLogins ends all logins of a user.
func (r *RPC) AuthEndLogins(ctx context.Context, req api.EndLoginsRequest) (api.EndLoginsResponse, error) {
	return api.AuthEndLogins.Call(ctx, r.to, req)
}

// AuthContacts is a page of a user's contacts.
func (r *RPC) AuthContacts(ctx context.Context, req api.ContactsRequest) (api.ContactsPage, error) {
	return api.AuthContacts.Call(ctx, r.to, req)
}

// AuthResolve gives names their registered form.
func (r *RPC) AuthResolve(ctx context.Context, req api.ResolveRequest) (api.ResolveResponse, error) {
	return api.AuthResolve.Call(ctx, r.to, req)
}

// AuthRelations is what decides with whom a user may talk.
func (r *RPC) AuthRelations(ctx context.Context, req api.RelationsRequest) (api.Relations, error) {
	return api.AuthRelations.Call(ctx, r.to, req)
}

// AuthDirectory is all names, while they are few, and who has changed.
func (r *RPC) AuthDirectory(ctx context.Context, req api.DirectoryRequest) (api.DirectoryResponse, error) {
	return api.AuthDirectory.Call(ctx, r.to, req)
}

// AuthPutContact asks for, or agrees to, a contact.
func (r *RPC) AuthPutContact(ctx context.Context, req api.PairRequest) (api.PairResponse, error) {
	return api.AuthPutContact.Call(ctx, r.to, req)
}

// AuthDeleteContact ends a contact, or a request for one.
func (r *RPC) AuthDeleteContact(ctx context.Context, req api.PairRequest) error {
	_, err := api.AuthDeleteContact.Call(ctx, r.to, req)
	return err
}

// AuthPutBlock blocks a user.
func (r *RPC) AuthPutBlock(ctx context.Context, req api.PairRequest) error {
	_, err := api.AuthPutBlock.Call(ctx, r.to, req)
	return err
}

// AuthDeleteBlock takes a block back.
func (r *RPC) AuthDeleteBlock(ctx context.Context, req api.PairRequest) error {
	_, err := api.AuthDeleteBlock.Call(ctx, r.to, req)
	return err
}

// HistoryCatchUp is what sessions missed.
func (r *RPC) HistoryCatchUp(ctx context.Context, req api.CatchUpRequest) (api.CatchUpResponse, error) {
	return api.HistoryCatchUp.Call(ctx, r.to, req)
}

// HistoryPage is a page of a room.
func (r *RPC) HistoryPage(ctx context.Context, req api.PageRequest) (api.PageResponse, error) {
	return api.HistoryPage.Call(ctx, r.to, req)
}

// HistoryConversations is a page of a user's conversations.
func (r *RPC) HistoryConversations(ctx context.Context, req api.ConversationsRequest) (api.ConversationsPage, error) {
	return api.HistoryConversations.Call(ctx, r.to, req)
}

// HistoryFind looks for a message by its sender and id.
func (r *RPC) HistoryFind(ctx context.Context, req api.FindRequest) (api.FindResponse, error) {
	return api.HistoryFind.Call(ctx, r.to, req)
}

// HistoryRows names the messages in a stretch of a partition.
func (r *RPC) HistoryRows(ctx context.Context, req api.RowsRequest) (api.RowsResponse, error) {
	return api.HistoryRows.Call(ctx, r.to, req)
}

// HistoryMessages is messages by seq.
func (r *RPC) HistoryMessages(ctx context.Context, req api.MessagesRequest) (api.MessagesResponse, error) {
	return api.HistoryMessages.Call(ctx, r.to, req)
}

// HistoryConfirm moves delivered cursors.
func (r *RPC) HistoryConfirm(ctx context.Context, req api.ConfirmRequest) error {
	_, err := api.HistoryConfirm.Call(ctx, r.to, req)
	return err
}

// HistoryMarks is the delivered and read marks that moved lately, or those of some rooms.
func (r *RPC) HistoryMarks(ctx context.Context, req api.MarksRequest) (api.MarksResponse, error) {
	return api.HistoryMarks.Call(ctx, r.to, req)
}

// HistoryRead moves a read marker.
func (r *RPC) HistoryRead(ctx context.Context, req api.ReadRequest) (api.ReadResponse, error) {
	return api.HistoryRead.Call(ctx, r.to, req)
}

// PresenceSessions tells of sessions that came or went.
func (r *RPC) PresenceSessions(ctx context.Context, req api.SessionsRequest) error {
	_, err := api.PresenceSessions.Call(ctx, r.to, req)
	return err
}

// PresenceHeartbeat renews this gateway's leases.
func (r *RPC) PresenceHeartbeat(ctx context.Context, req api.HeartbeatRequest) (api.HeartbeatResponse, error) {
	return api.PresenceHeartbeat.Call(ctx, r.to, req)
}

// PresenceSnapshot is who is online in a shard.
func (r *RPC) PresenceSnapshot(ctx context.Context, req api.SnapshotRequest) (api.SnapshotResponse, error) {
	return api.PresenceSnapshot.Call(ctx, r.to, req)
}

// PresenceResync replaces what the service knows of this gateway in a shard.
func (r *RPC) PresenceResync(ctx context.Context, req api.ResyncRequest) error {
	_, err := api.PresenceResync.Call(ctx, r.to, req)
	return err
}

// PresenceLastSeen is when users were last online.
func (r *RPC) PresenceLastSeen(ctx context.Context, req api.LastSeenRequest) (api.LastSeenResponse, error) {
	return api.PresenceLastSeen.Call(ctx, r.to, req)
}
