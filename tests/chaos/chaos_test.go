//go:build chaos

// Package chaos breaks everything that can be broken under people who chat, and then looks whether every promise was kept.
package chaos

import (
	"os"
	"testing"

	"parley.example/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// byHand marks what `make chaos` runs and `make test` does not: each takes a minute or more.
func byHand(t *testing.T) {
	t.Helper()
	if os.Getenv("PARLEY_CHAOS") == "" {
		t.Skip("make chaos runs it")
	}
}
