// Command driver lets the judge of tests/sdk use the Go SDK: commands come as lines of JSON, what happens goes out as such. docs/sdk.md has the
// vocabulary, which is the same for every language.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
)

type command struct {
	Do        string   `json:"do"`
	URL       string   `json:"url"`
	Token     string   `json:"token"`
	Refresh   string   `json:"refresh_token"`
	ExpiresIn int64    `json:"expires_in"`
	Rooms     []string `json:"rooms"`
	Device    string   `json:"device"`
	Resume    string   `json:"resume"`
	Min       int64    `json:"min_backoff_ms"`
	Max       int64    `json:"max_backoff_ms"`
	Answer    int64    `json:"answer_timeout_ms"`
	Room      string   `json:"room"`
	Content   string   `json:"content"`
	ID        string   `json:"id"`
	Retry     bool     `json:"retry"`
	Seq       int64    `json:"seq"`
	Usernames []string `json:"usernames"`
}

type driver struct {
	conn  *client.Conn
	mu    sync.Mutex // guards what follows
	out   *json.Encoder
	sends map[string]context.CancelFunc
}

type event map[string]any

func (d *driver) say(is string, e event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e["is"] = is
	_ = d.out.Encode(e) // a judge that is gone needs no answer
}

func main() {
	d := &driver{out: json.NewEncoder(os.Stdout), sends: map[string]context.CancelFunc{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		d.do(c)
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func (d *driver) do(c command) {
	ctx := context.Background()
	switch c.Do {
	case "connect":
		d.connect(ctx, c)
	case "send":
		ctx, cancel := context.WithCancel(ctx)
		d.mu.Lock()
		d.sends[c.ID] = cancel
		d.mu.Unlock()
		go func() {
			defer cancel()
			acc, err := d.conn.SendMessage(ctx, client.Outgoing{Room: c.Room, Content: c.Content, ID: c.ID, Retry: c.Retry})
			if err != nil {
				d.say("unsent", event{"content": c.Content, "why": why(err)})
				return
			}
			d.say("sent", event{"content": c.Content, "room": acc.Room, "id": acc.ID, "seq": acc.Seq})
		}()
	case "give_up":
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sends[c.ID]()
	case "typing":
		d.tell(d.conn.Typing(ctx, c.Room))
	case "read":
		d.tell(d.conn.Read(ctx, c.Room, c.Seq))
	case "watch":
		d.tell(d.conn.Watch(ctx, c.Usernames))
	case "resume":
		d.say("resume", event{"token": d.conn.Resume()})
	case "close":
		go d.conn.Close()
	}
}

// tell says what a call without another answer returned.
func (d *driver) tell(err error) {
	if err != nil {
		d.say("failed", event{"why": why(err)})
	}
}

func (d *driver) connect(ctx context.Context, c command) {
	api, err := client.New(c.URL, nil)
	if err != nil {
		d.say("closed", event{"why": err.Error()})
		return
	}
	s := api.Session(client.Tokens{AccessToken: c.Token, RefreshToken: c.Refresh, ExpiresIn: c.ExpiresIn})
	d.conn, err = client.Dial(ctx, client.Options{
		Session: s, Rooms: c.Rooms, Device: c.Device, Resume: c.Resume, MinBackoff: ms(c.Min), MaxBackoff: ms(c.Max), AnswerTimeout: ms(c.Answer),
	})
	if err != nil {
		d.say("closed", event{"why": why(err)})
		return
	}
	d.say("connected", event{})
	go func() {
		for ev := range d.conn.Events() {
			d.event(ev)
		}
		d.say("closed", event{"why": why(d.conn.Err())})
	}()
}

func (d *driver) event(ev client.Event) {
	switch e := ev.(type) {
	case client.Message:
		m := event{"room": e.Room, "sender": e.Sender, "content": e.Content, "id": e.ID, "seq": e.Seq}
		if e.Late {
			m["late"] = true
		}
		d.say("message", m)
	case client.CaughtUp:
		d.say("caught_up", event{"resume": e.Resume})
	case client.Presence:
		d.say("presence", event{"online": e.Online})
	case client.Typing:
		d.say("typing", event{"room": e.Room, "username": e.Username})
	case client.Read:
		d.say("read", event{"room": e.Room, "username": e.Username, "seq": e.Seq})
	case client.Delivered:
		d.say("delivered", event{"room": e.Room, "username": e.Username, "seq": e.Seq})
	case client.ContactChanged:
		d.say("contact", event{"room": e.Room, "username": e.Username, "removed": e.Removed})
	case client.NotJoined:
		d.say("not_joined", event{"room": e.Room, "code": e.Code})
	case client.Refused:
		d.say("refused", event{"code": e.Err.Code})
	case client.Disconnected:
		d.say("disconnected", event{})
	case client.Reconnected:
		d.say("connected", event{})
	}
}

// why is an error in the vocabulary: a code of the protocol, a close code, or a word of its own.
func why(err error) string {
	var we *wire.Error
	var ce *client.CloseError
	var ou *client.OutcomeUnknownError
	switch {
	case errors.As(err, &ou):
		return "outcome_unknown"
	case errors.As(err, &we):
		return string(we.Code)
	case errors.As(err, &ce):
		return strconv.Itoa(ce.Code)
	case errors.Is(err, client.ErrClosed):
		return "closed"
	case errors.Is(err, client.ErrNotConnected):
		return "not_connected"
	}
	return err.Error()
}
