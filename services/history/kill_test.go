package history_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"parley.example/pkg/api"
)

// process runs the real program; kill ends it without a word.
func process(t *testing.T, bin, natsURL, sqlURL string) (kill func()) {
	t.Helper()
	cmd := exec.Command(bin, "--nats-url", natsURL, "--sql-url", sqlURL, "--stream-max-bytes", "67108864", "--history-lease", "2s", "--history-batch", "100", "--log-level", "error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // says that it was killed
	}
	t.Cleanup(kill)
	return kill
}

// TestIngestKilled kills the owner again and again at any point of a batch, with another replica beside it: every message is
// in SQL once, and unread counts are right.
func TestIngestKilled(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "history")
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/history").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	onBoth(t, func(t *testing.T, sqlURL string) {
		n, first, c := start(t, sqlURL)
		first.stop()
		kills := []func(){process(t, bin, n.ClientURL(), sqlURL), process(t, bin, n.ClientURL(), sqlURL)}
		for i := range 6 {
			c.burst("avi", "lisa", fmt.Sprint("m", i, "-"), 1000)
			kills[i%2]()
			c.burst("avi", "lisa", fmt.Sprint("n", i, "-"), 100)
			kills[i%2] = process(t, bin, n.ClientURL(), sqlURL)
		}
		c.settle()
		got := seqs(c.room("avi", "lisa"))
		if len(got) != 6600 || len(slices.Compact(slices.Clone(got))) != 6600 || !slices.IsSorted(got) {
			t.Errorf("%d messages, want 6600", len(got))
		}
		if r := ask(c, api.HistoryRead, readOf("lisa", "avi", got[99])); r.Unread != 6500 {
			t.Errorf("%d unread, want 6500", r.Unread)
		}
	})
}
