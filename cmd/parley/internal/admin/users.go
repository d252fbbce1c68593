// Package admin is `parley user`: adding, changing, exporting and erasing users, in a deployment or in the data folder of a `parley serve`.
package admin

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"parley.example/services/auth"
	"parley.example/services/history"
)

// Users is what can be done. Local does it; Remote asks the process that can.
type Users interface {
	Add(ctx context.Context, name, password string) (registered string, err error)
	SetPassword(ctx context.Context, name, password string) (endedLogins int, err error)
	SetDisabled(ctx context.Context, name string, disabled bool) error
	List(ctx context.Context, after string) (Page, error)
	Export(ctx context.Context, name string, to io.Writer) error
	Erase(ctx context.Context, name string) (messages int, err error)
}

// Page of a list of users; Next is "" on the last one.
type Page struct {
	Users []auth.Account `json:"users"`
	Next  string         `json:"next,omitempty"`
}

// pageSize is how many users one answer has.
const pageSize = 500

// Local is Users over what auth and history keep.
type Local struct {
	Auth    *auth.Admin
	History *history.Admin
}

// Add registers a user.
func (l *Local) Add(ctx context.Context, name, password string) (string, error) {
	return l.Auth.Add(ctx, name, password)
}

// SetPassword changes a password and ends the user's logins.
func (l *Local) SetPassword(ctx context.Context, name, password string) (int, error) {
	return l.Auth.SetPassword(ctx, name, password)
}

// SetDisabled locks a user out or in.
func (l *Local) SetDisabled(ctx context.Context, name string, disabled bool) error {
	return l.Auth.SetDisabled(ctx, name, disabled)
}

// List is a page of all users.
func (l *Local) List(ctx context.Context, after string) (Page, error) {
	list, next, err := l.Auth.List(ctx, after, pageSize)
	return Page{list, next}, err
}

// Erase takes everything that is kept of a user but the name. First nobody can write as the user any more, then what was written goes, and
// the user's row last: until then another try finds what is left.
func (l *Local) Erase(ctx context.Context, name string) (int, error) {
	u, err := l.Auth.Find(ctx, name)
	if err != nil {
		return 0, err
	}
	if err := l.Auth.SetDisabled(ctx, name, true); err != nil {
		return 0, err
	}
	n, err := l.History.Erase(ctx, u.Username)
	if err != nil {
		return n, err
	}
	if err := l.Auth.Erase(ctx, name); err != nil {
		return n, err
	}
	// A message may have been on its way to the stream when its socket was closed.
	more, err := l.History.Erase(ctx, u.Username)
	return n + more, err
}

// Export writes a zip of JSON files: account.json, devices.json, and one file a conversation, with what both have said in it.
func (l *Local) Export(ctx context.Context, name string, to io.Writer) error {
	p, err := l.Auth.Personal(ctx, name)
	if err != nil {
		return err
	}
	devices, err := l.History.Devices(ctx, p.Account.Username)
	if err != nil {
		return err
	}
	z := zip.NewWriter(to)
	if err := writeJSON(z, "account.json", p); err != nil {
		return err
	}
	if err := writeJSON(z, "devices.json", devices); err != nil {
		return err
	}
	n := 0
	err = l.History.Conversations(ctx, p.Account.Username, func(c history.Conversation, messages func(func(history.Message) error) error) error {
		n++
		// Numbers: not every file system takes every name.
		w, err := create(z, fmt.Sprintf("conversations/%05d.json", n))
		if err != nil {
			return err
		}
		return writeConversation(w, c, messages)
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("finish the zip: %w", err)
	}
	return nil
}

// writeConversation writes one JSON object, message by message: a conversation may be larger than memory.
func writeConversation(w io.Writer, c history.Conversation, messages func(func(history.Message) error) error) error {
	head, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a conversation: %w", err)
	}
	if _, err := fmt.Fprintf(w, "%s,\"messages\":[", head[:len(head)-1]); err != nil {
		return fmt.Errorf("write a conversation: %w", err)
	}
	comma := "\n"
	err = messages(func(m history.Message) error {
		b, err := json.Marshal(m)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s%s", comma, b)
		}
		comma = ",\n"
		return err
	})
	if err != nil {
		return fmt.Errorf("write a conversation: %w", err)
	}
	_, err = io.WriteString(w, "\n]}\n")
	return err
}

func create(z *zip.Writer, name string) (io.Writer, error) {
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("begin %s: %w", name, err)
	}
	return w, nil
}

func writeJSON(z *zip.Writer, name string, v any) error {
	w, err := create(z, name)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

var (
	_ Users = (*Local)(nil)
	_ Users = (*Remote)(nil)
)
