package history_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

func TestIngestInOrderWithPredecessors(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		s1 := c.send("avi", "lisa", "1", "hello")
		c.send("avi", "bob", "1b", "another room")
		s2 := c.send("lisa", "avi", "2", "hi <b>&\u2028\x00 \"quoted\" \\ 🙂")
		c.settle()
		ms := c.room("lisa", "avi")
		if len(ms) != 2 {
			t.Fatalf("%d messages, want 2", len(ms))
		}
		a, b := ms[0], ms[1]
		if a.Seq != s1 || a.Prev == nil || *a.Prev != 0 || a.Sender != "avi" || a.ID != "1" || a.A != "avi" || a.B != "lisa" || a.SentAt == 0 {
			t.Errorf("first message %+v", a)
		}
		if b.Seq != s2 || b.Prev == nil || *b.Prev != s1 || b.Sender != "lisa" || b.Content != "hi <b>&\u2028\x00 \"quoted\" \\ 🙂" {
			t.Errorf("second message %+v", b)
		}
	})
}

func TestPagesBothWays(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		c.burst("avi", "lisa", "m", 25)
		c.burst("avi", "bob", "b", 3)
		c.settle()
		all := seqs(c.room("avi", "lisa"))
		if len(all) != 25 {
			t.Fatalf("%d messages", len(all))
		}
		page := func(req api.PageRequest) api.PageResponse {
			req.A, req.B = "avi", "lisa"
			return ask(c, api.HistoryPage, req)
		}
		newest := page(api.PageRequest{Limit: 10})
		if !slices.Equal(seqs(newest.Messages), all[15:]) || !newest.More {
			t.Errorf("newest: %v, more %v", seqs(newest.Messages), newest.More)
		}
		older := page(api.PageRequest{Limit: 15, Before: all[15]})
		if !slices.Equal(seqs(older.Messages), all[:15]) || older.More {
			t.Errorf("before: %v, more %v", seqs(older.Messages), older.More)
		}
		after := all[20]
		newer := page(api.PageRequest{Limit: 10, After: &after})
		if !slices.Equal(seqs(newer.Messages), all[21:]) || newer.More {
			t.Errorf("after: %v, more %v", seqs(newer.Messages), newer.More)
		}
		if p := ask(c, api.HistoryPage, api.PageRequest{A: "nobody", B: "other"}); len(p.Messages) != 0 || p.More {
			t.Errorf("an unknown room has %v", p)
		}
		c.refused(wire.InvalidArgument, api.HistoryPage.Subject, api.PageRequest{A: "lisa", B: "avi"})
		c.refused(wire.InvalidArgument, api.HistoryPage.Subject, api.PageRequest{A: "avi", B: "lisa", Before: 3, After: &after})
		c.refused(wire.InvalidArgument, api.HistoryPage.Subject, []int{1})
	})
}

// Answers stay below what NATS carries, however large the messages are.
func TestPagesAreCutBySize(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		text := strings.Repeat("<", 16<<10) // six bytes each in JSON
		var want []int64
		for i := range 30 {
			want = append(want, c.send("avi", "lisa", fmt.Sprint(i), text))
		}
		c.settle()
		var back []int64
		for before := int64(0); ; before = back[0] {
			p := ask(c, api.HistoryPage, api.PageRequest{A: "avi", B: "lisa", Before: before, Limit: 200})
			back = append(seqs(p.Messages), back...)
			if !p.More {
				break
			}
		}
		if !slices.Equal(back, want) {
			t.Errorf("backwards: %v", back)
		}
		if got := seqs(c.room("avi", "lisa")); !slices.Equal(got, want) {
			t.Errorf("forwards: %v", got)
		}
		if ms, pages := c.catchUp(api.CatchUpItem{User: "lisa"}); !slices.Equal(seqs(ms), want) || pages < 5 {
			t.Errorf("caught up %v in %d pages", seqs(ms), pages)
		}
		ms := ask(c, api.HistoryMessages, api.MessagesRequest{P: 0, Seqs: want}).Messages
		if len(ms) == 0 || len(ms) == len(want) || !slices.Equal(seqs(ms), want[:len(ms)]) {
			t.Errorf("by seq: %v", seqs(ms))
		}
	})
}

func TestIngestTwins(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, r, c := start(t, sqlURL)
		first := c.send("avi", "lisa", "x", "once")
		twin := c.resend("avi", "lisa", "x", "once") // in the same batch, or the next
		c.settle()
		late := c.resend("avi", "lisa", "x", "once")
		other := c.resend("avi", "bob", "x", "once")      // the id in another room
		changed := c.resend("avi", "lisa", "x", "twice?") // another content
		again := c.resend("avi", "lisa", "x", "twice?")
		hers := c.resend("lisa", "avi", "x", "once") // another sender
		c.settle()
		if got := seqs(c.room("avi", "lisa")); !slices.Equal(got, []int64{first, changed, hers}) {
			t.Errorf("the room has %v, want %v", got, []int64{first, changed, hers})
		}
		if got := seqs(c.room("avi", "bob")); !slices.Equal(got, []int64{other}) {
			t.Errorf("the other room has %v", got)
		}
		ms := ask(c, api.HistoryMessages, api.MessagesRequest{Seqs: []int64{first, twin, late, other, changed, again, hers, 999}}).Messages
		var alias []int64
		for _, m := range ms {
			alias = append(alias, m.Alias)
		}
		if want := []int64{0, first, first, 0, 0, changed, 0}; !slices.Equal(alias, want) {
			t.Errorf("aliases %v, want %v", alias, want)
		}
		if p := ms[4].Prev; p == nil || *p != first {
			t.Errorf("a twin is a predecessor: %v", p)
		}
		conv := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "lisa"}).Conversations[0]
		if conv.Unread != 2 || conv.LastMessage.Seq != hers {
			t.Errorf("conversation %+v", conv)
		}
		if got, _ := c.catchUp(api.CatchUpItem{User: "bob"}); len(got) != 1 {
			t.Errorf("caught up %v", got)
		}
		rows := ask(c, api.HistoryRows, api.RowsRequest{From: first - 1, To: hers})
		if len(rows.Rows) != 7 || rows.To != hers {
			t.Errorf("rows %+v", rows)
		}
		if n := r.metric("aliases_total"); n != 3 {
			t.Errorf("%v aliases counted", n)
		}
	})
}

func TestIngestSkipsGarbage(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, r, c := start(t, sqlURL)
		long := strings.Repeat("x", 300)
		for _, m := range []struct{ subj, body string }{
			{"room.0.avi.lisa", "not json"},
			{"room.0.lisa.avi", `{"v":1,"s":"avi","i":"1","c":"swapped"}`},
			{"room.0.avi.lisa", `{"v":1,"s":"eve","i":"1","c":"not hers"}`},
			{"room.0.avi.lisa", `{"v":1,"s":"avi","i":"","c":"no id"}`},
			{"room.0.avi.lisa", `{"v":1,"s":"avi","i":"a\u0000b","c":"zero"}`},
			{"room.0.a_00b.lisa", `{"v":1,"s":"lisa","i":"1","c":"zero"}`},
			{"room.0.a_FF.lisa", `{"v":1,"s":"lisa","i":"1","c":"not UTF-8"}`},
			{"room.0.avi." + long, `{"v":1,"s":"avi","i":"1","c":"long"}`},
		} {
			if _, err := c.nc.Request(m.subj, []byte(m.body), 5e9); err != nil {
				t.Fatal(err)
			}
		}
		// A gateway that tries whether the stream stores is no garbage: it is not counted.
		if _, err := c.nc.Request(subject.Probe(0), nil, 5e9); err != nil {
			t.Fatal(err)
		}
		seq := c.send("avi", "lisa", "1", "good")
		c.settle()
		if got := seqs(c.room("avi", "lisa")); !slices.Equal(got, []int64{seq}) {
			t.Errorf("the room has %v", got)
		}
		if n := r.metric("unparseable_total"); n != 8 {
			t.Errorf("%v skipped, want 8", n)
		}
	})
}

func TestFind(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		seq := c.send("avi", "lisa", "x", "hello")
		find := func(sender, id string, min int64) *api.StoredMessage {
			return ask(c, api.HistoryFind, api.FindRequest{Sender: sender, ID: id, MinApplied: min}).Message
		}
		if m := find("avi", "x", seq); m == nil || m.Seq != seq || m.Content != "hello" {
			t.Errorf("found %+v", m)
		}
		if m := find("lisa", "x", seq); m != nil {
			t.Errorf("found %+v of another sender", m)
		}
		c.refused(wire.Unavailable, api.HistoryFind.Subject, api.FindRequest{Sender: "avi", ID: "y", MinApplied: seq + 1})
		if m := find("avi", "x", seq+1); m == nil {
			t.Error("what is there was not found because SQL is behind")
		}
		c.refused(wire.InvalidArgument, api.HistoryFind.Subject, api.FindRequest{Sender: "avi", ID: "y", P: 1})
	})
}

func TestRowsAreCutAndNeverPromiseTooMuch(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		c.burst("avi", "lisa", "m", 2000)
		c.settle()
		var got []api.Row
		from := int64(0)
		for from < 2000 {
			r := ask(c, api.HistoryRows, api.RowsRequest{From: from, To: 5000})
			if r.To <= from || r.To > 2000 {
				t.Fatalf("from %d to %d", from, r.To)
			}
			got, from = append(got, r.Rows...), r.To
		}
		if len(got) != 2000 || got[1999] != (api.Row{A: "avi", B: "lisa", Seq: 2000}) {
			t.Errorf("%d rows", len(got))
		}
		if r := ask(c, api.HistoryRows, api.RowsRequest{From: 2000, To: 5000}); r.To != 2000 || len(r.Rows) != 0 {
			t.Errorf("beyond the position: %+v", r)
		}
	})
}

func TestConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		peers := []string{"bob", "carl", "zoe", "Dan", "élan"}
		last := map[string]int64{}
		for i, p := range peers {
			c.send("me", p, fmt.Sprint("out", i), "question")
			last[p] = c.send(p, "me", fmt.Sprint("in", i), "answer")
		}
		c.settle()
		read := ask(c, api.HistoryRead, readOf("me", "zoe", last["zoe"]))
		if !read.Moved || read.Seq != last["zoe"] || read.Unread != 0 {
			t.Errorf("read %+v", read)
		}
		var got []string
		after, pages := "", 0
		for {
			p := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "me", After: after, Limit: 2})
			pages++
			for _, v := range p.Conversations {
				got = append(got, v.Peer)
				unread := int64(1)
				if v.Peer == "zoe" {
					unread = 0
				}
				if v.Unread != unread || v.LastMessage.Seq != last[v.Peer] || v.Room != pair("me", v.Peer).String() {
					t.Errorf("%s: %+v", v.Peer, v)
				}
			}
			if after = p.Next; after == "" {
				break
			}
		}
		slices.Sort(got)
		if want := []string{"Dan", "bob", "carl", "zoe", "élan"}; !slices.Equal(got, want) || pages != 3 {
			t.Errorf("%v in %d pages", got, pages)
		}
		hers := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "zoe"}).Conversations
		if len(hers) != 1 || hers[0].PeerReadSeq != last["zoe"] || hers[0].PeerDeliveredSeq != last["zoe"] || hers[0].ReadSeq != 0 || hers[0].Unread != 1 {
			t.Errorf("her side %+v", hers)
		}
		for _, made := range []string{"???", `{"t":1,"a":"\u0000"}`, `{"t":1,"a":"a","b":"x\u0000"}`, `{"t":"x"}`, `[`} {
			c.refused(wire.InvalidArgument, api.HistoryConversations.Subject, api.ConversationsRequest{Username: "me", After: base64.RawURLEncoding.EncodeToString([]byte(made))})
		}
	})
}

func readOf(user, peer string, seq int64) api.ReadRequest {
	rm := pair(user, peer)
	return api.ReadRequest{User: user, A: rm.A, B: rm.B, Seq: seq}
}

func TestReadMarkers(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		var in []int64
		for i := range 6 {
			in = append(in, c.send("lisa", "avi", fmt.Sprint(i), "text"))
			c.send("avi", "lisa", fmt.Sprint("o", i), "own")
		}
		c.settle()
		for _, step := range []struct{ ask, seq, unread int64 }{
			{in[2], in[2], 3}, {in[1], in[2], 3}, {0, in[2], 3}, {in[5], in[5], 0}, {1 << 40, in[5] + 1, 0}, {in[0], in[5] + 1, 0},
		} {
			r := ask(c, api.HistoryRead, readOf("avi", "lisa", step.ask))
			if r.Seq != step.seq || r.Unread != step.unread || r.Behind != (step.ask == 1<<40) {
				t.Errorf("read %d: %+v, want %+v", step.ask, r, step)
			}
		}
		// Straight after sending: Read waits for SQL, or the marker would stop short.
		for i := range 20 {
			seq := c.send("lisa", "avi", fmt.Sprint("live", i), "text")
			if r := ask(c, api.HistoryRead, readOf("avi", "lisa", seq)); r.Seq != seq || !r.Moved || r.Unread != 0 {
				t.Fatalf("read live %d: %+v", seq, r)
			}
		}
		first := ask(c, api.HistoryRead, readOf("lisa", "zoe", c.send("zoe", "lisa", "1", "the room's first")))
		if !first.Moved {
			t.Errorf("a new room: %+v", first)
		}
		end := c.ends()[0] - 1
		c.send("lisa", "avi", "new", "text")
		c.settle()
		conv := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "avi"}).Conversations[0]
		if conv.Unread != 1 || conv.ReadSeq != end || conv.DeliveredSeq != end {
			t.Errorf("conversation %+v", conv)
		}
		if r := ask(c, api.HistoryRead, readOf("avi", "nobody", 3)); r != (api.ReadResponse{}) {
			t.Errorf("an unknown room: %+v", r)
		}
		c.refused(wire.InvalidArgument, api.HistoryRead.Subject, api.ReadRequest{User: "eve", A: "avi", B: "lisa", Seq: 1})
	})
}
