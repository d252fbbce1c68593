package legacy

import (
	"bytes"
	"encoding/json"
)

// event has the fields of all events of the old clients; nil: not given.
type event struct {
	Room         *string `json:"room"`
	Client       *string `json:"client"`
	JWT          *string `json:"jwt"`
	Sender       *string `json:"sender"`
	Content      *string `json:"content"`
	Conversation *string `json:"conversation_room"`
	// Beyond the original: a client that numbers its messages may send them again.
	ID    string `json:"id"`
	Retry bool   `json:"retry"`
}

// read reads JSON that is known to be good. It fails when that is no object.
func (e *event) read(b []byte) error {
	if e.readPlain(b) {
		return nil
	}
	*e = event{}
	return e.readKeys(b)
}

// readKeys takes the keys as they are spelt. A key that is there is not missing, whatever its value: one that is no text stands as it was written, which
// is no token, no room and nobody's name.
func (e *event) readKeys(b []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return err
	}
	for key, field := range map[string]**string{
		"room": &e.Room, "client": &e.Client, "jwt": &e.JWT, "sender": &e.Sender, "content": &e.Content, "conversation_room": &e.Conversation,
	} {
		v, ok := keys[key]
		if !ok {
			continue
		}
		text := string(v)
		switch {
		case v[0] == '"':
			text = ""
			_ = json.Unmarshal(v, &text) // a text, as it begins so
		case key == "content":
			text = "" // nothing to say
		}
		*field = &text
	}
	for key, field := range map[string]any{"id": &e.ID, "retry": &e.Retry} {
		if v, ok := keys[key]; ok {
			if err := json.Unmarshal(v, field); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPlain reads what nearly all of these clients send: an object of text without escapes, its keys spelt as above. It returns false for
// anything else. It costs a tenth of json.Unmarshal, and takes little of the stack, which an idle connection keeps.
func (e *event) readPlain(b []byte) bool {
	b, ok := after(b, '{')
	for ok {
		var key, value []byte
		if key, b, ok = plainText(b); !ok {
			return false
		}
		if b, ok = after(b, ':'); !ok {
			return false
		}
		if value, b, ok = plainText(b); !ok {
			return false
		}
		text := string(value)
		switch string(key) {
		case "room":
			e.Room = &text
		case "client":
			e.Client = &text
		case "jwt":
			e.JWT = &text
		case "sender":
			e.Sender = &text
		case "content":
			e.Content = &text
		case "conversation_room":
			e.Conversation = &text
		case "id":
			e.ID = text
		default:
			return false
		}
		if rest, end := after(b, '}'); end {
			return len(rest) == 0
		}
		b, ok = after(b, ',')
	}
	return false
}

// after passes over one byte of punctuation and the blanks around it.
func after(b []byte, c byte) (rest []byte, ok bool) {
	b = blanks(b)
	if len(b) == 0 || b[0] != c {
		return b, false
	}
	return blanks(b[1:]), true
}

func blanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\r' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// plainText reads a string without escapes.
func plainText(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, b, false
	}
	b = b[1:]
	end := bytes.IndexByte(b, '"')
	if end < 0 || bytes.IndexByte(b[:end], '\\') >= 0 {
		return nil, b, false
	}
	return b[:end], b[end+1:], true
}
