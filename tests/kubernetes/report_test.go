//go:build kubernetes

package kubernetes

import (
	"fmt"
	"os"
	"strings"
	"time"

	"parley.example/tests/chaos/checker"
)

// report collects the figures of a run.
type report struct {
	facts  [][2]string
	rows   []row
	totals []string
}

// row is one event under load.
type row struct {
	what     string
	took     time.Duration
	presence time.Duration
	from, to time.Duration // on the load's clock
	seen     checker.Interval
}

func (r *report) fact(what, format string, args ...any) {
	r.facts = append(r.facts, [2]string{what, fmt.Sprintf(format, args...)})
}

func (r *report) String() string {
	var b strings.Builder
	if len(r.facts) > 0 {
		b.WriteString("| what | figure |\n|---|---|\n")
		for _, f := range r.facts {
			fmt.Fprintf(&b, "| %s | %s |\n", f[0], f[1])
		}
	}
	if len(r.rows) > 0 {
		b.WriteString("\n| event | took | accepted meanwhile | connections ended | longest reconnect | longest send → accepted | presence true after |\n|---|---|---|---|---|---|---|\n")
		for _, w := range r.rows {
			fmt.Fprintf(&b, "| %s | %.0f s | %d | %d | %.1f s | %.1f s | %.1f s |\n", w.what, w.took.Seconds(), w.seen.Accepted, w.seen.Broken, w.seen.Reconnect.Seconds(), w.seen.Accept.Seconds(), w.presence.Seconds())
		}
	}
	if len(r.totals) > 0 {
		b.WriteString("\n")
	}
	for _, l := range r.totals {
		b.WriteString("- " + l + "\n")
	}
	return b.String()
}

const (
	markBegin = "<!-- make test-kubernetes writes this -->"
	markEnd   = "<!-- until here -->"
)

// into replaces what lies between the page's markers.
func (r *report) into(page string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no markers %q … %q", page, markBegin, markEnd)
	}
	return os.WriteFile(page, []byte(before+markBegin+"\n"+r.String()+markEnd+after), 0o644)
}
