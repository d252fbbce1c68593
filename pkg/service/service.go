// Package service runs a service as a program of its own.
package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
)

// Service is what a program runs.
type Service interface {
	Run(context.Context) error // until the context ends
	AdminAddr() string         // of its private port
}

// public is a service with a public port as well.
type public interface{ Addr() string }

// Main is the whole of a service's program: settings, --help, logs, signals and the exit status. about ends the sentence "name: …" of its help;
// logs is where its settings say how to log; start makes the service.
func Main[Config any](name, about string, logs func(Config) obs.Config, start func(Config, *slog.Logger, *prometheus.Registry) (Service, error)) {
	lifecycle.Exit(name, run(name, about, logs, start))
}

func run[Config any](name, about string, logs func(Config) obs.Config, start func(Config, *slog.Logger, *prometheus.Registry) (Service, error)) error {
	var cfg Config
	switch err := config.Load(&cfg, os.Args[1:], os.LookupEnv); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Printf("%s: %s. Settings (flag, variable, default):\n", name, about)
		return config.Reference(os.Stdout, &cfg)
	case err != nil:
		return err
	}
	ctx, stop := lifecycle.Signals()
	defer stop()
	log := logs(cfg).Logger(name)
	s, err := start(cfg, log, obs.NewRegistry())
	if err != nil {
		return err
	}
	addresses := []any{"admin", s.AdminAddr()}
	if p, ok := s.(public); ok {
		addresses = append(addresses, "http", p.Addr())
	}
	log.Info(name+" starts", addresses...)
	return s.Run(ctx)
}
