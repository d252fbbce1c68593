package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"parley.example/pkg/api"
	"parley.example/services/auth/internal/store"
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
	{"Leonid", "", false},
}

// AddDemoUsers adds the demo users that are missing, for an installation to try things out with. Their passwords
// are public. It waits until the schema is there, so Run must be running.
func (s *Service) AddDemoUsers(ctx context.Context) error {
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

// PublicPasswords are the demo users who still have the password that everybody knows and may log in.
func (s *Service) PublicPasswords(ctx context.Context) ([]string, error) {
	if err := s.waitMigrated(ctx); err != nil {
		return nil, err
	}
	var out []string
	for _, d := range demoUsers {
		if d.password == "" {
			continue
		}
		public, err := s.logins.HasPassword(ctx, d.name, d.password)
		if err != nil {
			return nil, fmt.Errorf("look for demo users: %w", err)
		}
		if public {
			out = append(out, d.name)
		}
	}
	return out, nil
}

// LoginAs begins a login of a user without a password. It is for programs of this process, such as a bot: nothing on the network
// reaches it.
func (s *Service) LoginAs(ctx context.Context, name string) (api.Tokens, error) {
	if err := s.waitMigrated(ctx); err != nil {
		return api.Tokens{}, err
	}
	return s.logins.Begin(ctx, name)
}

// Admin is the administration of this replica's users, once the schema is there.
func (s *Service) Admin(ctx context.Context) (*Admin, error) {
	if err := s.waitMigrated(ctx); err != nil {
		return nil, err
	}
	return &Admin{store: s.store, logins: s.logins, buckets: s.buckets, announce: s.announce}, nil
}

func (s *Service) waitMigrated(ctx context.Context) error {
	select {
	case <-s.migrated:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the schema: %w", ctx.Err())
	}
}
