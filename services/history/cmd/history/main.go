// Command history runs the history service: messages in SQL, what users have missed, read markers.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/services/history"
)

func main() { lifecycle.Exit("history", run(os.Args[1:])) }

func run(args []string) error {
	var cfg history.Config
	switch err := config.Load(&cfg, args, os.LookupEnv); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Println("history: messages in SQL. Settings (flag, variable, default):")
		return config.Reference(os.Stdout, &cfg)
	case err != nil:
		return err
	}
	ctx, stop := lifecycle.Signals()
	defer stop()
	log := cfg.Obs.Logger("history")
	s, err := history.New(cfg, history.Deps{Log: log, Registry: obs.NewRegistry()})
	if err != nil {
		return err
	}
	log.Info("history starts", "admin", s.AdminAddr())
	return s.Run(ctx)
}
