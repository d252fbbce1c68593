package picture

import (
	"testing"

	"parley.example/client"
)

func TestPictureWrong(t *testing.T) {
	t.Parallel()
	const room = "Avi&Lisa"
	says := Of("Avi", []client.Contact{{Username: "Lisa"}}, []client.Conversation{{Room: room, Peer: "Lisa", ReadSeq: 4, PeerReadSeq: 3, PeerDeliveredSeq: 7}})
	seqs := func(m Mark) []int64 { // Avi wrote 2 and 6, Lisa 4
		if m.User == "Lisa" {
			return []int64{2, 6}
		}
		return []int64{4}
	}
	all, none := func(string) bool { return true }, func(string) bool { return false }
	for name, x := range map[string]struct {
		change func(p *Picture)
		wrong  Difference
	}{
		"all is told":                 {func(*Picture) {}, Difference{}},
		"a mark on one's own message": {func(p *Picture) { p.Marks[Mark{room, "Avi", true}] = 5 }, Difference{}},
		"who has read has been delivered": {func(p *Picture) {
			p.Marks[Mark{room, "Lisa", false}] = 0
			p.Marks[Mark{room, "Lisa", true}] = 5
			says.Marks[Mark{room, "Lisa", false}] = 3
		}, Difference{}},
		"a mark is missing":     {func(p *Picture) { p.Marks[Mark{room, "Avi", true}] = 3 }, Difference{Room: room, Text: "Avi in Avi&Lisa has read up to: known 0, HTTP says 4"}},
		"a mark is too far":     {func(p *Picture) { p.Move(Mark{room, "Lisa", true}, 6) }, Difference{Room: room, Text: "Lisa in Avi&Lisa has read up to: known 6, HTTP says 2"}},
		"a contact is missing":  {func(p *Picture) { p.Contact("Lisa", false) }, Difference{Name: "Lisa", Text: "Lisa is a contact: known false, HTTP says true"}},
		"a contact is too many": {func(p *Picture) { p.Contact("Mia", true) }, Difference{Name: "Mia", Text: "Mia is a contact: known true, HTTP says false"}},
	} {
		known, truth := says.Clone(), says
		says = says.Clone()
		x.change(known)
		wrong := known.Wrong(says, seqs, none, all)
		if x.wrong == (Difference{}) && len(wrong) > 0 || x.wrong != (Difference{}) && (len(wrong) != 1 || wrong[0] != x.wrong) {
			t.Errorf("%s: %q", name, wrong)
		}
		if hidden := known.Wrong(says, seqs, all, none); len(hidden) > 0 {
			t.Errorf("%s: of what is hidden, and of those who are nobody's concern: %q", name, hidden)
		}
		says = truth
	}
}
