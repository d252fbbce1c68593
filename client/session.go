package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"parley.example/client/wire"
)

// Session is one login. It renews its access token by itself, and is safe for concurrent use.
type Session struct {
	c    *Client
	turn chan struct{} // holds one value; who has taken it may refresh

	mu      sync.Mutex // guards what follows
	t       Tokens
	since   time.Time
	expires time.Time // zero: not known
}

// Session makes one of tokens that were kept. A bare access token will do; it cannot be renewed then.
func (c *Client) Session(t Tokens) *Session {
	s := &Session{c: c, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	s.set(t)
	return s
}

func (s *Session) set(t Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Username == "" {
		t.Username = s.t.Username
	}
	s.t, s.since, s.expires = t, time.Now(), time.Time{}
	if t.ExpiresIn > 0 {
		s.expires = s.since.Add(time.Duration(t.ExpiresIn) * time.Second)
	}
}

// Tokens are the present ones, to be kept for Client.Session. They change with every refresh.
func (s *Session) Tokens() Tokens {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t
}

// Username is the registered form; "" for a bare token until a connection knows it.
func (s *Session) Username() string { return s.Tokens().Username }

// renewAt is when the access token should be renewed: with a fifth of its life left. Zero: never.
func (s *Session) renewAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expires.IsZero() || s.t.RefreshToken == "" {
		return time.Time{}
	}
	return s.expires.Add(-s.expires.Sub(s.since) / 5)
}

// Token is an access token that is good for a while yet.
func (s *Session) Token(ctx context.Context) (string, error) {
	tok := s.Tokens().AccessToken
	if at := s.renewAt(); at.IsZero() || time.Now().Before(at) {
		return tok, nil
	}
	err := s.renew(ctx, tok)
	if err != nil && !isCode(err, wire.Unauthenticated) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if time.Now().Before(s.expires) {
			return s.t.AccessToken, nil // login may be away for a moment; this one is still good
		}
	}
	return s.Tokens().AccessToken, err
}

// Refresh trades the refresh token for new tokens. Calls never overlap. When it fails without a word of the server, it may be called again: the
// server gives the same tokens once more, until one of them has been used.
func (s *Session) Refresh(ctx context.Context) error { return s.renew(ctx, s.Tokens().AccessToken) }

// renew replaces the access token old; another call may have done it meanwhile.
func (s *Session) renew(ctx context.Context, old string) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	have := s.Tokens()
	if have.AccessToken != old {
		return nil
	}
	if have.RefreshToken == "" {
		return wire.E(wire.Unauthenticated, "the token has run out and cannot be renewed; log in again")
	}
	t, err := s.trade(ctx, have.RefreshToken)
	if err != nil {
		return fmt.Errorf("renew the token: %w", err)
	}
	s.set(t)
	return nil
}

const (
	// tradeTries and tradeTime: an answer that was lost is asked for again soon, with the same token. A service answers within 3 s.
	tradeTries = 3
	tradeTime  = 10 * time.Second
	tradePause = 300 * time.Millisecond
)

func (s *Session) trade(ctx context.Context, refresh string) (t Tokens, err error) {
	for try := 1; ; try++ {
		once, cancel := context.WithTimeout(ctx, tradeTime)
		err = s.c.do(once, http.MethodPost, "/v1/sessions/refresh", "", wire.RefreshToken{RefreshToken: refresh}, &t)
		cancel()
		var said *wire.Error
		if err == nil || errors.As(err, &said) || try == tradeTries {
			return t, err
		}
		select {
		case <-time.After(rand.N(tradePause)):
		case <-ctx.Done():
			return t, err
		}
	}
}

// do is a request in the name of the user; a token that the server no longer takes is renewed once.
func (s *Session) do(ctx context.Context, method, path string, body, out any) error {
	tok, err := s.Token(ctx)
	if err != nil {
		return err
	}
	err = s.c.do(ctx, method, path, tok, body, out)
	if !isCode(err, wire.Unauthenticated) || s.Tokens().RefreshToken == "" {
		return err
	}
	if rerr := s.renew(ctx, tok); rerr != nil {
		return rerr
	}
	return s.c.do(ctx, method, path, s.Tokens().AccessToken, body, out)
}

// Logout ends the login; its connections are closed with 4502.
func (s *Session) Logout(ctx context.Context) error {
	return s.do(ctx, http.MethodDelete, "/v1/sessions/current", nil, nil)
}

// ContactsQuery narrows a list of contacts; the zero value asks for the first page of all.
type ContactsQuery struct {
	Prefix, After string
	Limit         int
}

// Contacts lists those one may chat with, by name.
func (s *Session) Contacts(ctx context.Context, q ContactsQuery) (ContactsPage, error) {
	var out ContactsPage
	err := s.do(ctx, http.MethodGet, "/v1/contacts"+query("prefix", q.Prefix, "after", q.After, "limit", number(q.Limit)), nil, &out)
	return out, err
}

// Conversations lists the user's, the youngest first.
func (s *Session) Conversations(ctx context.Context, after string, limit int) (ConversationsPage, error) {
	var out ConversationsPage
	err := s.do(ctx, http.MethodGet, "/v1/conversations"+query("after", after, "limit", number(limit)), nil, &out)
	return out, err
}

// MessagesQuery says where in a room to read: the messages before a seq, after one (0: from the first on), or,
// with the zero value, the last ones.
type MessagesQuery struct {
	Before int64
	After  *int64
	Limit  int
}

// Messages reads a room.
func (s *Session) Messages(ctx context.Context, room string, q MessagesQuery) (MessagesPage, error) {
	after, before := "", ""
	if q.After != nil {
		after = strconv.FormatInt(*q.After, 10)
	}
	if q.Before != 0 {
		before = strconv.FormatInt(q.Before, 10)
	}
	var out MessagesPage
	path := "/v1/rooms/" + url.PathEscape(room) + "/messages" + query("after", after, "before", before, "limit", number(q.Limit))
	err := s.do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

// query makes "?a=b" of pairs, without those that are "".
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// name notes the registered form, as the server's welcome has it.
func (s *Session) name(username string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Username = username
}

// renewable reports that there is a refresh token.
func (s *Session) renewable() bool { return s.Tokens().RefreshToken != "" }
