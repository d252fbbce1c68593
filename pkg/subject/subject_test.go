package subject

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"parley.example/pkg/room"
)

func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune("aAbB_0F.-@+éאﬁ字")), 1, 64, -1),
		rapid.StringOfN(rapid.RuneFrom(nil, unicode.L, unicode.Nd, unicode.M), 1, 64, -1),
	).Filter(func(s string) bool { _, err := room.Name(s); return err == nil })
}

func rooms() *rapid.Generator[room.Room] {
	return rapid.Custom(func(t *rapid.T) room.Room {
		x := names().Draw(t, "x")
		y := names().Filter(func(s string) bool { return s != x }).Draw(t, "y")
		r, err := room.Of(x, y)
		if err != nil {
			t.Fatal(err)
		}
		return r
	})
}

func checkToken(t interface{ Fatalf(string, ...any) }, s string) {
	tok := Token(s)
	if s == "" {
		if tok != "" {
			t.Fatalf("%q from nothing", tok)
		}
		return
	}
	for _, c := range []byte(tok) {
		if !isPlain(c) && c != '_' {
			t.Fatalf("%q has %q in its token %q", s, c, tok)
		}
	}
	if back, err := Untoken(tok); err != nil || back != s {
		t.Fatalf("%q comes back from %q as %q, %v", s, tok, back, err)
	}
}

// Any text, not only names: what a token protects must not depend on a check elsewhere.
func TestTokensRoundTrip(t *testing.T) {
	for _, s := range []string{"Avi", "a.b", "a_b", "a_2Eb", "*", ">", "a&b", "../x", "😀", "אבי", "\u202ea", "a b", "$JS", "\x00", "\xff\xfe", "_", "__", "_5F"} {
		checkToken(t, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		checkToken(t, rapid.OneOf(names(), rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("_2E.aA*>")))).Draw(t, "s"))
	})
}

func TestTokensAreInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.StringOf(rapid.RuneFrom([]rune("_25EFa.*>")))
		a, b := g.Draw(t, "a"), g.Draw(t, "b")
		if (Token(a) == Token(b)) != (a == b) {
			t.Fatalf("%q and %q share %q", a, b, Token(a))
		}
	})
}

// A spelling that Token does not write must not be read: it would be a second name for a room.
func TestTokensInOtherSpellings(t *testing.T) {
	for _, s := range []string{"", "_", "a_", "_2", "_2e", "_2G", "_41", "_2D", "a.b", "*", ">", "a b", "é", "_C3_A9_", "a_2E_"} {
		if got, err := Untoken(s); !errors.Is(err, ErrSubject) {
			t.Errorf("%q is read as %q", s, got)
		}
	}
}

func TestSubjectsOfRooms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rooms().Draw(t, "room")
		n := rapid.IntRange(1, 64).Draw(t, "partitions")
		p := Partition(r, n)
		if p < 0 || p >= n || Partition(r, n) != p {
			t.Fatalf("partition %d of %d", p, n)
		}
		pub, del := Publish(r, p), Deliver(r)
		if strings.Count(pub, ".") != 3 || strings.Count(del, ".") != 2 || strings.ContainsAny(pub+del, "*> \t\r\n") {
			t.Fatalf("%v: %q, %q", r, pub, del)
		}
		if gp, gr, err := ParsePublish(pub); err != nil || gp != p || gr != r {
			t.Fatalf("%q is read as %d, %v, %v", pub, gp, gr, err)
		}
		if gr, err := ParseDeliver(del); err != nil || gr != r {
			t.Fatalf("%q is read as %v, %v", del, gr, err)
		}
		q := rooms().Draw(t, "other")
		if (Publish(q, p) == pub) != (q == r) || (Deliver(q) == del) != (q == r) {
			t.Fatalf("%v and %v share a subject", r, q)
		}
		// A user's two subscriptions match the rooms that have the user, and no other.
		for _, user := range []string{r.A, r.B, q.A, q.B} {
			asA, asB := DeliverTo(user)
			if got := matches(asA, del) || matches(asB, del); got != r.Has(user) {
				t.Fatalf("%q hears %v: %v", user, r, got)
			}
		}
	})
}

// matches is NATS' rule for a pattern with "*".
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	if len(p) != len(s) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != s[i] {
			return false
		}
	}
	return true
}

// The partition of a room is written into installed systems. These must never change.
func TestProbeIsNoRoom(t *testing.T) {
	for _, p := range []int{0, 63} {
		s := Probe(p)
		if _, _, err := ParsePublish(s); err == nil || !IsProbe(s) {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, r := range []room.Room{{A: "Avi", B: "Lisa"}, {A: "_", B: "a"}} {
		if s := Publish(r, 0); IsProbe(s) {
			t.Errorf("%s", s)
		}
	}
}

func TestPartitionsAreFixed(t *testing.T) {
	for _, c := range []struct {
		a, b    string
		p4, p16 int
	}{{"Avi", "Lisa", 2, 6}, {"a.b", "אבי", 1, 9}, {"Era", "Tsahi", 0, 12}} {
		r := room.Room{A: c.a, B: c.b}
		if p4, p16 := Partition(r, 4), Partition(r, 16); p4 != c.p4 || p16 != c.p16 || Partition(r, 1) != 0 {
			t.Errorf("%v: %d of 4, %d of 16", r, p4, p16)
		}
	}
}

func TestSubjectsThatAreNone(t *testing.T) {
	for _, s := range []string{
		"", "room", "room.", "room.0", "room.0.a", "room.0.a.b.c", "room.00.a.b", "room.-1.a.b", "room.+1.a.b", "room.x.a.b", "room.0.b.a", "room.0.a.a", "room.0..b", "room.0.a.",
		"room.0.*.b", "room.0.a.>", "deliver.a.b", "room.0.a_2e.b", "room.99999999999999999999.a.b",
	} {
		if p, r, err := ParsePublish(s); !errors.Is(err, ErrSubject) {
			t.Errorf("%q is read as %d, %v", s, p, r)
		}
	}
	for _, s := range []string{"", "deliver", "deliver.a", "deliver.a.b.c", "deliver.b.a", "deliver.a.a", "deliver..a", "deliver.*.a", "room.0.a.b"} {
		if r, err := ParseDeliver(s); !errors.Is(err, ErrSubject) {
			t.Errorf("%q is read as %v", s, r)
		}
	}
	for _, s := range []string{"", "ROOMS_", "ROOMS_x", "ROOMS_-1", "rooms_1", "KV_x"} {
		if p, ok := StreamPartition(s); ok {
			t.Errorf("%q is partition %d", s, p)
		}
	}
	for p := range 70 {
		if got, ok := StreamPartition(Stream(p)); !ok || got != p {
			t.Errorf("%d comes back as %d", p, got)
		}
	}
}

// One user's id must not swallow another's message.
func TestMsgIDsAreInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.StringOfN(rapid.RuneFrom([]rune("aA0_.:-")), 1, 64, -1)
		a, b, i, j := names().Draw(t, "a"), names().Draw(t, "b"), ids.Draw(t, "i"), ids.Draw(t, "j")
		if (MsgID(a, i) == MsgID(b, j)) != (a == b && i == j) {
			t.Fatalf("%q %q and %q %q share %q", a, i, b, j, MsgID(a, i))
		}
	})
}

// Tokens are also keys of KV buckets. The rule is nats.go's.
func TestTokensAreKVKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, c := range "user." + Token(names().Draw(t, "name")) {
			if !strings.ContainsRune("-/_=.", c) && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
				t.Fatalf("%q", c)
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"Avi", "a.b", "_2E", "*", ">", "\xff", "אבי"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkToken(t, s) })
}

func FuzzUntoken(f *testing.F) {
	for _, s := range []string{"Avi", "a_2Eb", "_", "_2e", "_41", "_D7_90"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Untoken(s); err == nil && Token(n) != s {
			t.Fatalf("%q is read as %q, which is written %q", s, n, Token(n))
		}
	})
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"room.0.Avi.Lisa", "room.3.a_2Eb.b", "room.00.a.b", "deliver.a.b", "room.0.a.b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, r, err := ParsePublish(s); err == nil && Publish(r, p) != s {
			t.Fatalf("%q is read as %d, %v", s, p, r)
		}
		if r, err := ParseDeliver(s); err == nil && Deliver(r) != s {
			t.Fatalf("%q is read as %v", s, r)
		}
	})
}
