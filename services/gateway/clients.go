package gateway

import (
	"context"

	"parley.example/pkg/api"
	"parley.example/services/gateway/internal/bus"
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
