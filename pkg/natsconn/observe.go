package natsconn

import (
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Observe registers metrics of a connection that Connect made: whether it is there, how often it came back, and what the client or the server
// complained of since.
func Observe(nc *nats.Conn, service string, reg prometheus.Registerer) {
	labels := prometheus.Labels{"service": service} // all of them share the page of an all-in-one
	complaints := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_nats_errors_total", ConstLabels: labels,
		Help: "Complaints about the connection to NATS. slow_consumer: messages were dropped because this process did not take them; refused: NATS does not allow what it did."},
		[]string{"kind"})
	for _, kind := range []string{"slow_consumer", "refused", "other"} {
		complaints.WithLabelValues(kind) // counters start at zero
	}
	reg.MustRegister(complaints,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_nats_connected", ConstLabels: labels, Help: "1 while NATS is connected."}, func() float64 {
			if nc.IsConnected() {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_nats_reconnects_total", ConstLabels: labels, Help: "Times that the connection to NATS came back."}, func() float64 {
			return float64(nc.Stats().Reconnects)
		}))
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		kind := "other"
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			kind = "slow_consumer"
		case errors.Is(err, nats.ErrPermissionViolation):
			kind = "refused"
		}
		complaints.WithLabelValues(kind).Inc()
		if next != nil {
			next(nc, sub, err)
		}
	})
}
