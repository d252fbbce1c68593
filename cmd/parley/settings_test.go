package main_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var writeSettings = flag.Bool("write-settings", false, "write the settings into docs/operations.md")

const (
	operations    = "../../docs/operations.md"
	settingsBegin = "<!-- settings: make settings -->\n"
	settingsEnd   = "<!-- end of settings -->\n"
)

// TestSettingsAreAllListed: the table of the settings is what the programs say of themselves.
func TestSettingsAreAllListed(t *testing.T) {
	out, err := exec.Command(binary, "config").Output()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), settingsBegin)
	have, after, ok2 := strings.Cut(rest, settingsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the settings", operations)
	}
	want := settingsTable(t, string(out))
	if *writeSettings {
		if err := os.WriteFile(operations, []byte(before+settingsBegin+want+settingsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have == want {
		return
	}
	lines := strings.Split(have, "\n")
	for line := range strings.Lines(want) {
		if line = strings.TrimSuffix(line, "\n"); !slices.Contains(lines, line) {
			t.Errorf("not in %s: %s", operations, line)
		}
	}
	t.Error("make settings writes it anew")
}

// settingsTable makes Markdown of what parley config prints. A setting that is the same in several programs is one line.
func settingsTable(t *testing.T, reference string) string {
	t.Helper()
	type setting struct{ name, def, help string }
	var all []setting
	of := map[setting][]string{}
	program, columns := "", regexp.MustCompile(`^  (--\S+) +\S+ +(\S+) +(.+)$`)
	for line := range strings.Lines(reference) {
		if m := columns.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			s := setting{m[1], m[2], m[3]}
			if of[s] == nil {
				all = append(all, s)
			}
			of[s] = append(of[s], program)
		} else if word, _, ok := strings.Cut(line, " ("); ok {
			program = word
		} else if strings.TrimSpace(line) != "" {
			t.Fatalf("parley config prints %q", line)
		}
	}
	slices.SortStableFunc(all, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("| setting | default | programs | meaning |\n|---|---|---|---|\n")
	for _, s := range all {
		def := "`" + s.def + "`"
		if s.def == "-" {
			def = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, def, strings.Join(of[s], ", "), strings.ReplaceAll(s.help, "|", `\|`))
	}
	return b.String()
}

// foreign are flags of other programs that our documents name in passing.
var foreign = []string{"--help", "--force-conflicts", "--force", "--overrides", "--replicas", "--set", "--wait"}

// TestSettingsInDocumentsExist: a flag in a sentence is one of ours.
func TestSettingsInDocumentsExist(t *testing.T) {
	out, err := exec.Command(binary, "config").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(out))
	flags := regexp.MustCompile("`(--[a-z][a-z-]*[a-z])[` =]")
	for _, file := range []string{"README.md", "docs/operations.md", "docs/socketio.md", "docs/reliability.md", "docs/kubernetes.md", "docs/clients.md", "docs/benchmarks.md"} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range flags.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(known, m[1]) && !slices.Contains(foreign, m[1]) {
				t.Errorf("%s names %s, which no program has", file, m[1])
			}
		}
	}
}
