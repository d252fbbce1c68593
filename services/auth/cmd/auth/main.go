// Command auth runs the auth service: users, logins, contacts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/obs"
	"parley.example/services/auth"
)

func main() { lifecycle.Exit("auth", run(os.Args[1:])) }

func run(args []string) error {
	var cfg auth.Config
	switch err := config.Load(&cfg, args, os.LookupEnv); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Println("auth: users, logins and contacts. Settings (flag, variable, default):")
		return config.Reference(os.Stdout, &cfg)
	case err != nil:
		return err
	}
	ctx, stop := lifecycle.Signals()
	defer stop()
	log := cfg.Obs.Logger("auth")
	s, err := auth.New(cfg, auth.Deps{Log: log, Registry: obs.NewRegistry()})
	if err != nil {
		return err
	}
	log.Info("auth starts", "admin", s.AdminAddr())
	return s.Run(ctx)
}
