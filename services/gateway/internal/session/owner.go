package session

import (
	"context"

	"parley.example/pkg/api"
	"parley.example/services/gateway/internal/router"
)

// owner is a session as its inbox and its scope see it.
type owner Session

func (o *owner) User() string { return o.user }

func (o *owner) Context() context.Context { return o.ctx }

func (o *owner) Send(event string, data any, re string) { o.out.send(event, data, re) }

func (o *owner) Hand(d *router.Delivery, read bool) {
	o.out.message(d)
	o.hub.m.delivered.Inc()
	w := written{room: d.Room, p: d.P, seq: d.Message.Seq}
	if d.Message.Sender != o.user {
		w.peerSeq = w.seq
	}
	o.receipts.wrote(w, read)
}

func (o *owner) Sent(m *api.StoredMessage) bool { return m.Sender == o.user && o.sends.answered(m) }

func (o *owner) CatchUp(runs bool) {
	o.sends.catchUp(runs)
	o.receipts.catchUp(runs)
}

func (o *owner) Peers() []string { return o.in.Peers() }

func (o *owner) Wait(ctx context.Context) error { return o.out.wire.Wait(ctx) }
