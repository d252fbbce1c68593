package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIntoReplacesWhatIsBetweenTheMarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n"+Begin+"\nold\n"+End+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Report{Machine: "two cores"}
	r.Budget(Budget{What: "speed", Budget: "≤ 1", Relay: "1", Parley: "2"})
	r.Table(&Table{Title: "Detail", Head: []string{"a", "b"}}).Row("1", "2")
	for range 2 { // the second time finds its own
		if err := r.Into(path, false); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + Begin + "\ntwo cores\n\n| what | budget | relay | Parley | met |\n|---|---|---|---|---|\n| speed | ≤ 1 | 1 | 2 | **no** |\n\n" +
		"### Detail\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + End + "\nafter\n"
	if string(b) != want {
		t.Fatalf("got:\n%s\nwant:\n%s", b, want)
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Into(path, false); err == nil || !strings.Contains(err.Error(), "marks") {
		t.Fatalf("got %v", err)
	}
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		Count(0): "0", Count(999): "999", Count(1000): "1,000", Count(1234567): "1,234,567",
		Ms(1_234_000): "1.23 ms", Us(75_400): "75 µs", KB(10240): "10.0 KB", Times(9, 3): "3.00×", Times(300, 2): "150×",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestIntoReplacesSomeTables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	whole := &Report{Machine: "two cores"}
	for _, title := range []string{"One", "Two"} {
		whole.Table(&Table{Title: title, Head: []string{"a"}}).Row("old " + title)
	}
	if err := os.WriteFile(path, []byte(Begin+"\n"+End+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := whole.Into(path, false); err != nil {
		t.Fatal(err)
	}
	part := &Report{Machine: "four cores"}
	for _, title := range []string{"One", "Three"} {
		part.Table(&Table{Title: title, Head: []string{"a"}}).Row("new " + title)
	}
	for range 2 { // the second time finds its own
		if err := part.Into(path, true); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const apart = "Measured apart from the other tables: four cores\n\n"
	want := Begin + "\ntwo cores\n\n### One\n\n" + apart + "| a |\n|---|\n| new One |\n\n### Two\n\n| a |\n|---|\n| old Two |\n\n" +
		"### Three\n\n" + apart + "| a |\n|---|\n| new Three |\n\n" + End + "\n"
	if string(b) != want {
		t.Fatalf("got:\n%s\nwant:\n%s", b, want)
	}
}
