// Package engineio is the server side of the Engine.IO protocol, version 4: a two-way connection over a WebSocket, over HTTP
// long-polling, or begun with the one and upgraded to the other. It knows nothing of chat.
//
// Names and rules are those of the protocol's document (the repository engine.io-protocol of the socketio project).
package engineio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// Packet types.
const (
	typeOpen    = '0'
	typeClose   = '1'
	typePing    = '2'
	typePong    = '3'
	typeMessage = '4'
	typeUpgrade = '5'
	typeNoop    = '6'

	// binaryPrefix marks a base64-encoded binary message in a payload of long-polling.
	binaryPrefix = 'b'
	// separator stands between the packets of a payload.
	separator = '\x1e'
)

// errPacket says that a packet or a payload of packets is none.
var errPacket = errors.New("not an Engine.IO packet")

// packet is one packet. A binary one is always a message.
type packet struct {
	kind   byte
	binary bool
	data   []byte
}

// decodePacket reads a packet that came as a text message of a WebSocket. data points into b.
func decodePacket(b []byte) (packet, error) {
	// RFC 6455, section 8.1, asks for UTF-8, which gorilla leaves to us: a client that was sent anything else would close.
	if len(b) == 0 || b[0] < typeOpen || b[0] > typeNoop || !utf8.Valid(b) {
		return packet{}, errPacket
	}
	return packet{kind: b[0], data: b[1:]}, nil
}

// decodePayload calls f for each packet of the body of a POST, until f returns false. It finds a wrong packet before it calls f
// for the first one.
func decodePayload(body []byte, f func(packet) bool) error {
	for rest, more := body, true; more; {
		var one []byte
		one, rest, more = bytes.Cut(rest, []byte{separator})
		if _, err := decodeOne(one); err != nil {
			return err
		}
	}
	for rest, more := body, true; more; {
		var one []byte
		one, rest, more = bytes.Cut(rest, []byte{separator})
		p, err := decodeOne(one)
		if err != nil {
			return err
		}
		if !f(p) {
			return nil
		}
	}
	return nil
}

// longestPacket is the size of the largest packet of a payload.
func longestPacket(body []byte) (longest int) {
	for rest, more := body, true; more; {
		var one []byte
		one, rest, more = bytes.Cut(rest, []byte{separator})
		longest = max(longest, len(one))
	}
	return longest
}

func decodeOne(b []byte) (packet, error) {
	if len(b) == 0 || b[0] != binaryPrefix {
		return decodePacket(b)
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(b)-1))
	n, err := base64.StdEncoding.Decode(data, b[1:])
	if err != nil {
		return packet{}, errPacket
	}
	return packet{kind: typeMessage, binary: true, data: data[:n]}, nil
}

// encodeBinary is a binary message as long-polling carries it.
func encodeBinary(data []byte) []byte {
	b := make([]byte, 1, 1+base64.StdEncoding.EncodedLen(len(data)))
	b[0] = binaryPrefix
	return base64.StdEncoding.AppendEncode(b, data)
}
