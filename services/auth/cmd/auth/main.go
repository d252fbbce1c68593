// Command auth runs the auth service: users, logins, contacts.
package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/obs"
	"parley.example/pkg/service"
	"parley.example/services/auth"
)

func main() {
	service.Main("auth", "users, logins and contacts, in SQL", func(c auth.Config) obs.Config { return c.Obs },
		func(cfg auth.Config, log *slog.Logger, reg *prometheus.Registry) (service.Service, error) {
			return auth.New(cfg, auth.Deps{Log: log, Registry: reg})
		})
}
