// Package wire is the native protocol: its events, codes, limits, and how frames become bytes.
// It imports nothing but the standard library, so that clients can use it.
package wire

import (
	"errors"
	"unicode/utf8"
)

var (
	errNotText  = E(InvalidFrame, "a frame is one JSON object in UTF-8 text")
	errTooDeep  = E(InvalidFrame, "a frame nests too deeply")
	errNoEvent  = E(InvalidFrame, `a frame has an "event"`)
	errFrameID  = E(InvalidFrame, `a frame's "id" is text of at most 64 characters`)
	errBadData  = E(InvalidArgument, `the "data" of this event has other fields or types`)
	errSurplus  = E(InvalidFrame, "a frame is one JSON object and nothing after it")
	errNoObject = E(InvalidFrame, "a frame is a JSON object")
)

// DecodeFrame reads one frame. All failures are *Error with code invalid_frame.
// The Data of the result points into b.
func DecodeFrame(b []byte) (Frame, error) {
	var f Frame
	if !utf8.Valid(b) {
		return f, errNotText
	}
	if err := checkDepth(b); err != nil {
		return f, err
	}
	if err := Unmarshal(b, &f); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return Frame{}, e
		}
		return Frame{}, errNotText
	}
	if f.Event == "" {
		return Frame{}, errNoEvent
	}
	if utf8.RuneCountInString(f.ID) > MaxIDChars {
		return Frame{Event: f.Event}, errFrameID
	}
	return f, nil
}

// DecodeData reads the data of a frame into v; failures are *Error with code invalid_argument.
func DecodeData(f Frame, v any) error {
	// JSON's null would leave v as it is.
	if len(f.Data) == 0 || string(f.Data) == "null" {
		return errBadData
	}
	if err := into(f.Data, v); err != nil { // the frame was checked as a whole
		return errBadData
	}
	return nil
}

// checkDepth bounds nesting before the decoder allocates for it. It reads brackets outside of
// strings only and leaves every other mistake to the decoder.
func checkDepth(b []byte) error {
	depth, inString := 0, false
	started := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if !started && c != '{' {
				return errNoObject
			}
			started = true
			if depth++; depth > MaxDepth {
				return errTooDeep
			}
		case '}', ']':
			if depth--; depth == 0 && len(trimSpace(b[i+1:])) > 0 {
				return errSurplus
			}
		}
	}
	if !started {
		return errNoObject
	}
	return nil
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\r' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// ValidMessageID reports whether id is 1 to 64 of A-Z a-z 0-9 _ . : -
func ValidMessageID(id string) bool {
	if len(id) == 0 || len(id) > MaxIDChars {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		ok := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == ':' || c == '-'
		if !ok {
			return false
		}
	}
	return true
}

// Shallow reports whether JSON, of any kind, nests no deeper than MaxDepth. Like all that is asked before decoding it
// leaves every other mistake to the decoder.
func Shallow(b []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
