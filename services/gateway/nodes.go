package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/pkg/api"
	"parley/pkg/subject"
	"parley/services/gateway/internal/bus"
	"parley/services/gateway/internal/engineio"
)

// What gateways say to each other is about the old clients only: a poll that reached another gateway than the one that holds its session,
// and contacts lists that were served.

// forward is engineio.Config.Forward.
func (s *Service) forward(ctx context.Context, node string, req engineio.Request) (engineio.Response, error) {
	// A poll is answered at the latest when a heartbeat is due.
	patience := s.cfg.Seed.PingInterval + s.cfg.Seed.PingTimeout + 5*time.Second
	resp, err := bus.AskNode[engineio.Response](ctx, s.bus, node, patience, req)
	if errors.Is(err, bus.ErrNoNode) {
		return resp, engineio.ErrNoNode
	}
	return resp, err
}

// serveNode answers other gateways and listens to them.
func (s *Service) serveNode() (stop func(), err error) {
	stopAnswers, err := bus.ServeNode(s.bus, s.node, s.engine.Exchange)
	if err != nil {
		return nil, err
	}
	unsubscribe, err := s.bus.Subscribe(subject.ServedEvents, func(body []byte) {
		var v api.Served
		if json.Unmarshal(body, &v) == nil {
			s.seed.Served(v.User, v.Online)
		}
	})
	if err != nil {
		stopAnswers()
		return nil, err
	}
	return func() { unsubscribe(); stopAnswers() }, nil
}

// served tells all gateways, this one included, that a contacts list was served: its client's connection may be at any of them.
func (s *Service) served(user string, online []string) {
	body, err := json.Marshal(api.Served{User: user, Online: online})
	if err == nil {
		err = s.bus.Publish(subject.ServedEvents, body)
	}
	if err != nil {
		s.log.Debug("a contacts list was not told of; its client hears of everybody who is online", "error", err)
	}
}

func registerEngine(reg prometheus.Registerer, e *engineio.Server) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_gateway_socketio_connections", Help: "Connections of the Socket.IO protocol, on any transport.",
	}, func() float64 { return float64(e.Len()) }))
}
