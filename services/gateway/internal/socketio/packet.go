// Package socketio is the server side of the Socket.IO protocol, version 5, on connections of package engineio: namespaces, events,
// acknowledgements in both directions, binary attachments. It knows nothing of chat.
//
// Names and rules are those of the protocol's document (the repository socket.io-protocol of the socketio project).
package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"parley.example/client/wire"
)

// Packet types.
const (
	typeConnect      = '0'
	typeDisconnect   = '1'
	typeEvent        = '2'
	typeAck          = '3'
	typeConnectError = '4'
	typeBinaryEvent  = '5'
	typeBinaryAck    = '6'
)

// Root is the namespace that every client begins with.
const Root = "/"

// Limits of a packet; one that passes them is none.
const (
	maxNamespace = 128 // bytes of a namespace's name
	maxDigits    = 15  // of an ack id: JavaScript counts to 2^53
)

var errPacket = errors.New("not a Socket.IO packet")

// packet is one packet without its attachments.
type packet struct {
	kind        byte
	namespace   string
	attachments int
	id          uint64 // of the ack that is asked for or given
	hasID       bool
	data        json.RawMessage // nil for none
}

// decode reads a packet. data points into b.
func decode(b []byte) (packet, error) {
	p := packet{namespace: Root}
	if len(b) == 0 || b[0] < typeConnect || b[0] > typeBinaryAck || !utf8.Valid(b) {
		return p, errPacket
	}
	p.kind, b = b[0], b[1:]
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		n, rest, ok := number(b)
		if !ok || len(rest) == 0 || rest[0] != '-' || n > 1<<30 {
			return p, errPacket
		}
		p.attachments, b = int(n), rest[1:]
	}
	if len(b) > 0 && b[0] == '/' {
		end := len(b)
		for i, c := range b {
			if c == ',' {
				end = i
				break
			}
		}
		if end > maxNamespace {
			return p, errPacket
		}
		p.namespace = string(b[:end])
		b = b[min(end+1, len(b)):]
	}
	if len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		n, rest, ok := number(b)
		if !ok {
			return p, errPacket
		}
		p.id, p.hasID, b = n, true, rest
	}
	if len(b) > 0 {
		if !wire.Shallow(b) || !json.Valid(b) {
			return p, errPacket
		}
		p.data = b
	}
	if !p.wellFormed() {
		return p, errPacket
	}
	return p, nil
}

// wellFormed reports whether the data is of the form that the type asks for.
func (p *packet) wellFormed() bool {
	first := byte(0)
	if len(p.data) > 0 {
		first = p.data[0]
	}
	switch p.kind {
	case typeConnect:
		return !p.hasID && (first == 0 || first == '{')
	case typeDisconnect:
		return !p.hasID && first == 0
	case typeEvent, typeBinaryEvent:
		return first == '['
	case typeAck, typeBinaryAck:
		return first == '[' && p.hasID
	}
	return false // only servers refuse connections
}

func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		if i == maxDigits {
			return 0, b, false
		}
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	return n, b[i:], i > 0
}

// reserved are event names that mean something to client libraries.
var reserved = map[string]bool{
	"connect": true, "connect_error": true, "disconnect": true, "disconnecting": true, "newListener": true, "removeListener": true,
}

// event takes the data of an event apart, which decode found to be JSON. args point into data.
func event(data json.RawMessage) (name string, args []json.RawMessage, err error) {
	args = elements(data)
	if len(args) == 0 || len(args[0]) < 2 || args[0][0] != '"' {
		return "", nil, errPacket
	}
	if plain := args[0][1 : len(args[0])-1]; bytes.IndexByte(plain, '\\') < 0 {
		name = string(plain)
	} else if json.Unmarshal(args[0], &name) != nil {
		return "", nil, errPacket
	}
	if reserved[name] {
		return "", nil, errPacket
	}
	return name, args[1:], nil
}

// elements are those of an array, nil when it is none. To look for commas is enough for JSON that is known to be good.
func elements(data []byte) (out []json.RawMessage) {
	if len(data) == 0 || data[0] != '[' {
		return nil
	}
	out = make([]json.RawMessage, 0, 2)
	depth, from := 0, 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = closing(data, i)
		case '[', '{':
			depth++
		case ',':
			if depth == 1 {
				out = append(out, bytes.TrimSpace(data[from:i]))
				from = i + 1
			}
		case ']', '}':
			if depth--; depth > 0 {
				continue
			}
			if last := bytes.TrimSpace(data[from:i]); len(last) > 0 {
				out = append(out, last)
			}
			return out
		}
	}
	return nil
}

// closing is where the string that begins at b[at] ends; len(b) when it does not.
func closing(b []byte, at int) int {
	for at++; at < len(b); at++ {
		quote := bytes.IndexByte(b[at:], '"')
		if quote < 0 {
			break
		}
		escape := bytes.IndexByte(b[at:at+quote], '\\')
		if escape < 0 {
			return at + quote
		}
		at += escape + 1
	}
	return len(b)
}

// header appends everything before the data.
func (p *packet) header(b []byte) []byte {
	b = append(b, p.kind)
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		b = strconv.AppendInt(b, int64(p.attachments), 10)
		b = append(b, '-')
	}
	if p.namespace != Root {
		b = append(b, p.namespace...)
		b = append(b, ',')
	}
	if p.hasID {
		b = strconv.AppendUint(b, p.id, 10)
	}
	return b
}

// encode is a packet as text.
func (p *packet) encode() []byte {
	b := p.header(make([]byte, 0, len(p.data)+len(p.namespace)+24))
	return append(b, p.data...)
}

// placeholders counts the objects {"_placeholder":true,"num":n} in data, and reports whether each n is one of the attachments.
func placeholders(data json.RawMessage, attachments int) bool {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return false
	}
	return placeholder(v, attachments)
}

func placeholder(v any, attachments int) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if !placeholder(e, attachments) {
				return false
			}
		}
	case map[string]any:
		if is, _ := v["_placeholder"].(bool); is {
			n, ok := v["num"].(float64)
			return ok && n >= 0 && n < float64(attachments) && n == float64(int(n))
		}
		for _, e := range v {
			if !placeholder(e, attachments) {
				return false
			}
		}
	}
	return true
}
