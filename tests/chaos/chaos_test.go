// Package chaos breaks everything that can be broken under people who chat, and then looks whether every promise was kept.
package chaos

import (
	"os"
	"testing"

	"parley/tests/chaos/checker"
	"parley/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// byHand marks what `make chaos` runs and `make test` does not: each takes a minute or more.
func byHand(t *testing.T) {
	t.Helper()
	if os.Getenv("PARLEY_CHAOS") == "" {
		t.Skip("make chaos runs it")
	}
}

// judge checks a history and prints the shrunk rooms of the first violations of each kind.
func judge(t *testing.T, h *checker.History) {
	t.Helper()
	bad := checker.Check(h)
	kinds := map[string]int{}
	for _, v := range bad {
		if kinds[v.What]++; kinds[v.What] <= 2 {
			t.Errorf("%s", checker.Show(h, v))
		}
	}
	for what, n := range kinds {
		t.Errorf("%d × %s", n, what)
	}
}
