package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"parley.example/client/wire"
	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/obs"
	"parley.example/pkg/sqldb"
	"parley.example/services/auth"
	"parley.example/services/history"
)

// Config of the command.
type Config struct {
	Data string `cfg:"data" default:"data" help:"data folder of a parley serve, running or not"`

	SQLURL string `cfg:"sql-url" help:"SQL of a deployment, as auth and history have it; with it, --data does not count"`
	NATS   natsconn.Config

	Out      string        `cfg:"out" help:"file that export writes, - for standard output (default NAME.zip)"`
	Yes      bool          `cfg:"yes" help:"erase without asking"`
	JSON     bool          `cfg:"json" help:"list as one JSON object a line"`
	Patience time.Duration `cfg:"patience" default:"1m" help:"how long it may all take, but for export and erase of long conversations"`
}

// Validate returns all mistakes.
func (c *Config) Validate() error {
	if c.Patience <= 0 {
		return errors.New("patience: must be above 0")
	}
	return nil
}

const help = `parley user is the administration of users.

  parley user add NAME       registers a user
  parley user passwd NAME    gives another password, and ends all logins
  parley user disable NAME   locks a user out, at once and everywhere
  parley user enable NAME    lets a disabled user in again
  parley user list           lists users
  parley user export NAME    writes all of one person's data into a zip of JSON
  parley user erase NAME     erases a person for good: logins, contacts, and the text of everything they sent, in SQL and in NATS.
                             Their messages stay as empty places in the conversations of others; the name is never given again.

add and passwd ask for the password on the terminal, or read one line of standard input.

Without --sql-url they work on the data folder of a parley serve: the running server is asked over a socket in that folder,
and if none runs, the folder is opened for a moment. With --sql-url and --nats-url they work on a deployment, beside its services.

Exit status: 0 done, 1 failed, 2 wrong command line, 3 no such user, 4 refused (name taken, password too short, not confirmed),
5 something cannot be reached; what failed may be repeated.

Settings (flag, environment variable, default, meaning):
`

// Open gives the users of a data folder and what ends that.
type Open func(ctx context.Context, data string, env func(string) (string, bool)) (Users, func() error, error)

// Terminal is where the command reads and writes.
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main is the command.
func Main(ctx context.Context, args []string, env func(string) (string, bool), t Terminal, open Open) error {
	var cfg Config
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || args[0] == "help" {
		if len(args) > 0 && args[0] != "-h" && args[0] != "--help" && args[0] != "help" {
			return usage(fmt.Errorf("what is to be done comes first: parley user add|passwd|disable|enable|list|export|erase; parley user --help says more"))
		}
		return printHelp(t.Out, &cfg)
	}
	verb, rest := args[0], args[1:]
	run, ok := verbs[verb]
	if !ok {
		return usage(fmt.Errorf("parley user has no %q: add, passwd, disable, enable, list, export, erase; parley user --help says more", verb))
	}
	name := ""
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		name, rest = rest[0], rest[1:]
	}
	switch err := config.Load(&cfg, rest, env); {
	case errors.Is(err, flag.ErrHelp):
		return printHelp(t.Out, &cfg)
	case err != nil:
		return usage(err)
	case (name == "") != (verb == "list"):
		return usage(fmt.Errorf("parley user %s takes %s", verb, map[bool]string{true: "no name", false: "a NAME"}[verb == "list"]))
	}
	// What a person types takes its time, so it comes before the clock starts.
	c := &command{cfg: cfg, name: name, t: t}
	if err := run.ask(c); err != nil {
		return err
	}
	start, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	users, stop, err := c.open(start, env, open)
	if err != nil {
		return status(err)
	}
	if !run.long {
		ctx = start
	}
	return status(errors.Join(run.do(c, ctx, users), stop()))
}

func printHelp(w io.Writer, cfg *Config) error {
	if _, err := io.WriteString(w, help); err != nil {
		return err
	}
	return config.Reference(w, cfg)
}

func usage(err error) error { return &lifecycle.StatusError{Status: lifecycle.StatusUsage, Err: err} }

// status gives an error the exit status that help promises.
func status(err error) error {
	var se *lifecycle.StatusError
	var we *wire.Error
	switch {
	case err == nil, errors.As(err, &se):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return &lifecycle.StatusError{Status: lifecycle.StatusAway, Err: err}
	case errors.As(err, &we):
		s := lifecycle.StatusFailed
		switch we.Code {
		case wire.UnknownUser:
			s = lifecycle.StatusUnknown
		case wire.UsernameTaken, wire.InvalidUsername, wire.InvalidArgument, wire.Forbidden:
			s = lifecycle.StatusRefused
		case wire.Unavailable, wire.RateLimited:
			s = lifecycle.StatusAway
		}
		return &lifecycle.StatusError{Status: s, Err: err}
	}
	return err
}

// command is one run of it.
type command struct {
	cfg      Config
	name     string
	password string
	t        Terminal
}

// open finds the users to work on.
func (c *command) open(ctx context.Context, env func(string) (string, bool), open Open) (Users, func() error, error) {
	if c.cfg.SQLURL == "" {
		if _, err := os.Stat(c.cfg.Data); err != nil {
			return nil, nil, usage(fmt.Errorf("there is no data folder %s: --data names that of a parley serve, --sql-url and --nats-url a deployment", c.cfg.Data))
		}
		return open(ctx, c.cfg.Data, env)
	}
	log := obs.Config{LogLevel: "error", LogFormat: "text"}.Logger("user")
	nc, err := natsconn.Connect(c.cfg.NATS, "user", log)
	if err != nil {
		return nil, nil, err
	}
	sql := sqldb.Config{URL: c.cfg.SQLURL, Conns: 4}
	a, err := auth.OpenAdmin(sql, nc, log)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	h, err := history.OpenAdmin(sql, nc, log)
	if err != nil {
		nc.Close()
		return nil, nil, errors.Join(err, a.Close())
	}
	return &Local{a, h}, func() error {
		if nc.IsConnected() {
			_ = nc.FlushTimeout(2 * time.Second) // events to the gateways, which are hints
		}
		nc.Close()
		return errors.Join(a.Close(), h.Close())
	}, nil
}

// verb is one of the commands. ask is what it wants to know of the person in front of it; long ones have no deadline once they have begun.
type verb struct {
	ask  func(*command) error
	do   func(*command, context.Context, Users) error
	long bool
}

var verbs = map[string]verb{
	"add":     {(*command).askPassword, (*command).add, false},
	"passwd":  {(*command).askPassword, (*command).passwd, false},
	"disable": {nothing, (*command).disable, false},
	"enable":  {nothing, (*command).enable, false},
	"list":    {nothing, (*command).list, true},
	"export":  {nothing, (*command).export, true},
	"erase":   {(*command).askErase, (*command).erase, true},
}

func nothing(*command) error { return nil }

func (c *command) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.t.Out, format+"\n", args...) // the status says it too
}

func (c *command) add(ctx context.Context, u Users) error {
	name, err := u.Add(ctx, c.name, c.password)
	if err == nil {
		c.say("added %s", name)
	}
	return err
}

func (c *command) passwd(ctx context.Context, u Users) error {
	n, err := u.SetPassword(ctx, c.name, c.password)
	if err == nil {
		c.say("the password of %s was changed; logins that ended: %d", c.name, n)
	}
	return err
}

func (c *command) disable(ctx context.Context, u Users) error {
	if err := u.SetDisabled(ctx, c.name, true); err != nil {
		return err
	}
	c.say("disabled %s", c.name)
	return nil
}

func (c *command) enable(ctx context.Context, u Users) error {
	if err := u.SetDisabled(ctx, c.name, false); err != nil {
		return err
	}
	c.say("enabled %s", c.name)
	return nil
}

func (c *command) list(ctx context.Context, u Users) error {
	tw := tabwriter.NewWriter(c.t.Out, 0, 0, 2, ' ', 0)
	enc := json.NewEncoder(c.t.Out)
	for after := ""; ; {
		page, err := u.List(ctx, after)
		if err != nil {
			return err
		}
		for _, a := range page.Users {
			if c.cfg.JSON {
				if err := enc.Encode(a); err != nil {
					return fmt.Errorf("write the list: %w", err)
				}
				continue
			}
			var notes []string
			if a.Admin {
				notes = append(notes, "admin")
			}
			if a.Disabled != nil {
				notes = append(notes, "disabled since "+a.Disabled.Local().Format(time.DateTime))
			}
			fmt.Fprintf(tw, "%s\tsince %s\t%s\n", a.Username, a.Created.Local().Format(time.DateOnly), strings.Join(notes, ", "))
		}
		if after = page.Next; after == "" {
			return tw.Flush()
		}
	}
}

// export writes into a file beside the wanted one, which appears when it is complete.
func (c *command) export(ctx context.Context, u Users) error {
	if c.cfg.Out == "-" {
		return u.Export(ctx, c.name, c.t.Out)
	}
	path := c.cfg.Out
	if path == "" {
		path = c.name + ".zip"
		if filepath.Base(path) != path {
			return usage(fmt.Errorf("%q is no file name; --out names one", path))
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".parley-export-*") // for its owner only
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone when all went well
	if err := errors.Join(u.Export(ctx, c.name, f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	c.say("wrote %s", path)
	return nil
}

func (c *command) erase(ctx context.Context, u Users) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.cfg.Patience, time.Hour))
	defer cancel()
	n, err := u.Erase(ctx, c.name)
	if err == nil {
		c.say("erased %s; messages that were emptied: %d", c.name, n)
	}
	return err
}

// askErase wants the name again: there is no way back.
func (c *command) askErase() error {
	if c.cfg.Yes {
		return nil
	}
	f, ok := c.t.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usage(errors.New("erase asks before it begins, and standard input is no terminal: --yes erases without asking"))
	}
	fmt.Fprintf(c.t.Err, "This erases %s for good: logins, contacts, and the text of all messages they sent. Type the name again: ", c.name)
	line, err := readLine(f)
	if err != nil || line != c.name {
		return &lifecycle.StatusError{Status: lifecycle.StatusRefused, Err: errors.New("not confirmed; nothing was erased")}
	}
	return nil
}

// askPassword never takes it from an argument: others on the machine can see those.
func (c *command) askPassword() error {
	f, ok := c.t.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := readLine(c.t.In)
		if err != nil || line == "" {
			return usage(errors.New("standard input has no line with a password"))
		}
		c.password = line
		return nil
	}
	var typed [2]string
	for i, prompt := range []string{"Password of " + c.name + ": ", "Again: "} {
		fmt.Fprint(c.t.Err, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.t.Err)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(b)
	}
	if typed[0] != typed[1] {
		return &lifecycle.StatusError{Status: lifecycle.StatusRefused, Err: errors.New("the two are not the same")}
	}
	c.password = typed[0]
	return nil
}

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 64<<10)).ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}
