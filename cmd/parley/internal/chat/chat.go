// Package chat is `parley chat`: the full screen of package tui, a line-by-line chat for pipes and dumb terminals, and commands for scripts.
package chat

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/tui"
	"parley.example/pkg/config"
	"parley.example/pkg/lifecycle"
)

// Config of the command.
type Config struct {
	URL      string        `cfg:"url" default:"http://127.0.0.1:8080" help:"the server"`
	User     string        `cfg:"user" help:"who you are"`
	Password config.Secret `cfg:"password" help:"your password; others on this machine can see flags, so rather give it by the environment or as file:PATH, or type it"`
	With     string        `cfg:"with" help:"whom to chat with first"`
	Plain    bool          `cfg:"plain" help:"line by line instead of a full screen, as in a pipe or on a dumb terminal"`
	Lines    bool          `cfg:"lines" help:"send: each line is a message of its own"`
	JSON     bool          `cfg:"json" help:"tail: one JSON object a line"`
	Count    int           `cfg:"count" help:"tail: end after so many messages; 0: never"`
	Patience time.Duration `cfg:"patience" default:"30s" help:"how long something may take to be accepted by the server"`
}

// Validate returns all mistakes.
func (c *Config) Validate() error {
	var errs []error
	if c.Patience <= 0 {
		errs = append(errs, errors.New("patience: must be above 0"))
	}
	if c.Count < 0 {
		errs = append(errs, errors.New("count: must not be below 0"))
	}
	return errors.Join(errs...)
}

// complete says what is missing where nobody can be asked.
func (c *Config) complete() error {
	var errs []error
	if c.User == "" {
		errs = append(errs, errors.New("user: who are you?"))
	}
	if c.Password == "" {
		errs = append(errs, errors.New("password: give it by PARLEY_PASSWORD"))
	}
	return errors.Join(errs...)
}

const help = `parley chat is a chat in this terminal.

  parley chat                     full screen: contacts, conversations, history; ? shows the keys
  parley chat --with NAME         the same, with a conversation open
  parley chat send NAME           sends standard input as one message, or with --lines each line as one
  parley chat tail [NAME]         prints what others say, one message a line, until it is ended

Where standard input or output is no terminal, or with --plain, parley chat is line by line: /with NAME, /who, /quit; everything else is sent.

Exit status: 0 done, 1 failed, 2 wrong command line, 3 there is nobody of that name, 4 refused (wrong password, message too long),
5 the server cannot be reached, or did not accept in time: what was to be sent may be sent or not.

Settings (flag, environment variable, default, meaning):
`

const maxLine = 1 << 20 // bytes; the server refuses much shorter ones in a sentence of its own

// Main is the command.
func Main(ctx context.Context, args []string, env func(string) (string, bool), in io.Reader, out io.Writer) error {
	var cfg Config
	verb, name := "", ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
		if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
			name, args = args[0], args[1:]
		}
	}
	err := config.Load(&cfg, args, env)
	if errors.Is(err, flag.ErrHelp) || verb == "help" {
		fmt.Fprint(out, help)
		return config.Reference(out, &cfg)
	}
	switch {
	case err != nil:
		return usage(err)
	case verb != "" && verb != "send" && verb != "tail":
		return usage(fmt.Errorf("parley chat has no %q: send, tail, or nothing for a chat", verb))
	case verb == "send" && name == "":
		return usage(errors.New("parley chat send takes a NAME"))
	}
	api, err := client.New(cfg.URL, nil)
	if err != nil {
		return usage(err)
	}
	if screen, keys := fullScreen(in, out, env); screen != nil && verb == "" && !cfg.Plain {
		return status(tui.Run(ctx, tui.Config{
			API: api, Server: cfg.URL, User: cfg.User, Password: cfg.Password.Reveal(), With: cfg.With, Patience: cfg.Patience,
		}, keys, screen))
	}
	if err := cfg.complete(); err != nil {
		return usage(err)
	}
	start, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	me, err := api.Login(start, cfg.User, cfg.Password.Reveal())
	if err != nil {
		return status(fmt.Errorf("log in as %s: %w", cfg.User, err))
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = me.Logout(bye) // the login ends by itself some day
	}()
	switch verb {
	case "send":
		return status(send(ctx, cfg, me, name, in))
	case "tail":
		return status(tail(ctx, cfg, me, name, out))
	}
	conn, err := client.Dial(start, client.Options{Session: me})
	if err != nil {
		return status(fmt.Errorf("connect: %w", err))
	}
	c := &chat{cfg: cfg, me: me, conn: conn, screen: &screen{out: out, me: me.Username()}, tty: isTerminal(in)}
	return status(c.run(ctx, in))
}

// fullScreen gives both ends of a terminal that can draw, nil for anything else.
func fullScreen(in io.Reader, out io.Writer, env func(string) (string, bool)) (screen, keys *os.File) {
	i, ok := in.(*os.File)
	o, ok2 := out.(*os.File)
	if !ok || !ok2 || !term.IsTerminal(int(i.Fd())) || !term.IsTerminal(int(o.Fd())) {
		return nil, nil
	}
	if t, _ := env("TERM"); t == "" || t == "dumb" {
		return nil, nil
	}
	return o, i
}

func usage(err error) error { return &lifecycle.StatusError{Status: lifecycle.StatusUsage, Err: err} }

// status gives an error the exit status that help promises.
func status(err error) error {
	var se *lifecycle.StatusError
	var we *wire.Error
	if err == nil || errors.As(err, &se) {
		return err
	}
	s := lifecycle.StatusFailed
	switch {
	case errors.As(err, &we):
		switch we.Code {
		case wire.UnknownUser:
			s = lifecycle.StatusUnknown
		case wire.Unavailable, wire.RateLimited, wire.TooManyConnections:
			s = lifecycle.StatusAway
		default:
			s = lifecycle.StatusRefused
		}
	case errors.Is(err, context.DeadlineExceeded), isNetwork(err):
		s = lifecycle.StatusAway
	}
	return &lifecycle.StatusError{Status: s, Err: err}
}

func isNetwork(err error) bool {
	var ne net.Error
	return errors.As(err, &ne)
}

// isTerminal tells a terminal from a pipe or a file.
func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// chat is one run of the command. Its own goroutine reads lines; another one prints events.
type chat struct {
	cfg    Config
	me     *client.Session
	conn   *client.Conn
	screen *screen
	tty    bool
	failed error // of lines that were not sent
}

func (c *chat) run(ctx context.Context, in io.Reader) error {
	c.screen.line("* you are %s; /with NAME, /who, /quit", c.me.Username())
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for ev := range c.conn.Events() {
			c.show(ctx, ev)
		}
	}()
	defer func() {
		_ = c.conn.Close() // always nil
		<-printed
	}()
	if c.cfg.With != "" {
		if err := c.with(ctx, c.cfg.With); err != nil {
			return err
		}
	}
	typed := lines(ctx, in)
	for {
		select {
		case line, ok := <-typed:
			if !ok {
				return c.failed
			}
			if c.do(ctx, line) {
				return c.failed
			}
		case <-printed:
			return c.conn.Err()
		case <-ctx.Done():
			return nil
		}
	}
}

// lines are those of in until it or ctx ends. A read of a terminal cannot be interrupted, so the goroutine may outlive the chat.
func lines(ctx context.Context, in io.Reader) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		sc := bufio.NewScanner(in)
		sc.Buffer(nil, maxLine)
		for sc.Scan() {
			select {
			case out <- sc.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// do carries one line out and reports whether it was the last.
func (c *chat) do(ctx context.Context, line string) (quit bool) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Patience)
	defer cancel()
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch room := c.screen.room(); {
	case word == "":
	case word == "/quit":
		return true
	case word == "/who":
		c.who(ctx)
	case word == "/with":
		if err := c.with(ctx, strings.TrimSpace(rest)); err != nil {
			c.screen.line("! %v", err)
		}
	case strings.HasPrefix(word, "/"):
		c.screen.line("! there is no %s: /with NAME, /who, /quit", word)
	case room == "":
		c.screen.line("! with whom? /with NAME")
	default:
		acc, err := c.conn.Send(ctx, room, line)
		if err != nil {
			c.screen.line("! not sent: %v", err)
			c.failed = errors.New("some lines were not sent")
			return false
		}
		if c.tty {
			return false // the terminal shows what was typed
		}
		c.screen.message(wire.Message{Sender: c.me.Username(), Content: line, Room: room, SentAt: wire.Timestamp{Time: acc.SentAt}})
	}
	return false
}

// with turns to another user and shows what was said last.
func (c *chat) with(ctx context.Context, name string) error {
	if name == "" {
		return errors.New("with whom? /with NAME")
	}
	ct, err := find(ctx, c.me, name)
	if err != nil {
		return err
	}
	last, err := c.me.Messages(ctx, ct.Room, client.MessagesQuery{Limit: 20})
	if err != nil {
		c.screen.line("! what was said before cannot be shown: %v", err)
	}
	c.screen.enter(ct.Room, ct.Username, last.Messages)
	if n := len(last.Messages); n > 0 {
		_ = c.conn.Read(ctx, ct.Room, last.Messages[n-1].Seq) // the next message read says it as well
	}
	return nil
}

// find is a contact by a name in any case.
func find(ctx context.Context, me *client.Session, name string) (client.Contact, error) {
	page, err := me.Contacts(ctx, client.ContactsQuery{Prefix: name, Limit: 100})
	if err != nil {
		return client.Contact{}, fmt.Errorf("look %s up: %w", name, err)
	}
	for _, ct := range page.Contacts {
		if strings.EqualFold(ct.Username, name) {
			return ct, nil
		}
	}
	return client.Contact{}, &lifecycle.StatusError{Status: lifecycle.StatusUnknown, Err: fmt.Errorf("nobody you may chat with is called %s", name)}
}

func (c *chat) who(ctx context.Context) {
	page, err := c.me.Contacts(ctx, client.ContactsQuery{Limit: 100})
	if err != nil {
		c.screen.line("! %v", err)
		return
	}
	for _, ct := range page.Contacts {
		state := "offline"
		switch {
		case ct.Online == nil:
			state = "unknown"
		case *ct.Online:
			state = "online"
		case !ct.LastSeen.IsZero():
			state = "last seen " + ct.LastSeen.Local().Format("2006-01-02 15:04")
		}
		c.screen.line("* %s: %s", ct.Username, state)
	}
	if page.Next != "" {
		c.screen.line("* … and more")
	}
}

func (c *chat) show(ctx context.Context, ev client.Event) {
	switch ev := ev.(type) {
	case client.Message:
		if c.screen.message(ev.Message) && ev.Sender != c.me.Username() {
			_ = c.conn.Read(ctx, ev.Room, ev.Seq) // the next message read says it as well
		}
	case client.Presence:
		c.screen.presence(ev.Presence)
	case client.Typing:
		c.screen.typing(ev.Room, ev.Username)
	case client.Disconnected:
		c.screen.line("! connection lost (%v); trying again", ev.Err)
	case client.Reconnected:
		c.screen.line("* connected again")
	case client.Refused:
		c.screen.line("! %v", ev.Err)
	case client.NotJoined:
		c.screen.line("! %s was not joined: %s", ev.Room, ev.Code)
	}
}
