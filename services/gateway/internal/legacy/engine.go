package legacy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/services/gateway/internal/bus"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/wsconn"
)

// maxPollBody bounds the body of one POST: python-socketio puts everything that waits into one, whatever it was told. In a request to another gateway it
// is base64, and has to stay below the 1 MiB of a NATS message.
const maxPollBody = 720 << 10

// Engine makes the server of the connections. A poll whose connection another gateway holds is passed on to that one, by its name; node is this one's.
func (l *Legacy) Engine(b *bus.Bus, node string, budget *wsconn.Budget, origin func(*http.Request) bool, reg prometheus.Registerer) *engineio.Server {
	e := engineio.New(engineio.Config{
		PingInterval: l.cfg.PingInterval, PingTimeout: l.cfg.PingTimeout, MaxPayload: l.hub.FrameBytes, MaxBody: maxPollBody,
		FramesPerSecond: l.hub.FramesPerSecond, FrameBurst: Burst(l.hub.FrameBurst()), Budget: budget, Origin: origin, Node: node,
		Forward: func(ctx context.Context, node string, req engineio.Request) (engineio.Response, error) {
			// A poll is answered at the latest when a heartbeat is due.
			resp, err := bus.AskNode[engineio.Response](ctx, b, node, l.cfg.PingInterval+l.cfg.PingTimeout+5*time.Second, req)
			if errors.Is(err, bus.ErrNoNode) {
				err = engineio.ErrNoNode
			}
			return resp, err
		},
	}, l.Accept)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_gateway_socketio_connections", Help: "Connections of the Socket.IO protocol, on any transport.",
	}, func() float64 { return float64(e.Len()) }))
	return e
}
