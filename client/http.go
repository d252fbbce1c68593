package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"parley.example/client/wire"
)

// Client talks to one deployment. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New takes the URL of a deployment (http:// or https://, with a path prefix if there is one). hc may be nil.
func New(baseURL string, hc *http.Client) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("read the URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the URL %q does not begin with http://HOST or https://HOST", baseURL)
	}
	if hc == nil {
		hc = &http.Client{Timeout: 30 * time.Second}
	}
	return &Client{strings.TrimRight(baseURL, "/"), hc}, nil
}

// Room is the room of two users.
func Room(x, y string) string {
	if y < x {
		x, y = y, x
	}
	return x + "&" + y
}

// Peer is the other user of a room.
func Peer(room, user string) string {
	a, b, _ := strings.Cut(room, "&")
	if a == user {
		return b
	}
	return a
}

// What requests are answered with is the same for the server; see package wire.
type (
	Tokens            = wire.Tokens
	Contact           = wire.ContactInfo
	ContactsPage      = wire.ContactsPage
	Conversation      = wire.Conversation
	ConversationsPage = wire.ConversationsPage
	MessagesPage      = wire.MessagesPage
)

// Register makes a user. Errors: invalid_username, invalid_argument (password too short), username_taken.
func (c *Client) Register(ctx context.Context, username, password string) error {
	return c.do(ctx, http.MethodPost, "/v1/users", "", wire.Credentials{Username: username, Password: password}, nil)
}

// Login opens a session. Error: unauthenticated, also where there is no such user.
func (c *Client) Login(ctx context.Context, username, password string) (*Session, error) {
	var t Tokens
	if err := c.do(ctx, http.MethodPost, "/v1/sessions", "", wire.Credentials{Username: username, Password: password}, &t); err != nil {
		return nil, err
	}
	return c.Session(t), nil
}

// do makes one request. token and body may be empty, out may be nil. Failures that the server named are *wire.Error.
func (c *Client) do(ctx context.Context, method, path, token string, body, out any) error {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode a request: %w", err)
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, rd)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("reach the server: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return problem(resp)
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if len(b) > maxBody {
		return fmt.Errorf("an answer is longer than %d bytes", maxBody)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the answer of %s %s: %w", method, path, err)
	}
	return nil
}

// problem reads an application/problem+json answer (RFC 9457). An answer without one, of a proxy perhaps, gets
// the code that fits its status.
func problem(resp *http.Response) *wire.Error {
	var p wire.Problem
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // a cut text still says something
	_ = json.Unmarshal(b, &p)                             // not JSON: the status speaks
	e := &wire.Error{Code: p.Code, Message: p.Detail, RetryAfterMS: p.RetryAfterMS}
	if e.Message == "" {
		e.Message = p.Title
	}
	if e.Message == "" {
		e.Message = resp.Status
	}
	if e.Code == "" {
		e.Code = codeOf(resp.StatusCode)
	}
	if s, err := strconv.ParseInt(resp.Header.Get("Retry-After"), 10, 32); err == nil && e.RetryAfterMS == 0 {
		e.RetryAfterMS = s * 1000
	}
	return e
}

func codeOf(status int) wire.Code {
	for _, c := range []wire.Code{wire.Unauthenticated, wire.Forbidden, wire.NotFound, wire.TooLarge, wire.RateLimited, wire.Unavailable} {
		if c.HTTPStatus() == status {
			return c
		}
	}
	switch {
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		return wire.Unavailable
	case status < 500:
		return wire.InvalidArgument
	}
	return wire.Internal
}

// isCode reports that the server said code.
func isCode(err error, code wire.Code) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Code == code
}
