// Package keyfile finds the key that signs tokens: in the configuration, or in a file that it makes when
// there is none.
package keyfile

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrKey says what a key looks like. It never quotes the text.
var ErrKey = errors.New("a signing key is 32 bytes in base64")

// Parse reads a key: base64 of 32 bytes, the secret of an Ed25519 key (RFC 8032), in any of base64's usual alphabets.
func Parse(text string) (ed25519.PrivateKey, error) {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSpace(text)), "=")
	secret, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(secret) != ed25519.SeedSize {
		return nil, ErrKey
	}
	return ed25519.NewKeyFromSeed(secret), nil
}

// Load reads the key in the file at path, and makes file and key when there is none. Of several processes that
// do so at once all get the same key.
func Load(path string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, err
		}
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	key, err := Parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("read the signing key in %s: %w", path, err)
	}
	return key, nil
}

// create writes beside the place and links, so that nobody ever reads half a key and nobody's key is overwritten.
func create(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for the signing key: %w", err)
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("make the signing key: %w", err)
	}
	defer os.Remove(f.Name())
	secret := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(secret) // it never fails
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(secret))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the signing key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("put the signing key in place: %w", err)
	}
	return nil
}
