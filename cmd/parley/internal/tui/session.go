package tui

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"parley.example/client"
)

// session is a login with its connection. Two goroutines of it send messages to the loop: pump, what the connection brings, and sender,
// what became of messages, one after the other so that they keep their order. close ends both.
type session struct {
	ctx    context.Context
	cancel context.CancelFunc
	me     *client.Session
	conn   *client.Conn
	queue  chan client.Outgoing
	wg     sync.WaitGroup
}

// Messages of the session to the loop.
type (
	loggedIn struct {
		s             *session
		conversations []client.Conversation
	}
	loginFailed struct{ err error }
	contacts    struct {
		list []client.Contact
		more string
		err  error
	}
	pageRead struct {
		name string
		page client.MessagesPage
		err  error
	}
	sent struct {
		room, id string
		acc      client.Accepted
		err      error
	}
	reread struct {
		conversations []client.Conversation
		err           error
	}
	happened struct{ ev client.Event }
	ended    struct{ err error }
	tick     struct{}
)

// login opens a session. Its connection is not read before pump.
func login(ctx context.Context, cfg Config, user, password string) tea.Cmd {
	return func() tea.Msg {
		start, cancel := context.WithTimeout(ctx, cfg.Patience)
		defer cancel()
		me, err := cfg.API.Login(start, user, password)
		if err != nil {
			return loginFailed{err}
		}
		conn, err := client.Dial(start, client.Options{Session: me})
		if err != nil {
			return loginFailed{fmt.Errorf("connect: %w", err)}
		}
		s := &session{me: me, conn: conn, queue: make(chan client.Outgoing, maxQueue)}
		s.ctx, s.cancel = context.WithCancel(ctx)
		list, err := s.conversations(start)
		if err != nil {
			s.close()
			return loginFailed{fmt.Errorf("read the conversations: %w", err)}
		}
		return loggedIn{s, list}
	}
}

// conversations reads all of them, as many as the list holds.
func (s *session) conversations(ctx context.Context) (out []client.Conversation, err error) {
	for after := ""; len(out) < maxPeople; {
		page, err := s.me.Conversations(ctx, after, 200)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Conversations...)
		if after = page.Next; after == "" {
			break
		}
	}
	return out, nil
}

// begin starts both goroutines.
func (s *session) begin(to func(tea.Msg)) {
	s.wg.Go(func() {
		for ev := range s.conn.Events() {
			to(happened{ev})
		}
		to(ended{s.conn.Err()})
	})
	s.wg.Go(func() {
		for {
			select {
			case m := <-s.queue:
				acc, err := s.conn.SendMessage(s.ctx, m)
				to(sent{m.Room, m.ID, acc, err})
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// close says good-bye. The login ends too; should that fail, it ends by itself some day.
func (s *session) close() {
	s.cancel()
	_ = s.conn.Close() // always nil
	s.wg.Wait()
	bye, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = s.me.Logout(bye)
}

// enqueue gives a message to sender; false: too many wait.
func (s *session) enqueue(m client.Outgoing) bool {
	select {
	case s.queue <- m:
		return true
	default:
		return false
	}
}

func newID() string { return strings.ToLower(rand.Text()) }

// readContacts reads one page.
func (s *session) readContacts(prefix, after string) tea.Cmd {
	return func() tea.Msg {
		page, err := s.me.Contacts(s.ctx, client.ContactsQuery{Prefix: prefix, After: after, Limit: 1000})
		return contacts{page.Contacts, page.Next, err}
	}
}

func (s *session) readPage(name, room string, before int64, limit int) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
		defer cancel()
		page, err := s.me.Messages(ctx, room, client.MessagesQuery{Before: before, Limit: limit})
		return pageRead{name, page, err}
	}
}

// readAgain asks for the counts that another device has changed.
func (s *session) readAgain() tea.Cmd {
	return func() tea.Msg {
		list, err := s.conversations(s.ctx)
		return reread{list, err}
	}
}

// tell sends what has no answer. Without a connection it is not sent, and not missed: typing is over by then, and read markers follow
// with the next message.
func tell(f func(context.Context) error, ctx context.Context) tea.Cmd {
	return func() tea.Msg {
		if err := f(ctx); err != nil && !errors.Is(err, client.ErrNotConnected) && ctx.Err() == nil {
			return happened{client.Disconnected{Err: err}} // the connection says the same in a moment
		}
		return nil
	}
}
