package harness

import (
	"context"
	"fmt"
	"time"

	"parley.example/client"
	"parley.example/pkg/sqldb"
)

// newAccounts puts n users straight into the database, where registering them would hash as many passwords. They cannot log in; their
// tokens are minted. Gateways that run hear nothing of it.
func (v *View) newAccounts(base string, n int) []*User {
	v.t.Helper()
	db, err := sqldb.Open(sqldb.Config{URL: v.settings["sql-url"], Conns: 2})
	if err != nil {
		v.t.Fatalf("open the database: %v", err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tx, err := db.Write.BeginTx(ctx, nil)
	if err != nil {
		v.t.Fatalf("add users: %v", err)
	}
	defer tx.Rollback() //nolint:errcheck // committed below
	users := make([]*User, n)
	for i := range users {
		u := &User{Name: fmt.Sprintf("%s-%d", base, v.names.Add(1)), v: v}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_users (username, folded, plain, password, created) VALUES ($1, $1, $1, 'none', 1)`, u.Name); err != nil {
			v.t.Fatalf("add %s: %v", u.Name, err)
		}
		u.Tokens = client.Tokens{AccessToken: u.Mint(time.Now().Add(time.Hour)), ExpiresIn: 3600, Username: u.Name}
		users[i] = u
	}
	if err := tx.Commit(); err != nil {
		v.t.Fatalf("add users: %v", err)
	}
	return users
}
