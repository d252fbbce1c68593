// Command history runs the history service: messages in SQL, what users have missed, read marks.
package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/obs"
	"parley.example/pkg/service"
	"parley.example/services/history"
)

func main() {
	service.Main("history", "messages in SQL, what users have missed, read marks", func(c history.Config) obs.Config { return c.Obs },
		func(cfg history.Config, log *slog.Logger, reg *prometheus.Registry) (service.Service, error) {
			return history.New(cfg, history.Deps{Log: log, Registry: reg})
		})
}
