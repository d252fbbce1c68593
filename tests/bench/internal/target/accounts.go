package target

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"golang.org/x/crypto/argon2"

	"parley.example/pkg/sqldb"
)

// Password of all accounts.
const Password = "benchmark-1"

// hash is that password as auth keeps it, computed once: one salt for all is as good as many here.
func hash() string {
	const memory, passes, lanes = 19 << 10, 2, 1
	salt := []byte("0123456789abcdef")
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, lanes,
		enc.EncodeToString(salt), enc.EncodeToString(argon2.IDKey([]byte(Password), salt, passes, memory, lanes, 32)))
}

// addUsers puts u0, u1, … straight into the database: to register them would take 25 ms of CPU each, by design.
func addUsers(url string, n int) error {
	db, err := sqldb.Open(sqldb.Config{URL: url, Conns: 2})
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = db.Write.ExecContext(ctx, `
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1)
INSERT INTO auth_users (username, folded, plain, password, created) SELECT 'u' || CAST(i AS TEXT), 'u' || CAST(i AS TEXT), 'u' || CAST(i AS TEXT), $2, 1 FROM n`, n, hash())
	if err != nil {
		return fmt.Errorf("add users: %w", err)
	}
	return nil
}

// addContacts makes each user a contact of the n/2 before and the n/2 after it, round and round.
func addContacts(url string, users, n int) error {
	db, err := sqldb.Open(sqldb.Config{URL: url, Conns: 2})
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for d := 1; d <= n/2; d++ {
		_, err = db.Write.ExecContext(ctx, `
INSERT INTO auth_contacts (user_id, peer_id, accepted, created)
SELECT a.id, b.id, 1, 1 FROM (SELECT id, CAST(SUBSTR(username, 2) AS INTEGER) AS i FROM auth_users) a
JOIN (SELECT id, CAST(SUBSTR(username, 2) AS INTEGER) AS i FROM auth_users) b ON b.i = (a.i + CAST($1 AS INTEGER)) % CAST($2 AS INTEGER)
UNION ALL
SELECT b.id, a.id, 1, 1 FROM (SELECT id, CAST(SUBSTR(username, 2) AS INTEGER) AS i FROM auth_users) a
JOIN (SELECT id, CAST(SUBSTR(username, 2) AS INTEGER) AS i FROM auth_users) b ON b.i = (a.i + CAST($1 AS INTEGER)) % CAST($2 AS INTEGER)`, d, users)
		if err != nil {
			return fmt.Errorf("add contacts: %w", err)
		}
	}
	// A database that has been running knows its tables.
	if _, err := db.Write.ExecContext(ctx, `ANALYZE`); err != nil {
		return fmt.Errorf("analyze the contacts: %w", err)
	}
	return nil
}

// User is the name of account i.
func User(i int) string { return fmt.Sprintf("u%d", i) }
