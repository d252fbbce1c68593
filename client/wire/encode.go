package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// Encode makes a frame of an event, its data (any JSON-able value, nil for none) and the ID that it answers.
// The data types of this package cannot fail to encode.
func Encode(event string, data any, re string) []byte {
	if data == nil {
		return EncodeRaw(event, nil, re)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // rooms read A&B, as AppendMessage writes them
	if err := enc.Encode(data); err != nil {
		return EncodeRaw(EvError, []byte(`{"code":"internal","message":"an answer could not be encoded"}`), re)
	}
	return EncodeRaw(event, bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), re)
}

// EncodeRaw is Encode with data that is JSON already.
func EncodeRaw(event string, data []byte, re string) []byte {
	b := make([]byte, 0, len(event)+len(data)+len(re)+32)
	b = append(b, `{"event":"`...)
	b = append(b, event...)
	b = append(b, '"')
	if data != nil {
		b = append(b, `,"data":`...)
		b = append(b, data...)
	}
	if re != "" {
		b = append(b, `,"re":`...)
		b = AppendString(b, re)
	}
	return append(b, '}')
}

// EncodeError makes an error frame of any error; what is not *Error is "internal" outside.
func EncodeError(err error, re string) []byte { return Encode(EvError, AsError(err), re) }

// AsError is err as a client may see it.
func AsError(err error) *Error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // wrapped errors carry inside texts, which stay inside
		return e
	}
	return E(Internal, "something went wrong here; try again")
}

// AppendMessage appends a received_message (or message_accepted, when accepted) frame to b. It is the hot
// path of delivery: no reflection.
func AppendMessage(b []byte, m *Message, accepted bool, re string) []byte {
	if accepted {
		b = append(b, `{"event":"message_accepted","data":`...)
	} else {
		b = append(b, `{"event":"received_message","data":`...)
	}
	b = appendMessageData(b, m, accepted)
	if re != "" {
		b = append(b, `,"re":`...)
		b = AppendString(b, re)
	}
	return append(b, '}')
}

// AppendMessageData appends the data of a received_message.
func AppendMessageData(b []byte, m *Message) []byte { return appendMessageData(b, m, false) }

func appendMessageData(b []byte, m *Message, accepted bool) []byte {
	if accepted {
		b = append(b, `{"id":`...)
	} else {
		b = append(b, `{"sender":`...)
		b = AppendString(b, m.Sender)
		b = append(b, `,"content":`...)
		b = AppendString(b, m.Content)
		b = append(b, `,"id":`...)
	}
	b = AppendString(b, m.ID)
	b = append(b, `,"conversation_room":`...)
	b = AppendString(b, m.Room)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, m.Seq, 10)
	if m.Prev != nil {
		b = append(b, `,"prev":`...)
		b = strconv.AppendInt(b, *m.Prev, 10)
	}
	b = append(b, `,"sent_at":`...)
	b = m.SentAt.AppendJSON(b)
	if m.Late && !accepted {
		b = append(b, `,"late":true`...)
	}
	return append(b, '}')
}

const hex = "0123456789abcdef"

// AppendString appends s as a JSON string: quotes, backslashes and control characters escaped, also
// U+2028 and U+2029 (line ends to old JavaScript), invalid UTF-8 replaced.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0x2028 || r == 0x2029 {
			b = append(b, s[start:i]...)
			switch r {
			case 0x2028:
				b = append(b, `\u2028`...)
			case 0x2029:
				b = append(b, `\u2029`...)
			default:
				b = append(b, `\ufffd`...)
			}
			start = i + n
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
