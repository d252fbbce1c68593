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

func (b Budget) cells() []string {
	met := "**no**"
	if b.Met {
		met = "yes"
	}
	return []string{b.What, b.Budget, b.Relay, b.Parley, met}
}

func (b Budget) row() string { return tableRow(b.cells()) }

func tableRow(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }

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
			sum.Row(x.cells()...)
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
		b.WriteString(tableRow(row) + "\n")
	}
	b.WriteByte('\n')
}

// Marks between which Into puts the report.
const (
	Begin = "<!-- bench: begin -->"
	End   = "<!-- bench: end -->"
)

// Into replaces what is between the marks of a file. Part says that this was no whole run: what it did not measure stays, and what it
// did says where and when.
func (r *Report) Into(path string, part bool) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page of results: %w", err)
	}
	head, rest, ok1 := strings.Cut(string(old), Begin)
	results, tail, ok2 := strings.Cut(rest, End)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no marks %s and %s", path, Begin, End)
	}
	var b strings.Builder
	if part {
		b.WriteString(r.merged(strings.TrimSpace(results)))
	} else if err := r.Write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(head+Begin+"\n"+b.String()+End+tail), 0o644); err != nil { //nolint:gosec // a page for everybody
		return fmt.Errorf("write the page of results: %w", err)
	}
	return nil
}

const sectionMark = "\n### "

// merged puts the report's tables and lines in the place of those with the same title, or behind them.
func (r *Report) merged(old string) string {
	sections := strings.Split(old, sectionMark)
	for _, x := range r.budgets {
		sections[0] = put(sections[0], "| "+x.What+" |", x.row())
	}
	for _, t := range r.tables {
		own := *t
		own.Note = strings.TrimSpace(own.Note + "\n\nMeasured on its own: " + r.Machine)
		var b strings.Builder
		own.write(&b)
		text := strings.TrimPrefix(b.String(), sectionMark[1:])
		i := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, t.Title+"\n") })
		if i < 0 {
			sections = append(sections, text)
		} else {
			sections[i] = text
		}
	}
	for i := range sections {
		sections[i] = strings.TrimSpace(sections[i]) + "\n"
	}
	return strings.Join(sections, sectionMark) + "\n"
}

// put replaces the line that begins with prefix, or adds one at the end.
func put(text, prefix, line string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) }); i >= 0 {
		lines[i] = line
	} else {
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
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
