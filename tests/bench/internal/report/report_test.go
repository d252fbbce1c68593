package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReportIntoReplacesWhatIsBetweenTheMarks(t *testing.T) {
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

func TestReportOfAPartialRunKeepsTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte(Begin+"\n"+End), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := &Report{Machine: "a quiet day"}
	for _, what := range []string{"speed", "weight"} {
		whole.Budget(Budget{What: what, Parley: "2"})
		whole.Table(&Table{Title: what, Head: []string{"a"}}).Row("old")
	}
	part := &Report{Machine: "another day"}
	for _, what := range []string{"weight", "smell"} {
		part.Budget(Budget{What: what, Parley: "1", Met: true})
		part.Table(&Table{Title: what, Note: "A note.", Head: []string{"a"}}).Row("new")
	}
	var first string
	for i, r := range []*Report{whole, part, part} {
		if err := r.Into(path, r == part); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 1:
			first = string(b)
		case 2:
			if string(b) != first {
				t.Fatalf("the same again changes the page:\n%s", b)
			}
		}
	}
	section := func(name, row string) string {
		return "### " + name + "\n\nA note.\n\nMeasured on its own: another day\n\n| a |\n|---|\n| " + row + " |\n\n"
	}
	want := Begin + "\na quiet day\n\n| what | budget | relay | Parley | met |\n|---|---|---|---|---|\n| speed |  |  | 2 | **no** |\n| weight |  |  | 1 | yes |\n| smell |  |  | 1 | yes |\n\n" +
		"### speed\n\n| a |\n|---|\n| old |\n\n" + section("weight", "new") + section("smell", "new") + End
	if first != want {
		t.Fatalf("got:\n%s\nwant:\n%s", first, want)
	}
}

func TestReportFigures(t *testing.T) {
	for got, want := range map[string]string{
		Count(0): "0", Count(999): "999", Count(1000): "1,000", Count(1234567): "1,234,567",
		Ms(1_234_000): "1.23 ms", Us(75_400): "75 µs", KB(10240): "10.0 KB", Times(9, 3): "3.00×", Times(300, 2): "150×",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
