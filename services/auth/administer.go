package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/sqldb"
	"parley.example/pkg/subject"
	"parley.example/pkg/token"
	"parley.example/services/auth/internal/buckets"
	"parley.example/services/auth/internal/login"
	"parley.example/services/auth/internal/password"
	"parley.example/services/auth/internal/store"
)

// Admin changes users from inside: nothing on the network reaches it. Its errors for the asker's sake are *wire.Error; after any other one,
// what failed may be repeated.
type Admin struct {
	store    *store.Store
	logins   *login.Service
	buckets  *buckets.Buckets
	announce func(api.DirectoryEvent)
	close    func() error
}

// OpenAdmin administers the users of a deployment beside its services, over its SQL and NATS. It changes no schema. Users can be listed and
// exported while NATS is away.
func OpenAdmin(sql sqldb.Config, nc *nats.Conn, log *slog.Logger) (*Admin, error) {
	st, err := store.Open(sql)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Admin, error) { return nil, errors.Join(err, st.Close()) }
	reg := prometheus.NewRegistry() // nobody reads it
	pool, err := password.NewPool(1, 1, reg)
	if err != nil {
		return fail(err)
	}
	metrics, err := login.NewMetrics(reg)
	if err != nil {
		return fail(err)
	}
	// A revocation lives as long as the bucket lets it, which auth has made for its longest token.
	const life = token.MaxLife
	b, err := buckets.New(nc, 1, life)
	if err != nil {
		return fail(err)
	}
	announce := announcer(nc, log)
	return &Admin{
		store: st, buckets: b, announce: announce, close: st.Close,
		logins: &login.Service{
			Store: st, Pool: pool, Revoker: b, Lives: login.Lives{Access: life, Refresh: life, Legacy: life},
			Log: log, Announce: announce, Now: time.Now, Metrics: metrics,
		},
	}, nil
}

// Close ends what OpenAdmin began.
func (a *Admin) Close() error {
	if a.close == nil {
		return nil
	}
	return a.close()
}

// announcer tells the gateways. It is a hint: they read everything again within a minute or so.
func announcer(nc *nats.Conn, log *slog.Logger) func(api.DirectoryEvent) {
	return func(e api.DirectoryEvent) {
		body, err := json.Marshal(e)
		if err == nil {
			err = nc.Publish(subject.DirectoryEvents, body)
		}
		if err != nil {
			log.Warn("an event was not published", "kind", e.Kind, "error", fmt.Errorf("announce: %w", err))
		}
	}
}

// Account is a user as the administration sees it.
type Account struct {
	Username string     `json:"username"`
	Admin    bool       `json:"admin,omitempty"`
	Created  time.Time  `json:"created"`
	Disabled *time.Time `json:"disabled,omitempty"`
}

func account(a store.Account) Account {
	out := Account{Username: a.Username, Admin: a.Admin, Created: a.Created.UTC()}
	if !a.Disabled.IsZero() {
		at := a.Disabled.UTC()
		out.Disabled = &at
	}
	return out
}

// List is a page of all users by name; next is what to ask after, "" on the last page.
func (a *Admin) List(ctx context.Context, after string, limit int) (list []Account, next string, err error) {
	rows, err := a.store.Accounts(ctx, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = rows[limit-1].Folded
	}
	for _, r := range rows {
		list = append(list, account(r))
	}
	return list, next, nil
}

// Find is one user, by a name in any case.
func (a *Admin) Find(ctx context.Context, name string) (Account, error) {
	r, err := a.store.Account(ctx, name)
	if err != nil {
		return Account{}, known(err)
	}
	return account(r), nil
}

// Add registers a user.
func (a *Admin) Add(ctx context.Context, name, password string) (string, error) {
	u, err := a.logins.Register(ctx, api.Credentials{Username: name, Password: password})
	return u.Username, err
}

// SetPassword gives a user another password and ends all logins; ended says how many there were.
func (a *Admin) SetPassword(ctx context.Context, name, password string) (ended int, err error) {
	ended, err = a.logins.SetPassword(ctx, name, password)
	return ended, known(err)
}

// SetDisabled locks a user out, at once and everywhere, or lets them in again.
func (a *Admin) SetDisabled(ctx context.Context, name string, disabled bool) error {
	u, err := a.store.SetDisabled(ctx, name, disabled, time.Now())
	if err != nil {
		return known(fmt.Errorf("disable a user: %w", err))
	}
	a.announce(api.DirectoryEvent{Kind: api.EventRelations, Username: u.Username})
	if !disabled {
		return a.buckets.LetIn(ctx, u.Username)
	}
	// After SQL, so that no token is given later than the revocation says.
	return a.buckets.LockOut(ctx, u.Username, time.Now())
}

// Erase forgets a user; only the name stays, taken for ever. What the user said is history's to erase, before this: then a try that fails in
// the middle can be repeated, for the user is still there.
func (a *Admin) Erase(ctx context.Context, name string) error {
	// Disabled first: should NATS fail, the user is still there to be erased by a second try.
	if err := a.SetDisabled(ctx, name, true); err != nil {
		return err
	}
	u, err := a.store.Erase(ctx, name, time.Now())
	if err != nil {
		return known(fmt.Errorf("erase a user: %w", err))
	}
	a.announce(api.DirectoryEvent{Kind: api.EventErased, Username: u.Username})
	return nil
}

// Personal is what auth keeps of a user, but for the hash of the password.
type Personal struct {
	Account  Account    `json:"account"`
	Logins   []Login    `json:"logins"`
	Contacts []Relation `json:"contacts"`
	Blocks   []Relation `json:"blocks"`
}

// Login of a user.
type Login struct {
	ID      string    `json:"id"`
	Scope   string    `json:"scope"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Relation to another user. State: "contact", "requested" by the user, "asked" by the peer, "blocked".
type Relation struct {
	Username string    `json:"username"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
}

// Personal reads all that auth keeps of a user.
func (a *Admin) Personal(ctx context.Context, name string) (Personal, error) {
	r, err := a.store.Account(ctx, name)
	if err != nil {
		return Personal{}, known(err)
	}
	logins, contacts, blocks, err := a.store.Personal(ctx, r.ID)
	if err != nil {
		return Personal{}, err
	}
	p := Personal{Account: account(r), Logins: []Login{}, Contacts: []Relation{}, Blocks: []Relation{}}
	for _, l := range logins {
		p.Logins = append(p.Logins, Login{l.SID, l.Scope, l.Created.UTC(), l.Expires.UTC()})
	}
	for _, c := range contacts {
		state := "contact"
		switch {
		case !c.Accepted && c.Mine:
			state = "requested"
		case !c.Accepted:
			state = "asked"
		}
		p.Contacts = append(p.Contacts, Relation{c.Peer, state, c.Since.UTC()})
	}
	for _, b := range blocks {
		p.Blocks = append(p.Blocks, Relation{b.Peer, "blocked", b.Since.UTC()})
	}
	return p, nil
}

// known gives errors that are answers their code.
func known(err error) error {
	if errors.Is(err, store.ErrNoUser) {
		return wire.E(wire.UnknownUser, "there is no such user")
	}
	return err
}
