package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"parley.example/client"
)

// Config of a chat.
type Config struct {
	API            *client.Client
	Server         string // for people to read
	User, Password string // empty ones are asked for
	With           string // whom to open first
	Patience       time.Duration
}

// Run chats on a terminal until the person leaves, ctx ends, or the server has ended the connection for good.
func Run(ctx context.Context, cfg Config, in, out *os.File) error {
	m := newModel(cfg)
	// The session is closed after the screen is back to normal: that may take a moment.
	defer func() {
		if m.session != nil {
			m.session.close()
		}
	}()
	loop, stop := context.WithCancel(ctx)
	defer stop()
	var p *tea.Program
	root := &program{model: m, ctx: loop, send: func(msg tea.Msg) { p.Send(msg) }}
	p = tea.NewProgram(root, tea.WithContext(loop), tea.WithInput(in), tea.WithOutput(out))
	_, err := p.Run()
	switch {
	case ctx.Err() != nil, errors.Is(err, tea.ErrInterrupted), err == nil:
		return root.failed
	}
	return fmt.Errorf("draw on the terminal: %w", err)
}

// program is what Bubble Tea runs.
type program struct {
	*model
	ctx    context.Context
	send   func(tea.Msg)
	failed error // why the connection ended for good
}

// Init logs in at once when everything is known.
func (p *program) Init() tea.Cmd {
	clock := tea.Tick(time.Second, func(time.Time) tea.Msg { return tick{} })
	if p.cfg.User != "" && p.cfg.Password != "" {
		p.logging = true
		return tea.Batch(clock, login(p.ctx, p.cfg, p.cfg.User, p.cfg.Password))
	}
	return clock
}
