package session

import (
	"context"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/token"
)

// login is by what a session is here: the claims of its access token.
type login struct {
	mu       sync.Mutex
	claims   token.Claims
	checking bool // auth is asked about a token that has run out
}

func (l *login) current() token.Claims {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claims
}

func (l *login) replace(c token.Claims) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = c
}

// expires reports whether the token has run out and nobody looks after that yet; the caller is to.
func (l *login) expires(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.checking || !now.After(l.claims.Expires) {
		return false
	}
	l.checking = true
	return true
}

func (l *login) checked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checking = false
}

// Claims are those of the session's access token.
func (s *Session) Claims() token.Claims { return s.login.current() }

// Renew takes the claims of a new access token of the same user.
func (s *Session) Renew(c token.Claims) error {
	if c.Username != s.user {
		return wire.E(wire.Forbidden, "the token belongs to another user")
	}
	s.login.replace(c)
	return nil
}

// expire closes a session whose token has run out, unless auth is unreachable and nobody could have got a new one.
func (s *Session) expire() {
	s.hub.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
		defer cancel()
		_, err := api.AuthRelations.Call(ctx, s.hub.Services, api.RelationsRequest{Username: s.user})
		late := time.Since(s.login.current().Expires)
		switch {
		case late < 0:
			s.login.checked()
		case err != nil && late < s.hub.TokenGrace:
			time.AfterFunc(10*time.Second, s.login.checked)
		default:
			s.out.close(wire.CloseTokenExpired)
		}
	})
}
