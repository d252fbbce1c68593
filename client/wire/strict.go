package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
)

var (
	errTwice     = E(InvalidFrame, "a key comes twice in an object")
	errSurrogate = E(InvalidFrame, `a \u escape is half of a surrogate pair, which is no text`)
)

// Unmarshal is json.Unmarshal without its guesses, which would change or mix up what a client said: half a surrogate pair and a key that
// comes twice are errors, and a key in another case is one that v does not have, so it is ignored. A whole number may be
// written in any way (21.0).
func Unmarshal(b []byte, v any) error {
	if !json.Valid(b) {
		return errNotText
	}
	if err := Check(b); err != nil {
		return err
	}
	return into(b, v)
}

// Check finds half surrogate pairs and keys that come twice in JSON that is valid.
func Check(b []byte) error {
	s := scan{b: b}
	return s.value()
}

// into reads JSON that was checked.
func into(b []byte, v any) error {
	b = exactKeys(b, v)
	err := json.Unmarshal(b, v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && strings.HasPrefix(wrong.Value, "number") {
		return json.Unmarshal(wholeNumbers(b), v)
	}
	return err
}

// scan goes through valid JSON.
type scan struct {
	b []byte
	i int
}

func (s *scan) blanks() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\r' || s.b[s.i] == '\t') {
		s.i++
	}
}

func (s *scan) value() error {
	s.blanks()
	switch s.b[s.i] {
	case '{':
		var keys keySet
		return s.members('}', func() error {
			key, err := s.text()
			if err != nil {
				return err
			}
			if !keys.add(unquote(key)) {
				return errTwice
			}
			s.blanks()
			s.i++ // the colon
			return s.value()
		})
	case '[':
		return s.members(']', s.value)
	case '"':
		_, err := s.text()
		return err
	}
	for s.i < len(s.b) && strings.IndexByte(",]} \n\r\t", s.b[s.i]) < 0 {
		s.i++
	}
	return nil
}

// members reads from an opening bracket to its closing one.
func (s *scan) members(end byte, one func() error) error {
	s.i++
	for {
		s.blanks()
		switch s.b[s.i] {
		case end:
			s.i++
			return nil
		case ',':
			s.i++
			s.blanks()
		}
		if err := one(); err != nil {
			return err
		}
	}
}

// text reads a string, with its quotes.
func (s *scan) text() ([]byte, error) {
	from := s.i
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] != '\\' {
			continue
		}
		if s.i++; s.b[s.i] != 'u' {
			continue
		}
		c := s.hex(s.i + 1)
		s.i += 4
		switch {
		case 0xd800 <= c && c < 0xdc00:
			if low := s.hex(s.i + 3); s.b[s.i+1] != '\\' || s.b[s.i+2] != 'u' || low < 0xdc00 || low > 0xdfff {
				return nil, errSurrogate
			}
			s.i += 6
		case 0xdc00 <= c && c < 0xe000:
			return nil, errSurrogate
		}
	}
	s.i++
	return s.b[from:s.i], nil
}

// hex reads four digits; -1 when there are none.
func (s *scan) hex(at int) int64 {
	if at+4 > len(s.b) {
		return -1
	}
	n, err := strconv.ParseUint(string(s.b[at:at+4]), 16, 32)
	if err != nil {
		return -1
	}
	return int64(n)
}

func unquote(key []byte) string {
	if bytes.IndexByte(key, '\\') < 0 {
		return string(key[1 : len(key)-1])
	}
	var text string
	_ = json.Unmarshal(key, &text) // it is valid
	return text
}

// keySet is the keys of an object, which are few but for since.
type keySet struct {
	few  []string
	many map[string]struct{}
}

func (k *keySet) add(key string) (isNew bool) {
	if k.many != nil {
		n := len(k.many)
		k.many[key] = struct{}{}
		return len(k.many) > n
	}
	for _, have := range k.few {
		if have == key {
			return false
		}
	}
	if k.few = append(k.few, key); len(k.few) > 16 {
		k.many = make(map[string]struct{}, 64)
		for _, have := range k.few {
			k.many[have] = struct{}{}
		}
	}
	return true
}

// exactKeys is an object without the keys that encoding/json would take for one of v's fields although they are spelt in another case.
func exactKeys(b []byte, v any) []byte {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return b
	}
	s := scan{b: b}
	if s.blanks(); s.i >= len(b) || b[s.i] != '{' {
		return b
	}
	var kept [][]byte
	wrong := false
	_ = s.members('}', func() error { // it was checked
		from := s.i
		key, _ := s.text()
		s.blanks()
		s.i++
		_ = s.value()
		if name := unquote(key); looksLikeField(t.Elem(), name) {
			wrong = true
		} else {
			kept = append(kept, b[from:s.i])
		}
		return nil
	})
	if !wrong {
		return b
	}
	return append(append([]byte{'{'}, bytes.Join(kept, []byte{','})...), '}')
}

// looksLikeField reports that a key is that of a field but for its case.
func looksLikeField(t reflect.Type, key string) bool {
	like := false
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" {
			name = t.Field(i).Name
		}
		if name == key {
			return false
		}
		like = like || strings.EqualFold(name, key)
	}
	return like
}

// wholeNumbers writes whole numbers without a fraction or an exponent.
func wholeNumbers(b []byte) []byte {
	out := make([]byte, 0, len(b))
	s := scan{b: b}
	for s.i < len(b) {
		switch c := b[s.i]; {
		case c == '"':
			text, _ := s.text() // it was checked
			out = append(out, text...)
		case c == '-' || '0' <= c && c <= '9':
			from := s.i
			for s.i < len(b) && strings.IndexByte("+-.0123456789eE", b[s.i]) >= 0 {
				s.i++
			}
			number := b[from:s.i]
			if f, err := strconv.ParseFloat(string(number), 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
				number = strconv.AppendInt(nil, int64(f), 10)
			}
			out = append(out, number...)
		default:
			out = append(out, c)
			s.i++
		}
	}
	return out
}
