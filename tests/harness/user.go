package harness

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/token"
)

// Password of every user that the harness makes.
const Password = "correct horse battery"

// User is a registered user with one login.
type User struct {
	Name   string
	Tokens client.Tokens
	v      *View
}

// Client is the SDK's client of a base URL.
func (v *View) Client(base string) *client.Client {
	v.t.Helper()
	c, err := client.New(base, v.http)
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

// User registers a user whose name begins with base. Its token is minted with the deployment's key: a login costs as much time
// as a whole scenario has, and is a scenario of its own (Login).
func (v *View) User(base string) *User {
	v.t.Helper()
	u := &User{Name: v.Register(base), v: v}
	if v.Secret == nil {
		return v.Login(u.Name)
	}
	u.Tokens = client.Tokens{AccessToken: u.Mint(time.Now().Add(time.Hour)), ExpiresIn: 3600, Username: u.Name}
	return u
}

// Register registers a user whose name begins with base, and gives the name.
func (v *View) Register(base string) string {
	v.t.Helper()
	name := fmt.Sprintf("%s-%d", base, v.names.Add(1))
	if err := v.register(name); err != nil {
		v.t.Fatalf("register %s: %v", name, err)
	}
	return name
}

func (v *View) register(name string) error {
	v.hashing <- struct{}{}
	defer func() { <-v.hashing }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return v.Client(v.Gateways[0].URL).Register(ctx, name, Password)
}

// Login logs a user in.
func (v *View) Login(name string) *User {
	v.t.Helper()
	v.hashing <- struct{}{}
	defer func() { <-v.hashing }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := v.Client(v.Gateways[0].URL).Login(ctx, name, Password)
	if err != nil {
		v.t.Fatalf("log in %s: %v", name, err)
	}
	return &User{Name: s.Username(), Tokens: s.Tokens(), v: v}
}

// In is the user in the hands of a subtest.
func (u *User) In(t testing.TB) *User { return &User{u.Name, u.Tokens, u.v.For(t)} }

// Room is the room of two users.
func Room(a, b *User) string { return client.Room(a.Name, b.Name) }

// Session is the SDK's session of the user's login at a base URL.
func (u *User) Session(base string) *client.Session { return u.v.Client(base).Session(u.Tokens) }

// Dial is an SDK connection that the test closes at the latest.
func (u *User) Dial(o client.Options, base string) *client.Conn {
	u.v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	o.Session = u.Session(base)
	c, err := client.Dial(ctx, o)
	if err != nil {
		u.v.t.Fatalf("connect %s: %v", u.Name, err)
	}
	u.v.t.Cleanup(func() { _ = c.Close() }) // the end is no failure
	return c
}

// Mint signs an access token of the user with the deployment's own key.
func (u *User) Mint(expires time.Time) string {
	return u.v.Sign(token.Claims{Username: u.Name, UID: 1, SID: "minted-" + u.Name, Scope: token.ScopeNative, Issued: time.Now().Add(-time.Hour), Expires: expires})
}

// Key is the deployment's signing key.
func (s *Stack) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.Secret) }

// Sign signs claims with it.
func (v *View) Sign(c token.Claims) string {
	v.t.Helper()
	tok, err := token.NewSigner(v.Key()).Sign(c)
	if err != nil {
		v.t.Fatal(err)
	}
	return tok
}

// Answer is what HTTP said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Code is the code of a problem document.
func (a Answer) Code() wire.Code {
	var p struct {
		Code wire.Code `json:"code"`
	}
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(a.Body, &p) != nil {
		return ""
	}
	return p.Code
}

// Do makes one request; body may be nil, tok "".
func (v *View) Do(method, target, tok string, body any) Answer {
	v.t.Helper()
	a, err := v.Try(method, target, tok, body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

// Try is Do for servers that may be gone.
func (v *View) Try(method, target, tok string, body any) (Answer, error) {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		rd = strings.NewReader(string(b))
	}
	req, err := http.NewRequest(method, target, rd)
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return Answer{resp.StatusCode, resp.Header, b}, err
}

// History reads a whole room over HTTP, oldest first, when it has at least n messages: SQL is a moment behind the stream. When
// it does not get there in half a minute, it gives what is there.
func (u *User) History(t testing.TB, base, room string, n int) []wire.Message {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		list, a := u.history(t, base, room)
		if a.Status == http.StatusOK && len(list) >= n {
			return list
		}
		if time.Now().After(deadline) {
			if a.Status != http.StatusOK {
				t.Fatalf("read %s: %d %s", room, a.Status, a.Body)
			}
			return list
		}
		time.Sleep(50 * time.Millisecond) // polling interval
	}
}

func (u *User) history(t testing.TB, base, room string) (out []wire.Message, a Answer) {
	t.Helper()
	after := int64(0)
	for {
		a = u.v.Do(http.MethodGet, fmt.Sprintf("%s/v1/rooms/%s/messages?limit=100&after=%d", base, url.PathEscape(room), after), u.Tokens.AccessToken, nil)
		var page client.MessagesPage
		if a.Status != http.StatusOK {
			return nil, a
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			t.Fatalf("read %s: %v", room, err)
		}
		out = append(out, page.Messages...)
		if !page.More || len(page.Messages) == 0 { // an empty page with more: history is behind
			return out, a
		}
		after = out[len(out)-1].Seq
	}
}
