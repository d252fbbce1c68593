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

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/auth/internal/password"
	"parley.example/services/auth/internal/store"
	"parley.example/services/auth/internal/throttle"
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
	Legacy  time.Duration // of an access token of the old clients, which cannot refresh
	Grace   time.Duration // of a refresh token after the first use of what it was traded for
}

// Of is the life of an access token of that scope.
func (l Lives) Of(scope string) time.Duration {
	if scope == token.ScopeLegacy {
		return l.Legacy
	}
	return l.Access
}

// Longest life of any access token.
func (l Lives) Longest() time.Duration { return max(l.Access, l.Legacy) }

// Revoker makes access tokens void at every gateway: those of a login, or those of a user's logins that began up to then.
type Revoker interface {
	RevokeLogin(ctx context.Context, sid string, life time.Duration, now time.Time) error
	RevokeBegan(ctx context.Context, username string, upTo time.Time) error
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
	m.refreshes.WithLabelValues("again")
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
	// From here on no login begins with the old password any more.
	u, began, err := s.Store.SetPassword(ctx, name, phc, s.Now())
	if err != nil {
		return 0, err
	}
	return s.endAll(ctx, u, began)
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
	if c.Scope != token.ScopeNative && c.Scope != token.ScopeLegacy {
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

// HasPassword reports whether a user may log in with that password.
func (s *Service) HasPassword(ctx context.Context, name, pw string) (bool, error) {
	u, err := s.Store.UserByName(ctx, name)
	if errors.Is(err, store.ErrNoUser) || err == nil && u.Disabled {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return s.Pool.Verify(ctx, u.Password, pw)
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
	l := store.Login{SID: random(16), User: u, Scope: scope, Created: now, Expires: now.Add(s.Lives.Legacy)}
	refresh := ""
	if scope != token.ScopeLegacy {
		refresh = random(32)
		l.Expires = now.Add(s.Lives.Refresh)
	}
	l, err := s.Store.AddLogin(ctx, l, refresh)
	switch {
	case errors.Is(err, store.ErrNoUser): // disabled or erased since the password was compared
		return api.Tokens{}, errWrong
	case err != nil:
		return api.Tokens{}, s.away("log in", err)
	}
	if err := s.endSurplus(ctx, u); err != nil {
		// The rows stay as long as their tokens may be good: the next login tries again, and a change of the password finds them.
		s.Log.Warn("logins beyond the limit were not ended", "user", u.Username, "error", err)
	}
	return s.tokens(l, refresh, 0, now)
}

// endSurplus ends the oldest logins of a user who has too many.
func (s *Service) endSurplus(ctx context.Context, u store.User) error {
	began, any, err := s.Store.Surplus(ctx, u.ID)
	if err != nil || !any {
		return err
	}
	// One entry a user, however many logins go: it does not fill the list of revocations.
	if err := s.Revoker.RevokeBegan(ctx, u.Username, began); err != nil {
		return err
	}
	return s.Store.EndLoginsUpTo(ctx, u.ID, began)
}

// Refresh trades a refresh token for new tokens. One whose successor is in use has been stolen, or its successor
// was: the whole login ends.
func (s *Service) Refresh(ctx context.Context, r api.RefreshRequest) (api.Tokens, error) {
	t, as, err := s.refresh(ctx, r.RefreshToken)
	if as == "" {
		as = outcome(err)
	}
	s.Metrics.refreshes.WithLabelValues(as).Inc()
	return t, err
}

// refresh says what to count it as, unless its error does.
func (s *Service) refresh(ctx context.Context, tok string) (t api.Tokens, as string, err error) {
	if tok == "" || len(tok) > 256 {
		return t, "", errRefresh
	}
	now := s.Now()
	r, err := s.Store.Rotate(ctx, tok, random(32), now, now.Add(s.Lives.Refresh), s.Lives.Grace)
	l := r.Login
	switch {
	case errors.Is(err, store.ErrNoLogin):
		return t, "", errRefresh
	case errors.Is(err, store.ErrReused):
		// The gateways first: should SQL fail then, the token is still known as used, and another try comes here again.
		if err := s.Revoker.RevokeLogin(ctx, l.SID, s.Lives.Of(l.Scope), now); err != nil {
			return t, "reused", s.away("revoke a login", err)
		}
		if err := s.Store.EndLogin(ctx, l.SID); err != nil {
			return t, "reused", s.away("end a login", err)
		}
		s.Log.Warn("a refresh token was used after its successor; its login was ended", "user", l.User.Username, "sid", l.SID)
		return t, "reused", errRefresh
	case err != nil:
		return t, "", s.away("refresh", err)
	}
	if r.Again {
		as = "again"
	}
	t, err = s.tokens(l, r.Token, r.Turn, now)
	return t, as, err
}

// Used notes the first use of access tokens. One that cannot be noted is told again.
func (s *Service) Used(ctx context.Context, r api.UsedRequest) (api.Empty, error) {
	if len(r.Uses) > api.MaxUses {
		return api.Empty{}, wire.E(wire.InvalidArgument, "too many at a time")
	}
	for _, u := range r.Uses {
		if err := s.Store.Used(ctx, u.SID, u.Turn, s.Now()); err != nil {
			return api.Empty{}, s.away("note the use of a token", err)
		}
	}
	return api.Empty{}, nil
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
	began, err := s.Store.VoidLogins(ctx, u.ID, s.Now())
	if err != nil {
		return api.EndLoginsResponse{}, s.away("end logins", err)
	}
	ended, err := s.endAll(ctx, u, began)
	return api.EndLoginsResponse{Username: u.Username, Ended: ended}, err
}

// endAll ends the logins of a user that began up to then, also those that SQL knows nothing of.
func (s *Service) endAll(ctx context.Context, u store.User, began time.Time) (ended int, err error) {
	// The gateways first: should SQL fail then, the logins are still there for another try.
	if err := s.Revoker.RevokeBegan(ctx, u.Username, began); err != nil {
		return 0, s.away("end logins", err)
	}
	sids, err := s.Store.LoginsOf(ctx, u.ID, began)
	if err != nil {
		return 0, s.away("end logins", err)
	}
	for _, sid := range sids {
		// For gateways of the version before, which know of no time before which all is void.
		if err := s.Revoker.RevokeLogin(ctx, sid, s.Lives.Longest(), s.Now()); err != nil {
			return 0, s.away("end logins", err)
		}
		if err := s.Store.EndLogin(ctx, sid); err != nil {
			return 0, s.away("end logins", err)
		}
	}
	return len(sids), nil
}

func (s *Service) tokens(l store.Login, refresh string, turn int64, now time.Time) (api.Tokens, error) {
	life := s.Lives.Of(l.Scope)
	scope := l.Scope
	if l.User.Admin {
		scope += " " + token.ScopeAdmin
	}
	access, err := s.Signer.Sign(token.Claims{
		Username: l.User.Username, UID: l.User.ID, SID: l.SID, Scope: scope, Issued: now, Expires: now.Add(life), Began: l.Created, Turn: turn,
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
	return rpc.ErrUnavailable
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
