// Command gateway is Parley's public door: HTTP and WebSocket for clients, NATS behind it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/services/gateway"
)

func main() { lifecycle.Exit("gateway", run()) }

func run() error {
	var cfg gateway.Config
	if err := config.Load(&cfg, os.Args[1:], os.LookupEnv); errors.Is(err, flag.ErrHelp) {
		fmt.Println("gateway serves clients over HTTP and WebSocket. Settings (flag, variable, default):")
		return config.Reference(os.Stdout, &cfg)
	} else if err != nil {
		return err
	}
	ctx, stop := lifecycle.Signals()
	defer stop()
	log := cfg.Obs.Logger("gateway")
	s, err := gateway.New(cfg, gateway.Deps{Log: log, Registry: obs.NewRegistry()})
	if err != nil {
		return err
	}
	log.Info("listening", "http", s.Addr(), "admin", s.AdminAddr())
	return s.Run(ctx)
}
