package safetext

import (
	"strings"
	"testing"
	"unicode"
)

func TestSafeTextLines(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 日本 שלום":       "plain ü 日本 שלום",
		"a\x1b[2J\x9b1m":        "a·[2J·1m",
		"\x1b]0;title\x07":      "·]0;title·",
		"x\u202egnp.exe":        "x·gnp.exe",
		"\u2066\u2069\u200f":    "···",
		"one\r\ntwo\rthree":     "one\ntwo·three",
		"one\u2028two":          "one\ntwo",
		"\u0645\u0600":          "\u0645\u0600",
		"👩\u200d👩\u200d👧":       "👩\u200d👩\u200d👧",
		"a\U000E0041\U000E0042": "a",
		"\x9b" + "not UTF-8":    "·not UTF-8",
		"tab\tbed":              "tab bed",
	} {
		if got := Lines(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := Lines("e" + strings.Repeat("\u0301", 500)); len([]rune(got)) != 1+maxMarks {
		t.Errorf("%d marks are left", len([]rune(got))-1)
	}
	if got := Typed("a\u202eb\x1b[1mü·\nc"); got != "ab[1mü·\nc" {
		t.Errorf("typed %q", got)
	}
	if got := Line("a\nb"); got != "a⏎b" {
		t.Errorf("got %q", got)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\x1b[31m\u202e\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Line(s) {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q keeps %U", s, r)
			}
		}
	})
}
