package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"parley/pkg/api"
	"parley/services/auth/internal/store"
)

// demoUsers are the users of the system that this one follows. A bot has no password that anybody knows.
var demoUsers = []struct {
	name, password string
	admin          bool
}{
	{"Lisa", "TestMe", false},
	{"Avi", "MoreMoreMore", false},
	{"Era", "Come on", false},
	{"Tsahi", "Virtual Environment", false},
	{"Admin", "AdminPassword", true},
	{"ChatGPT", "", false},
	{"Leonid", "", false},
}

// SeedDemoUsers adds the demo users that are missing, for an installation to try things out with. Their passwords
// are public. It waits until the schema is there, so Run must be running.
func (s *Service) SeedDemoUsers(ctx context.Context) error {
	if err := s.waitMigrated(ctx); err != nil {
		return err
	}
	for _, u := range demoUsers {
		taken, err := s.store.Taken(ctx, u.name)
		if err != nil {
			return fmt.Errorf("add the demo users: %w", err)
		}
		if taken {
			continue
		}
		pw := u.password
		if pw == "" {
			pw = rand.Text()
		}
		if _, err := s.logins.Add(ctx, u.name, pw, u.admin); err != nil && !errors.Is(err, store.ErrTaken) {
			return fmt.Errorf("add the demo users: %w", err)
		}
	}
	return nil
}

// LoginAs begins a login of a user without a password. It is for programs of this process, such as a bot: nothing on the network
// reaches it.
func (s *Service) LoginAs(ctx context.Context, name string) (api.Tokens, error) {
	if err := s.waitMigrated(ctx); err != nil {
		return api.Tokens{}, err
	}
	return s.logins.Begin(ctx, name)
}

// SetDisabled locks a user out, at once and everywhere, or lets them in again. After a failure it may be repeated.
func (s *Service) SetDisabled(ctx context.Context, name string, disabled bool) error {
	if err := s.waitMigrated(ctx); err != nil {
		return err
	}
	u, err := s.store.SetDisabled(ctx, name, disabled, time.Now())
	if err != nil {
		return fmt.Errorf("disable a user: %w", err)
	}
	s.announce(api.DirectoryEvent{Kind: api.EventRelations, Username: u.Username})
	if !disabled {
		return nil
	}
	// After SQL, so that no token is given later than the revocation says.
	return s.buckets.RevokeUser(ctx, u.Username, time.Now())
}

// Erase forgets a user; only the name stays taken for ever. After a failure it may be repeated.
func (s *Service) Erase(ctx context.Context, name string) error {
	if err := s.waitMigrated(ctx); err != nil {
		return err
	}
	// Disabled first: should NATS fail, the user is still there to be erased by a second try.
	if err := s.SetDisabled(ctx, name, true); err != nil {
		return err
	}
	u, err := s.store.Erase(ctx, name, time.Now())
	if err != nil {
		return fmt.Errorf("erase a user: %w", err)
	}
	s.announce(api.DirectoryEvent{Kind: api.EventErased, Username: u.Username})
	return nil
}

func (s *Service) waitMigrated(ctx context.Context) error {
	select {
	case <-s.migrated:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the schema: %w", ctx.Err())
	}
}
