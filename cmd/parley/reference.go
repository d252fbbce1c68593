package main

import (
	"fmt"
	"io"

	"parley.example/cmd/parley/internal/admin"
	"parley.example/cmd/parley/internal/allinone"
	"parley.example/cmd/parley/internal/chat"
	"parley.example/cmd/parley/internal/health"
	"parley.example/pkg/config"
	"parley.example/services/auth"
	"parley.example/services/gateway"
	"parley.example/services/history"
	"parley.example/services/presence"
)

// programs are all that have settings.
var programs = []struct {
	name string
	cfg  any
}{
	{"serve", &allinone.Config{}}, {"gateway", &gateway.Config{}}, {"auth", &auth.Config{}},
	{"presence", &presence.Config{}}, {"history", &history.Config{}}, {"chat", &chat.Config{}}, {"user", &admin.Config{}},
	{"health", &health.Config{}},
}

// reference prints the settings of one program, or of all.
func reference(w io.Writer, names []string) error {
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	for _, p := range programs {
		if len(names) > 0 && !want[p.name] {
			continue
		}
		delete(want, p.name)
		fmt.Fprintf(w, "%s (flag, environment variable, default, meaning)\n", p.name)
		if err := config.Reference(w, p.cfg); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for n := range want {
		return fmt.Errorf("there is no program %q with settings: serve, gateway, auth, presence, history, chat, user, health", n)
	}
	return nil
}
