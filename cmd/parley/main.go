// Command parley is everything in one program: the server in one process, a terminal chat, the reference of settings.
package main

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"parley.example/cmd/parley/internal/admin"
	"parley.example/cmd/parley/internal/allinone"
	"parley.example/cmd/parley/internal/chat"
	"parley.example/cmd/parley/internal/health"
	"parley.example/pkg/lifecycle"
)

const usage = `parley is a one-to-one chat server.

  parley serve             run everything in one process
  parley chat              chat in this terminal
  parley user              add, change, export and erase users
  parley health [URL]      ask a running process whether it can do its work
  parley config [SERVICE]  all settings of serve, gateway, auth, presence, history, chat, user and health
  parley version           what this program was built from

Each takes --help.
`

func main() {
	// What this process makes is for its user: the data folder, the socket of the administration, exports.
	syscall.Umask(0o077)
	lifecycle.Exit("parley", run(os.Args[1:]))
}

func run(args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	ctx, stop := lifecycle.Signals()
	defer stop()
	switch args[0] {
	case "serve":
		return allinone.Main(ctx, args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	case "chat":
		return chat.Main(ctx, args[1:], os.LookupEnv, os.Stdin, os.Stdout)
	case "user":
		return admin.Main(ctx, args[1:], os.LookupEnv, admin.Terminal{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, allinone.Administer)
	case "health":
		return health.Main(ctx, args[1:], os.LookupEnv, os.Stdout)
	case "config":
		return reference(os.Stdout, args[1:])
	case "version", "--version":
		return version(os.Stdout)
	case "help", "-h", "--help":
		_, err := io.WriteString(os.Stdout, usage)
		return err
	}
	return fmt.Errorf("there is no command %q; parley help lists them", args[0])
}
