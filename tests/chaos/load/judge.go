package load

import (
	"testing"

	"parley.example/tests/chaos/checker"
)

// Judge checks a history, prints the shrunk rooms of the first violations of each kind, and gives all of them.
func Judge(t testing.TB, h *checker.History) []checker.Violation {
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
	return bad
}
