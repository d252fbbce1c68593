package gateway

import (
	"context"

	"parley/pkg/api"
	"parley/services/gateway/internal/bus"
)

// source is the bus as the router sees it.
type source struct {
	*bus.Deliveries
	rpc *bus.RPC
}

// Rows implements router.Source.
func (s source) Rows(ctx context.Context, req api.RowsRequest) (api.RowsResponse, error) {
	return s.rpc.HistoryRows(ctx, req)
}

// Messages implements router.Source.
func (s source) Messages(ctx context.Context, req api.MessagesRequest) (api.MessagesResponse, error) {
	return s.rpc.HistoryMessages(ctx, req)
}

// presenceClient is the bus as the presence mirror sees it.
type presenceClient struct{ rpc *bus.RPC }

// Sessions implements presence.Client.
func (c presenceClient) Sessions(ctx context.Context, req api.SessionsRequest) error {
	return c.rpc.PresenceSessions(ctx, req)
}

// Heartbeat implements presence.Client.
func (c presenceClient) Heartbeat(ctx context.Context, req api.HeartbeatRequest) (api.HeartbeatResponse, error) {
	return c.rpc.PresenceHeartbeat(ctx, req)
}

// Snapshot implements presence.Client.
func (c presenceClient) Snapshot(ctx context.Context, req api.SnapshotRequest) (api.SnapshotResponse, error) {
	return c.rpc.PresenceSnapshot(ctx, req)
}

// Resync implements presence.Client.
func (c presenceClient) Resync(ctx context.Context, req api.ResyncRequest) error {
	return c.rpc.PresenceResync(ctx, req)
}
