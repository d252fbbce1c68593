// Package login registers users and begins, renews and ends logins.
package login

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"parley/pkg/api"
	"parley/pkg/room"
	"parley/pkg/token"
	"parley/pkg/wire"
	"parley/services/auth/internal/password"
	"parley/services/auth/internal/store"
	"parley/services/auth/internal/throttle"
)

// Bounds of new passwords. The upper one keeps megabytes away from the hash.
const (
	minPasswordChars = 8
	maxPasswordBytes = 1024
)

// Lives of what a login gives.
type Lives struct {
	Access  time.Duration // of an access token
	Refresh time.Duration // of a refresh token; each use begins it anew
	Seed    time.Duration // of an access token of the seed's clients, which cannot refresh
}

// Of is the life of an access token of that scope.
func (l Lives) Of(scope string) time.Duration {
	if scope == token.ScopeSeed {
		return l.Seed
	}
	return l.Access
}

// Longest life of any access token.
func (l Lives) Longest() time.Duration { return max(l.Access, l.Seed) }

// Revoker makes the access tokens of a login void at every gateway.
type Revoker interface {
	RevokeLogin(ctx context.Context, sid string, life time.Duration, now time.Time) error
}

// Service answers the requests about logins. All errors that it returns for the asker's sake are *wire.Error.
type Service struct {
	Store    *store.Store
	Pool     *password.Pool
	Throttle *throttle.Throttle
	Revoker  Revoker
	Signer   *token.Signer
	Lives    Lives
	Log      *slog.Logger
	Announce func(api.DirectoryEvent)
	Now      func() time.Time
	Metrics  *Metrics
}

// Metrics of logins.
type Metrics struct {
	logins, refreshes *prometheus.CounterVec
	registrations     prometheus.Counter
}

// NewMetrics registers them, all at 0.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		logins:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_auth_logins_total", Help: "Logins by outcome."}, []string{"outcome"}),
		refreshes:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_auth_refreshes_total", Help: "Uses of refresh tokens by outcome."}, []string{"outcome"}),
		registrations: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_auth_registrations_total", Help: "Users that registered."}),
	}
	for _, c := range []prometheus.Collector{m.logins, m.refreshes, m.registrations} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, o := range []string{"ok", string(wire.Unauthenticated), string(wire.Forbidden), string(wire.RateLimited), string(wire.Unavailable)} {
		m.logins.WithLabelValues(o)
		m.refreshes.WithLabelValues(o)
	}
	m.refreshes.WithLabelValues("reused")
	return m, nil
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(wire.AsError(err).Code)
}

var (
	errWrong    = wire.E(wire.Unauthenticated, "wrong user name or password")
	errDisabled = wire.E(wire.Forbidden, "this account is disabled")
	errTaken    = wire.E(wire.UsernameTaken, "this user name is taken")
	errRefresh  = wire.E(wire.Unauthenticated, "the refresh token is not valid; log in again")
)

// Register makes a user.
func (s *Service) Register(ctx context.Context, c api.Credentials) (api.User, error) {
	name, err := room.Name(c.Username)
	if err != nil {
		return api.User{}, wire.E(wire.InvalidUsername, err.Error())
	}
	if err := checkPassword(c.Password); err != nil {
		return api.User{}, err
	}
	// Before the hash, which costs a thousand times as much.
	taken, err := s.Store.Taken(ctx, name)
	if err != nil {
		return api.User{}, s.away("register", err)
	}
	if taken {
		return api.User{}, errTaken
	}
	u, err := s.Add(ctx, name, c.Password, false)
	switch {
	case errors.Is(err, store.ErrTaken):
		return api.User{}, errTaken
	case err != nil:
		return api.User{}, s.away("register", err)
	}
	s.Metrics.registrations.Inc()
	return api.User{Username: u.Username}, nil
}

func checkPassword(pw string) error {
	if len(pw) > maxPasswordBytes || utf8.RuneCountInString(pw) < minPasswordChars {
		return wire.E(wire.InvalidArgument, fmt.Sprintf("a password has at least %d characters and at most %d bytes", minPasswordChars, maxPasswordBytes))
	}
	return nil
}

// SetPassword gives a user another password and ends all logins. It may be repeated.
func (s *Service) SetPassword(ctx context.Context, name, pw string) (ended int, err error) {
	if err := checkPassword(pw); err != nil {
		return 0, err
	}
	phc, err := s.Pool.Hash(ctx, pw)
	if err != nil {
		return 0, err
	}
	u, err := s.Store.SetPassword(ctx, name, phc)
	if err != nil {
		return 0, err
	}
	// After SQL: no login begins with the old password any more.
	r, err := s.EndAll(ctx, api.EndLoginsRequest{Username: u.Username})
	return r.Ended, err
}

// Add makes a user with any password; store.ErrTaken when there is one of that name.
func (s *Service) Add(ctx context.Context, name, password string, admin bool) (store.User, error) {
	phc, err := s.Pool.Hash(ctx, password)
	if err != nil {
		return store.User{}, err
	}
	u, err := s.Store.AddUser(ctx, name, phc, admin, s.Now())
	if err != nil {
		return store.User{}, err
	}
	s.Announce(api.DirectoryEvent{Kind: api.EventRegistered, Username: u.Username})
	return u, nil
}

// Login begins a login.
func (s *Service) Login(ctx context.Context, c api.Credentials) (api.Tokens, error) {
	t, err := s.login(ctx, c)
	s.Metrics.logins.WithLabelValues(outcome(err)).Inc()
	return t, err
}

func (s *Service) login(ctx context.Context, c api.Credentials) (api.Tokens, error) {
	if c.Scope == "" {
		c.Scope = token.ScopeNative
	}
	if c.Scope != token.ScopeNative && c.Scope != token.ScopeSeed {
		return api.Tokens{}, wire.E(wire.InvalidArgument, "unknown scope")
	}
	u, err := s.throttled(ctx, c)
	if err != nil {
		return api.Tokens{}, err
	}
	return s.begin(ctx, u, c.Scope)
}

// Check is a login that gives nothing but its outcome.
func (s *Service) Check(ctx context.Context, c api.Credentials) (api.CheckResponse, error) {
	u, err := s.throttled(ctx, c)
	s.Metrics.logins.WithLabelValues(outcome(err)).Inc()
	return api.CheckResponse{Username: u.Username, Admin: u.Admin}, err
}

// throttled gives the user of credentials that are right.
func (s *Service) throttled(ctx context.Context, c api.Credentials) (store.User, error) {
	// Neither is the name or the password of anybody; saying so at once tells nothing about who is registered.
	name, err := room.Name(c.Username)
	if err != nil || len(c.Password) > maxPasswordBytes {
		return store.User{}, errWrong
	}
	try, err := s.Throttle.Begin(ctx, name, c.Address, s.Now())
	if err != nil {
		return store.User{}, s.away("log in", err)
	}
	u, ok, err := s.check(ctx, name, c.Password)
	if err != nil {
		// The asker may be gone; the charge must come back all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := try.Abandoned(ctx); err != nil {
			s.Log.Warn("a throttle keeps a charge", "error", err)
		}
		return store.User{}, s.away("log in", err)
	}
	if !ok {
		if err := try.Failed(ctx, s.Now()); err != nil {
			return store.User{}, s.away("log in", err)
		}
		return store.User{}, errWrong
	}
	if err := try.Succeeded(ctx); err != nil {
		return store.User{}, s.away("log in", err)
	}
	if u.Disabled {
		return store.User{}, errDisabled
	}
	return u, nil
}

// Begin begins a login without a password, for a program of this very process.
func (s *Service) Begin(ctx context.Context, name string) (api.Tokens, error) {
	u, err := s.Store.UserByName(ctx, name)
	if err != nil {
		return api.Tokens{}, fmt.Errorf("begin a login: %w", err)
	}
	return s.begin(ctx, u, token.ScopeNative)
}

// check compares a password; an unknown user costs as much as a known one.
func (s *Service) check(ctx context.Context, name, pw string) (store.User, bool, error) {
	u, err := s.Store.UserByName(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNoUser) {
		return store.User{}, false, err
	}
	ok, err := s.Pool.Verify(ctx, u.Password, pw)
	return u, ok && u.ID != 0, err
}

func (s *Service) begin(ctx context.Context, u store.User, scope string) (api.Tokens, error) {
	now := s.Now()
	l := store.Login{SID: random(16), User: u, Scope: scope, Created: now, Expires: now.Add(s.Lives.Seed)}
	refresh := ""
	if scope != token.ScopeSeed {
		refresh = random(32)
		l.Expires = now.Add(s.Lives.Refresh)
	}
	switch err := s.Store.AddLogin(ctx, l, refresh); {
	case errors.Is(err, store.ErrNoUser): // disabled or erased since the password was compared
		return api.Tokens{}, errWrong
	case err != nil:
		return api.Tokens{}, s.away("log in", err)
	}
	return s.tokens(l, refresh, now)
}

// Refresh trades a refresh token for new tokens. One that was used before has been stolen, or its successor
// was: the whole login ends.
func (s *Service) Refresh(ctx context.Context, r api.RefreshRequest) (api.Tokens, error) {
	t, reused, err := s.refresh(ctx, r.RefreshToken)
	if reused {
		s.Metrics.refreshes.WithLabelValues("reused").Inc()
	} else {
		s.Metrics.refreshes.WithLabelValues(outcome(err)).Inc()
	}
	return t, err
}

func (s *Service) refresh(ctx context.Context, tok string) (t api.Tokens, reused bool, err error) {
	if tok == "" || len(tok) > 256 {
		return t, false, errRefresh
	}
	now := s.Now()
	next := random(32)
	l, err := s.Store.Rotate(ctx, tok, next, now, now.Add(s.Lives.Refresh))
	switch {
	case errors.Is(err, store.ErrNoLogin):
		return t, false, errRefresh
	case errors.Is(err, store.ErrReused):
		// The gateways first: should SQL fail then, the token is still known as used, and another try comes here again.
		if err := s.Revoker.RevokeLogin(ctx, l.SID, s.Lives.Of(l.Scope), now); err != nil {
			return t, true, s.away("revoke a login", err)
		}
		if err := s.Store.EndLogin(ctx, l.SID); err != nil {
			return t, true, s.away("end a login", err)
		}
		s.Log.Warn("a refresh token was used twice; its login was ended", "user", l.User.Username, "sid", l.SID)
		return t, true, errRefresh
	case err != nil:
		return t, false, s.away("refresh", err)
	}
	t, err = s.tokens(l, next, now)
	return t, false, err
}

// Logout ends a login: its refresh tokens first, then, at every gateway, its access tokens. In this order an asker whose
// first try failed half-way still has a valid access token to ask again with.
func (s *Service) Logout(ctx context.Context, r api.LogoutRequest) (api.Empty, error) {
	if r.SID == "" || len(r.SID) > 64 || !plain(r.SID) {
		return api.Empty{}, wire.E(wire.InvalidArgument, "not a login")
	}
	life := s.Lives.Longest()
	switch scope, err := s.Store.LoginScope(ctx, r.Username, r.SID); {
	case err == nil:
		life = s.Lives.Of(scope)
		if err := s.Store.EndLogin(ctx, r.SID); err != nil {
			return api.Empty{}, s.away("log out", err)
		}
	case !errors.Is(err, store.ErrNoLogin):
		return api.Empty{}, s.away("log out", err)
	}
	if err := s.Revoker.RevokeLogin(ctx, r.SID, life, s.Now()); err != nil {
		return api.Empty{}, s.away("log out", err)
	}
	return api.Empty{}, nil
}

// EndAll ends all logins of a user.
func (s *Service) EndAll(ctx context.Context, r api.EndLoginsRequest) (api.EndLoginsResponse, error) {
	u, err := s.Store.UserByName(ctx, r.Username)
	switch {
	case errors.Is(err, store.ErrNoUser):
		return api.EndLoginsResponse{}, wire.E(wire.UnknownUser, "nobody has this name")
	case err != nil:
		return api.EndLoginsResponse{}, s.away("end logins", err)
	}
	sids, err := s.Store.LoginsOf(ctx, u.ID, s.Now())
	if err != nil {
		return api.EndLoginsResponse{}, s.away("end logins", err)
	}
	// One by one and not the user as a whole: a login that begins in this very second stays good.
	for _, sid := range sids {
		// The gateways first: should SQL fail then, the login is still there for another try.
		if err := s.Revoker.RevokeLogin(ctx, sid, s.Lives.Longest(), s.Now()); err != nil {
			return api.EndLoginsResponse{}, s.away("end logins", err)
		}
		if err := s.Store.EndLogin(ctx, sid); err != nil {
			return api.EndLoginsResponse{}, s.away("end logins", err)
		}
	}
	return api.EndLoginsResponse{Username: u.Username, Ended: len(sids)}, nil
}

func (s *Service) tokens(l store.Login, refresh string, now time.Time) (api.Tokens, error) {
	life := s.Lives.Of(l.Scope)
	scope := l.Scope
	if l.User.Admin {
		scope += " " + token.ScopeAdmin
	}
	access, err := s.Signer.Sign(token.Claims{
		Username: l.User.Username, UID: l.User.ID, SID: l.SID, Scope: scope, Issued: now, Expires: now.Add(life),
	})
	if err != nil {
		return api.Tokens{}, fmt.Errorf("make tokens: %w", err)
	}
	return api.Tokens{AccessToken: access, RefreshToken: refresh, ExpiresIn: int64(life / time.Second), Username: l.User.Username}, nil
}

// away makes an answer of an inside error: what is no answer yet means that something we need is away.
func (s *Service) away(what string, err error) error {
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		return e
	}
	if errors.Is(err, password.ErrBusy) {
		e := wire.E(wire.RateLimited, "too many logins at this moment; try again")
		e.RetryAfterMS = 1000 + time.Now().UnixNano()%2000 // spread, so that they do not all come back at once
		return e
	}
	s.Log.Warn("cannot "+what, "error", err)
	return api.ErrUnavailable
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// plain reports whether s may be part of a KV key as it is.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if !(c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return true
}
