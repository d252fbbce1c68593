// Command gateway is Parley's public door: HTTP and WebSocket for clients, NATS behind it.
package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/obs"
	"parley.example/pkg/service"
	"parley.example/services/gateway"
)

func main() {
	service.Main("gateway", "HTTP and WebSocket for clients", func(c gateway.Config) obs.Config { return c.Obs },
		func(cfg gateway.Config, log *slog.Logger, reg *prometheus.Registry) (service.Service, error) {
			return gateway.New(cfg, gateway.Deps{Log: log, Registry: reg})
		})
}
