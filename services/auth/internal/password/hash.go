// Package password hashes passwords with Argon2id, a bounded number at a time.
package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Parameters of new hashes: OWASP's recommendation for Argon2id (19 MiB, two passes, one lane).
const (
	memoryKiB = 19 * 1024
	passes    = 2
	lanes     = 1
	saltBytes = 16
	keyBytes  = 32
)

// Bounds of stored hashes, so that a row from elsewhere cannot make one login cost a gigabyte.
const (
	maxMemoryKiB = 256 * 1024
	maxPasses    = 16
)

var errFormat = errors.New("the stored hash is not one of Argon2id in PHC format")

// hash makes a PHC string: $argon2id$v=19$m=19456,t=2,p=1$salt$key.
func hash(password string) (string, error) {
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	key := argon2.IDKey(prepare(password), salt, passes, memoryKiB, lanes, keyBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memoryKiB, passes, lanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

// verify compares a password with a PHC string.
func verify(phc, password string) (bool, error) {
	f := strings.Split(phc, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false, errFormat
	}
	var m, t uint32
	var p uint8
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &m, &t, &p); err != nil || n != 3 {
		return false, errFormat
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(f[4])
	want, err2 := base64.RawStdEncoding.DecodeString(f[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(want) < 16 || len(want) > 64 || m < 8 || m > maxMemoryKiB || t < 1 || t > maxPasses || p < 1 {
		return false, errFormat
	}
	got := argon2.IDKey(prepare(password), salt, t, m, p, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// prepare makes the same bytes of the same text, however a keyboard composes it (RFC 8265, OpaqueString).
func prepare(password string) []byte { return norm.NFC.Bytes([]byte(password)) }
