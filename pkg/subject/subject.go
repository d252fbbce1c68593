// Package subject builds and reads the NATS subjects that carry messages. It is the only place
// that knows how a user name becomes a subject token.
//
//	room.<p>.<a>.<b>     stored by stream ROOMS_<p>; only gateways publish here
//	room.<p>._._         nobody's: a gateway tries whether ROOMS_<p> stores
//	deliver.<a>.<b>      the server-side republish of the same message, and what is not stored (typing)
//	applied.<p>          history: what is now in SQL
//	marks                history: delivered and read marks that have moved
//	presence.<s>         presence: changes of shard s
//	event.directory      auth: registrations, contacts, blocks
//	gateway.<g>          requests of other gateways to gateway g, and gateway.<g>.give_up for those nobody waits for any more
//	event.served         gateways: an old client was served a contacts list
package subject

import (
	"errors"
	"hash/fnv"
	"strconv"
	"strings"

	"parley.example/pkg/room"
)

// Fixed subjects and prefixes.
const (
	RoomPrefix      = "room."
	DeliverPrefix   = "deliver."
	AppliedPrefix   = "applied."
	Marks           = "marks"
	PresencePrefix  = "presence."
	DirectoryEvents = "event.directory"
	ServedEvents    = "event.served"
	nodePrefix      = "gateway."
)

// ErrSubject says that a subject is none of ours.
var ErrSubject = errors.New("not a subject of a room")

const hexDigits = "0123456789ABCDEF"

// Token encodes a name into one subject token: letters, digits and "-" of ASCII stand for themselves, every
// other byte is "_" and two hex digits. It is injective, so no two names share a subject, and its
// output has none of the characters that mean something to NATS ('.', '*', '>', white space, '$').
func Token(name string) string {
	plain := true
	for i := 0; i < len(name); i++ {
		if !isPlain(name[i]) {
			plain = false
			break
		}
	}
	if plain {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 16)
	for i := 0; i < len(name); i++ {
		if c := name[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// Untoken is the inverse of Token; any other spelling of a token is refused.
func Untoken(tok string) (string, error) {
	if tok == "" {
		return "", ErrSubject
	}
	if strings.IndexByte(tok, '_') < 0 {
		for i := 0; i < len(tok); i++ {
			if !isPlain(tok[i]) {
				return "", ErrSubject
			}
		}
		return tok, nil
	}
	var b strings.Builder
	b.Grow(len(tok))
	for i := 0; i < len(tok); i++ {
		c := tok[i]
		if c != '_' {
			if !isPlain(c) {
				return "", ErrSubject
			}
			b.WriteByte(c)
			continue
		}
		if i+2 >= len(tok) {
			return "", ErrSubject
		}
		hi, lo := strings.IndexByte(hexDigits, tok[i+1]), strings.IndexByte(hexDigits, tok[i+2])
		if hi < 0 || lo < 0 || isPlain(byte(hi<<4|lo)) {
			return "", ErrSubject
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

// Node is where the gateway of that name, made of letters, digits and "-", is asked by others.
func Node(name string) string { return nodePrefix + Token(name) }

// NodeGiveUp is where it is told which of their requests nobody waits for.
func NodeGiveUp(name string) string { return Node(name) + ".give_up" }

// Partition is the stream of a room, 0 ≤ p < partitions. It must never change for an installed system.
func Partition(r room.Room, partitions int) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.A))
	_, _ = h.Write([]byte(room.Separator))
	_, _ = h.Write([]byte(r.B))
	return int(h.Sum64() % uint64(partitions))
}

// Stream is the JetStream stream of partition p.
func Stream(p int) string { return "ROOMS_" + strconv.Itoa(p) }

// StreamPartition reads what Stream wrote.
func StreamPartition(stream string) (int, bool) {
	s, ok := strings.CutPrefix(stream, "ROOMS_")
	if !ok {
		return 0, false
	}
	p, err := strconv.Atoi(s)
	return p, err == nil && p >= 0
}

// StreamFilter is everything that the stream of partition p stores.
func StreamFilter(p int) string { return RoomPrefix + strconv.Itoa(p) + ".*.*" }

// Publish is where a message of r is published.
func Publish(r room.Room, p int) string {
	return RoomPrefix + strconv.Itoa(p) + "." + Token(r.A) + "." + Token(r.B)
}

// Probe is where a gateway tries whether the stream of partition p stores. It is no room's: "_" is no token.
func Probe(p int) string { return RoomPrefix + strconv.Itoa(p) + "._._" }

// IsProbe reports whether a room subject is Probe's.
func IsProbe(s string) bool {
	return strings.HasPrefix(s, RoomPrefix) && strings.HasSuffix(s, "._._")
}

// Deliver is where gateways listen for r.
func Deliver(r room.Room) string { return DeliverPrefix + Token(r.A) + "." + Token(r.B) }

// DeliverTo are the two subscriptions that bring everything of one user.
func DeliverTo(user string) (asA, asB string) {
	t := Token(user)
	return DeliverPrefix + t + ".*", DeliverPrefix + "*." + t
}

// ParseDeliver reads the room out of a deliver subject.
func ParseDeliver(s string) (room.Room, error) {
	rest, ok := strings.CutPrefix(s, DeliverPrefix)
	if !ok {
		return room.Room{}, ErrSubject
	}
	return parsePair(rest)
}

// ParsePublish reads the partition and the room out of a room subject.
func ParsePublish(s string) (int, room.Room, error) {
	rest, ok := strings.CutPrefix(s, RoomPrefix)
	if !ok {
		return 0, room.Room{}, ErrSubject
	}
	num, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return 0, room.Room{}, ErrSubject
	}
	p, err := strconv.Atoi(num)
	if err != nil || p < 0 || strconv.Itoa(p) != num {
		return 0, room.Room{}, ErrSubject
	}
	r, err := parsePair(rest)
	return p, r, err
}

func parsePair(s string) (room.Room, error) {
	ta, tb, ok := strings.Cut(s, ".")
	if !ok || strings.IndexByte(tb, '.') >= 0 {
		return room.Room{}, ErrSubject
	}
	a, err := Untoken(ta)
	if err != nil {
		return room.Room{}, err
	}
	b, err := Untoken(tb)
	if err != nil {
		return room.Room{}, err
	}
	if a >= b {
		return room.Room{}, ErrSubject
	}
	return room.Room{A: a, B: b}, nil
}

// MsgID is the Nats-Msg-Id of a message: the sender's token and the client's id. The raw client id
// alone would let one user's message swallow another's.
func MsgID(sender, id string) string { return Token(sender) + ":" + id }
