// Package report collects what was measured and prints it as Markdown.
package report

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Budget is one line of the summary: a promise of the design in figures, and what was measured.
type Budget struct {
	What, Budget, Relay, Parley string
	Met                         bool
}

// Table is the detail of a scenario.
type Table struct {
	Title string
	Note  string
	Head  []string
	Rows  [][]string
}

// Row adds one.
func (t *Table) Row(cells ...string) { t.Rows = append(t.Rows, cells) }

// Report is a whole run.
type Report struct {
	Machine string
	budgets []Budget
	tables  []*Table
}

// Budget adds a line of the summary.
func (r *Report) Budget(b Budget) { r.budgets = append(r.budgets, b) }

// Table adds a table, which may be filled later.
func (r *Report) Table(t *Table) *Table {
	r.tables = append(r.tables, t)
	return t
}

// Write prints it all.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", r.Machine)
	if len(r.budgets) > 0 {
		sum := Table{Head: []string{"what", "budget", "relay", "Parley", "met"}}
		for _, x := range r.budgets {
			met := "**no**"
			if x.Met {
				met = "yes"
			}
			sum.Row(x.What, x.Budget, x.Relay, x.Parley, met)
		}
		sum.write(&b)
	}
	for _, t := range r.tables {
		t.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) write(b *strings.Builder) {
	if t.Title != "" {
		fmt.Fprintf(b, "### %s\n\n", t.Title)
	}
	if t.Note != "" {
		fmt.Fprintf(b, "%s\n\n", t.Note)
	}
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(t.Head, " | "), strings.Repeat("---|", len(t.Head)))
	for _, row := range t.Rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteByte('\n')
}

// Marks between which Into puts the report.
const (
	Begin = "<!-- bench: begin -->"
	End   = "<!-- bench: end -->"
)

// Into replaces what is between the marks of a file; part: only the tables that the report has, each with a word on where it comes from.
func (r *Report) Into(path string, part bool) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page of results: %w", err)
	}
	head, rest, ok1 := strings.Cut(string(old), Begin)
	kept, tail, ok2 := strings.Cut(rest, End)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no marks %s and %s", path, Begin, End)
	}
	var b strings.Builder
	b.WriteString(head + Begin + "\n")
	if part {
		b.WriteString(r.among(strings.TrimPrefix(kept, "\n")))
	} else if err := r.Write(&b); err != nil {
		return err
	}
	b.WriteString(End + tail)
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil { //nolint:gosec // a page for everybody
		return fmt.Errorf("write the page of results: %w", err)
	}
	return nil
}

// among puts the tables in the place of those of the same title, or behind all others.
func (r *Report) among(old string) string {
	const title = "### "
	sections := strings.Split(strings.TrimSuffix(old, "\n"), "\n"+title)
	for _, t := range r.tables {
		from := *t
		from.Note = strings.TrimSpace(t.Note + "\n\nMeasured apart from the other tables: " + r.Machine)
		var b strings.Builder
		from.write(&b)
		mine := strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), title)
		at := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, t.Title+"\n") })
		if at < 0 {
			sections = append(sections, mine)
		} else {
			sections[at] = mine
		}
	}
	return strings.Join(sections, "\n"+title) + "\n"
}

// Ms prints a duration in milliseconds.
func Ms(d time.Duration) string { return trim(float64(d)/1e6) + " ms" }

// Us prints a duration in microseconds.
func Us(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/1e3) }

// Seconds prints a duration in seconds.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// KB prints bytes in units of 1,024.
func KB(n float64) string { return fmt.Sprintf("%.1f KB", n/1024) }

// MB prints bytes in units of 1,048,576.
func MB(n int64) string { return fmt.Sprintf("%d MB", n>>20) }

// Times prints a ratio.
func Times(a, b float64) string { return trim(a/b) + "×" }

// Count prints a whole number with separators.
func Count(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func trim(f float64) string {
	switch {
	case f < 10:
		return fmt.Sprintf("%.2f", f)
	case f < 100:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}
