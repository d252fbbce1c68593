package chat

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/safetext"
	"parley.example/pkg/lifecycle"
)

// send sends what in has to one person: all of it as one message, or each line.
func send(ctx context.Context, cfg Config, me *client.Session, name string, in io.Reader) error {
	start, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	to, err := find(start, me, name)
	if err != nil {
		return err
	}
	conn, err := client.Dial(start, client.Options{Session: me, Rooms: []string{to.Room}})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	go func() {
		for range conn.Events() { //nolint:revive // nobody asks; they must be read
		}
	}()
	one := func(text string) error {
		ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
		defer cancel()
		_, err := conn.Send(ctx, to.Room, text)
		var ou *client.OutcomeUnknownError
		if errors.As(err, &ou) {
			return &lifecycle.StatusError{Status: lifecycle.StatusAway, Err: err}
		}
		return err
	}
	if !cfg.Lines {
		b, err := io.ReadAll(io.LimitReader(in, maxLine))
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		text := strings.TrimRight(string(b), "\r\n")
		if text == "" {
			return usage(errors.New("standard input has nothing to send"))
		}
		return one(text)
	}
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		if text := strings.TrimRight(sc.Text(), "\r"); text != "" {
			if err := one(text); err != nil {
				return err
			}
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

// tail prints what others say as it comes, those messages first that nobody has received yet, until ctx ends. What it has printed counts as delivered, not
// as read.
func tail(ctx context.Context, cfg Config, me *client.Session, name string, out io.Writer) error {
	start, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	o := client.Options{Session: me}
	if name != "" {
		from, err := find(start, me, name)
		if err != nil {
			return err
		}
		o.Rooms = []string{from.Room}
	}
	conn, err := client.Dial(start, o)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	n := 0
	for ev := range conn.Events() {
		m, ok := ev.(client.Message)
		if !ok || m.Sender == me.Username() {
			continue // one's own come too, from other devices
		}
		if err := printTail(out, cfg.JSON, m.Message); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if n++; n == cfg.Count {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil // that is how a tail ends
	}
	return conn.Err()
}

func printTail(out io.Writer, asJSON bool, m wire.Message) error {
	if asJSON {
		return json.NewEncoder(out).Encode(m)
	}
	_, err := fmt.Fprintf(out, "%s %s → %s: %s\n", m.SentAt.UTC().Format("2006-01-02T15:04:05Z"), safetext.Line(m.Sender),
		safetext.Line(client.Peer(m.Room, m.Sender)), safetext.Line(m.Content))
	return err
}
