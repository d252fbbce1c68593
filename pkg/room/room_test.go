package room

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// letters is a choice of what makes trouble: case pairs that change length, compositions, compatibility forms, right-to-left.
var letters = []rune("aAzZ09._-@+ßẞſsSKÅåÅéÉİıiIΣςσΐΰǅǆﬁŉאבעربيक्ष字ﾊﾟ①Ⅷ\u0301\u0345\u0308\u0323")

func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom(letters), 1, 70, -1),
		rapid.StringOfN(rapid.RuneFrom(nil, unicode.L, unicode.Nd, unicode.M), 1, 70, -1),
		rapid.String(),
	).Filter(func(s string) bool { _, err := Name(s); return err == nil })
}

func TestNamesThatAreGood(t *testing.T) {
	for _, s := range []string{"a", "a.b", "Avi", "O-Neill_3@x+y", "אבי", "عمر", "字", "7", strings.Repeat("x", 64), strings.Repeat("é", 64), strings.Repeat("e\u0301", 64)} {
		if got, err := Name(s); err != nil || got != norm.NFC.String(s) {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
}

func TestNamesThatAreNot(t *testing.T) {
	for _, s := range []string{
		"", " ", "*", ">", "a&b", "&", "../x", ".a", "-a", "_a", "@a", "+a", "a b", " a", "a ", "a\t", "a\n", "a\x00", "\x00", "a/b", `a\b`, "a*", "a>", "$a", "a$",
		"😀", "a😀", "\u0301", "\u202ea", "a\u202eb", "a\u200db", "a\u200fb", "a\ufeff", "a\u00adb", "a\ue000", "a\U000e0041",
		"\xff", "a\xc3", "a\xed\xa0\x80", strings.Repeat("x", 65), strings.Repeat("é", 65), strings.Repeat("x", 1<<20), "a%26b", "ⅷ", "①", "a²",
	} {
		if got, err := Name(s); !errors.Is(err, ErrName) {
			t.Errorf("%q is accepted as %q", s, got)
		}
	}
}

func TestNamesInEitherCaseAreOne(t *testing.T) {
	for _, same := range [][]string{
		{"avi", "AVI", "Avi"}, {"straße", "STRASSE", "STRAẞE"}, {"éva", "E\u0301VA"}, {"ﬁn", "FIN"}, {"Kelvin", "kelvin"}, {"σας", "ΣΑΣ"}, {"ａｂ", "AB"}, {"ⅷa", "VIIIA"},
	} {
		for _, s := range same {
			if Fold(s) != Fold(same[0]) {
				t.Errorf("%q and %q are two names: %q, %q", same[0], s, Fold(same[0]), Fold(s))
			}
		}
	}
	for _, other := range [][2]string{{"avi", "avl"}, {"a.b", "ab"}, {"a_b", "a-b"}, {"é", "e"}} {
		if Fold(other[0]) == Fold(other[1]) {
			t.Errorf("%q and %q are one name", other[0], other[1])
		}
	}
}

func TestNamesPlain(t *testing.T) {
	for name, want := range map[string]string{
		"Jérémy": "jeremy", "İlker": "ilker", "ILKER": "ilker", "ılgaz": "ilgaz", "Łukasz": "lukasz", "Søren": "soren", "Straße": "strasse", "ЙОСИФ": "иосиф", "ΐα": "ια",
		"avi": "avi", "字": "字", "가": "\u1100\u1161", "\uff9e": "\u3099",
	} {
		if got, _ := Plain(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"jere": false, "JERE": false, "가": false, "字": false, "jéré": true, "ılg": true, "İl": true, "\uff9f": true, "": false} {
		if _, marked := Plain(name); marked != want {
			t.Errorf("%q is marked: %v", name, marked)
		}
	}
}

func TestNamesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, err := Name(names().Draw(t, "name"))
		if err != nil {
			t.Fatal(err)
		}
		checkName(t, n)
	})
}

// checkName is what holds for every registered name.
func checkName(t interface{ Fatalf(string, ...any) }, n string) {
	if again, err := Name(n); err != nil || again != n {
		t.Fatalf("%q becomes %q, %v", n, again, err)
	}
	if c := utf8.RuneCountInString(n); c < 1 || c > MaxNameRunes || !utf8.ValidString(n) {
		t.Fatalf("%q has %d code points", n, c)
	}
	if strings.ContainsAny(n, "&*>/\\%$ \x00\t\r\n") {
		t.Fatalf("%q has a forbidden character", n)
	}
	f := Fold(n)
	if Fold(f) != f {
		t.Fatalf("folding %q is not stable: %q, %q", n, f, Fold(f))
	}
	if key, _ := Plain(n); key == "" || first(Plain(key)) != key {
		t.Fatalf("%q is %q without marks", n, key)
	}
	for i := range f { // so that a search finds what it found when it compared folded names
		if begin, marked := Plain(f[:i]); i > 0 && !marked && utf8.RuneStart(f[i]) && !strings.HasPrefix(first(Plain(n)), begin) {
			t.Fatalf("%q begins with %q, but %q does not with %q", f, f[:i], first(Plain(n)), begin)
		}
	}
	// What a client may do to a name must not make another one of it.
	for _, v := range []string{norm.NFD.String(n), norm.NFKC.String(n), norm.NFKD.String(n)} {
		if Fold(v) != f {
			t.Fatalf("%q and %q are two names: %q, %q", n, v, f, Fold(v))
		}
	}
}

func first(key string, _ bool) string { return key }

func TestRoomsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, _ := Name(names().Draw(t, "x"))
		y, _ := Name(names().Draw(t, "y"))
		r, err := Of(x, y)
		if x == y {
			if !errors.Is(err, ErrRoom) {
				t.Fatalf("a room with oneself: %v", r)
			}
			return
		}
		if err != nil || r.A >= r.B || !r.Has(x) || !r.Has(y) || r.Peer(x) != y || r.Peer(y) != x {
			t.Fatalf("%q, %q: %v, %v", x, y, r, err)
		}
		if other, _ := Of(y, x); other != r {
			t.Fatalf("the order counts: %v, %v", r, other)
		}
		if Fold(x) == Fold(y) {
			return // such two are never both registered
		}
		for _, s := range []string{r.String(), r.B + Separator + r.A} {
			if back, err := Parse(s); err != nil || back != r {
				t.Fatalf("%q is read as %v, %v", s, back, err)
			}
		}
		z, _ := Name(names().Draw(t, "z"))
		if z != x && z != y && (r.Has(z) || r.Peer(z) != "") {
			t.Fatalf("%q is in %v", z, r)
		}
	})
}

// No two rooms have one spelling.
func TestRoomsAreInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SliceOfN(names(), 4, 4).Draw(t, "names")
		for i := range n {
			n[i], _ = Name(n[i])
		}
		r, err1 := Of(n[0], n[1])
		q, err2 := Of(n[2], n[3])
		if err1 == nil && err2 == nil && (r.String() == q.String()) != (r == q) {
			t.Fatalf("%v and %v", r, q)
		}
	})
}

func TestRoomsThatAreNone(t *testing.T) {
	for _, s := range []string{"", "&", "Avi", "Avi&", "&Avi", "Avi&Avi", "Avi&aVI", "Avi&Lisa&Era", "*&Lisa", "Avi&>", "Avi& Lisa", "../x&Avi", "Avi%26Lisa", "a&b\x00"} {
		if r, err := Parse(s); !errors.Is(err, ErrRoom) {
			t.Errorf("%q is %v, %v", s, r, err)
		}
	}
	if _, err := Of("", "a"); !errors.Is(err, ErrRoom) {
		t.Error("a room with nobody")
	}
	if (Room{}).Has("") || (Room{"a", "b"}).Has("") {
		t.Error("nobody is in a room")
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"Avi", "a.b", "*", ">", "a&b", "../x", "😀", "אבי", "\u202ea", strings.Repeat("x", 65), "ﬁ", "İ", "\u0345", "a\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Name(s); err == nil {
			checkName(t, n)
		} else if !errors.Is(err, ErrName) {
			t.Fatal(err)
		}
		_ = Fold(s)
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"Avi&Lisa", "Lisa&Avi", "a&a", "&", "a&b&c", "*&>", "é&e\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrRoom) {
				t.Fatal(err)
			}
			return
		}
		checkName(t, r.A)
		checkName(t, r.B)
		if back, err := Parse(r.String()); err != nil || back != r || r.A >= r.B {
			t.Fatalf("%q: %v, %v, %v", s, r, back, err)
		}
	})
}
