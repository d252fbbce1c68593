// Package room has the rules for user names and for the pairwise rooms named after them.
//
// The names here are the registered ones: Name values never change after registration and are
// never given to somebody else, so everything below (rooms, NATS subjects, SQL rows) may use them as keys.
package room

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// MaxNameRunes is the longest user name, in code points after normalisation.
const MaxNameRunes = 64

// Separator stands between the two names of a room. No user name contains it.
const Separator = "&"

// Errors of this package. Each maps to one code of the protocol: ErrName to invalid_username,
// ErrRoom to invalid_argument.
var (
	ErrName = errors.New("a user name has 1 to 64 letters, digits or . _ - @ + and begins with a letter or digit")
	ErrRoom = errors.New("a room is two different user names joined with &")
)

// Name returns s in the form in which it may be registered (NFC), or ErrName.
func Name(s string) (string, error) {
	// 64 code points take at most 256 bytes; a decomposed spelling of one may take several times that.
	// The cap keeps a hostile megabyte away from the normaliser.
	if len(s) == 0 || len(s) > 4096 || !utf8.ValidString(s) {
		return "", ErrName
	}
	s = norm.NFC.String(s)
	n := 0
	for _, r := range s {
		if n++; n > MaxNameRunes {
			return "", ErrName
		}
		letter := unicode.IsLetter(r) || unicode.Is(unicode.Nd, r)
		if n == 1 && !letter {
			return "", ErrName
		}
		if !letter && !unicode.IsMark(r) && !strings.ContainsRune("._-@+", r) {
			return "", ErrName
		}
	}
	return s, nil
}

// Fold returns the key under which two names that differ only in case (or in a compatible
// spelling of one) are the same name. It is for look-ups and uniqueness, never for showing.
func Fold(name string) string {
	// Folding can denormalise and normalising can uncover new foldable letters: NFKC_Casefold
	// in the Unicode standard (section 3.13, D146) is this fixed point.
	s := cases.Fold().String(norm.NFKC.String(name))
	return cases.Fold().String(norm.NFKC.String(s))
}

// Plain is the key under which a name is searched by its first letters: Fold without accents and other marks. Two names may share one, so it
// is never for identity. What begins with a name folded begins with it plain. Marked says that the name has what Plain leaves out.
func Plain(name string) (key string, marked bool) {
	split := norm.NFKD.String(Fold(name))
	key = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		if p, ok := unmarked[r]; ok {
			return p
		}
		return r
	}, split)
	if key == "" { // nothing but marks, which are letters then
		return split, split != ""
	}
	return key, key != split
}

// unmarked are letters with a stroke, and the i without its dot, which Unicode does not take apart.
var unmarked = map[rune]rune{'ı': 'i', 'ø': 'o', 'ł': 'l', 'đ': 'd', 'ħ': 'h'}

// Room is a pair of registered names, A before B by code point. The zero value is no room.
type Room struct{ A, B string }

// Of is the room of two users; ErrRoom if they are the same or one is empty.
func Of(x, y string) (Room, error) {
	switch {
	case x == "" || y == "" || x == y:
		return Room{}, ErrRoom
	case x < y: // byte order of UTF-8 is code point order
		return Room{x, y}, nil
	}
	return Room{y, x}, nil
}

// Split cuts "x&y" into two valid names, in the order written. The names are normalised but not
// checked to be registered: the caller resolves them and then calls Of.
func Split(s string) (x, y string, err error) {
	x, y, ok := strings.Cut(s, Separator)
	if !ok {
		return "", "", ErrRoom
	}
	if x, err = Name(x); err != nil {
		return "", "", ErrRoom
	}
	if y, err = Name(y); err != nil {
		return "", "", ErrRoom
	}
	if Fold(x) == Fold(y) {
		return "", "", ErrRoom
	}
	return x, y, nil
}

// Parse reads the canonical or the swapped form of a room of two registered names.
func Parse(s string) (Room, error) {
	x, y, err := Split(s)
	if err != nil {
		return Room{}, err
	}
	return Of(x, y)
}

// String is the form that the server always sends: "A&B".
func (r Room) String() string { return r.A + Separator + r.B }

// Has reports whether user is one of the two.
func (r Room) Has(user string) bool { return user != "" && (r.A == user || r.B == user) }

// Peer is the other one of the two, "" if user is in neither place.
func (r Room) Peer(user string) string {
	switch user {
	case r.A:
		return r.B
	case r.B:
		return r.A
	}
	return ""
}
