// Package picture is what a native client knows of contacts and marks, by what HTTP said and by what it was told since, and how two such
// pictures differ. It knows nothing of sockets.
package picture

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"parley.example/client"
)

// Mark names a mark: how far User has read, or been delivered, in Room.
type Mark struct {
	Room, User string
	Read       bool
}

func (m Mark) String() string {
	if m.Read {
		return fmt.Sprintf("%s in %s has read up to", m.User, m.Room)
	}
	return fmt.Sprintf("%s in %s has been delivered up to", m.User, m.Room)
}

// Picture is what one client knows.
type Picture struct {
	Contacts map[string]bool
	Marks    map[Mark]int64
}

// New knows nothing.
func New() *Picture { return &Picture{map[string]bool{}, map[Mark]int64{}} }

// Of is what HTTP says to user: the contacts, the peers' marks, and how far user has read. How far user has been delivered is nothing that the
// session that it was delivered to is told.
func Of(user string, contacts []client.Contact, conversations []client.Conversation) *Picture {
	p := New()
	for _, c := range contacts {
		p.Contacts[c.Username] = true
	}
	for _, c := range conversations {
		p.Marks[Mark{c.Room, c.Peer, true}] = c.PeerReadSeq
		p.Marks[Mark{c.Room, c.Peer, false}] = c.PeerDeliveredSeq
		p.Marks[Mark{c.Room, user, true}] = c.ReadSeq
	}
	return p
}

// Contact takes in that name has become a contact, or is none any more.
func (p *Picture) Contact(name string, is bool) {
	if is {
		p.Contacts[name] = true
	} else {
		delete(p.Contacts, name)
	}
}

// Move takes in how far a mark has got. A mark never goes back.
func (p *Picture) Move(m Mark, seq int64) { p.Marks[m] = max(p.Marks[m], seq) }

// known is how far a mark has got: who has read has been delivered.
func (p *Picture) known(m Mark) int64 {
	read := m
	read.Read = true
	return max(p.Marks[m], p.Marks[read])
}

// Clone is a copy.
func (p *Picture) Clone() *Picture { return &Picture{maps.Clone(p.Contacts), maps.Clone(p.Marks)} }

// Difference between a picture and what HTTP says: of a mark of Room or, where that is "", of whether Name is a contact.
type Difference struct{ Room, Name, Text string }

// Wrong says how p differs from what HTTP says. What a mark is about is the other one's messages: of its room, seqs gives those of whoever is not
// its user. Of the rooms that hidden names, and the contacts that among does not, nothing is said.
func (p *Picture) Wrong(says *Picture, seqs func(Mark) []int64, hidden, among func(string) bool) (wrong []Difference) {
	for _, name := range slices.Sorted(maps.Keys(union(p.Contacts, says.Contacts))) {
		if among(name) && p.Contacts[name] != says.Contacts[name] {
			wrong = append(wrong, Difference{Name: name, Text: fmt.Sprintf("%s is a contact: known %t, HTTP says %t", name, p.Contacts[name], says.Contacts[name])})
		}
	}
	for _, m := range slices.SortedFunc(maps.Keys(says.Marks), compare) {
		if hidden(m.Room) {
			continue
		}
		of := seqs(m)
		if have, want := upTo(of, p.known(m)), upTo(of, says.Marks[m]); have != want {
			wrong = append(wrong, Difference{Room: m.Room, Text: fmt.Sprintf("%s: known %d, HTTP says %d", m, have, want)})
		}
	}
	return wrong
}

func union(a, b map[string]bool) map[string]bool {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func compare(a, b Mark) int {
	read := func(m Mark) int {
		if m.Read {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.User, b.User), cmp.Compare(read(a), read(b)))
}

// upTo is the youngest of seqs that is not above seq.
func upTo(seqs []int64, seq int64) (best int64) {
	for _, s := range seqs {
		if s <= seq {
			best = max(best, s)
		}
	}
	return best
}
