// Command presence runs the presence service: who is online, in Redis.
package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9/logging"

	"parley.example/pkg/obs"
	"parley.example/pkg/service"
	"parley.example/services/presence"
)

func main() {
	service.Main("presence", "who is online, in Redis", func(c presence.Config) obs.Config { return c.Obs },
		func(cfg presence.Config, log *slog.Logger, reg *prometheus.Registry) (service.Service, error) {
			logging.Disable() // go-redis' own lines about failed connections; the service reports failures itself
			return presence.New(cfg, presence.Deps{Log: log, Registry: reg})
		})
}
