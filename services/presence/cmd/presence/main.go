// Command presence runs the presence service.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9/logging"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/services/presence"
)

func main() { lifecycle.Exit("presence", run()) }

func run() error {
	var cfg presence.Config
	err := config.Load(&cfg, os.Args[1:], os.LookupEnv)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("presence keeps track of who is online, in Redis. Settings (flag, environment, default):")
		return config.Reference(os.Stdout, &cfg)
	}
	if err != nil {
		return err
	}
	logging.Disable() // go-redis' own lines about failed connections; the service reports failures itself
	ctx, stop := lifecycle.Signals()
	defer stop()
	log := cfg.Obs.Logger("presence")
	svc, err := presence.New(cfg, presence.Deps{Log: log, Registry: obs.NewRegistry()})
	if err != nil {
		return err
	}
	log.Info("presence starts", "admin", svc.AdminAddr())
	return svc.Run(ctx)
}
