package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"parley.example/client/wire"
)

// local has handlers by their subject.
type local map[string]Handler

// Local is a Conn whose requests are answered in this process, for tests of who asks. Of two handlers of a subject the later one answers; what has none
// is a service that is away.
func Local(handlers ...Handler) Conn {
	l := local{}
	for _, h := range handlers {
		l[h.Subject] = h
	}
	return l
}

// RequestWithContext implements Conn.
func (l local) RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	h, ok := l[subject]
	if !ok {
		return nil, nats.ErrNoResponders
	}
	resp, err := h.Answer(ctx, data)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		var e *wire.Error
		if !errors.As(err, &e) { // as Serve does
			e = wire.AsError(err)
		}
		return errorMsg("", e), nil
	}
	body, err := json.Marshal(resp)
	if err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return &nats.Msg{Subject: subject, Data: body}, nil
}
