package history_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/history"
)

// TestModelAnswers sends at random, also twins and used ids, and compares pages, catch-ups and counts with a model in memory.
func TestModelAnswers(t *testing.T) {
	// A check is some hundred requests; rapid's own default of 100 takes minutes under the race detector.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("25"); err != nil {
			t.Fatal(err)
		}
	}
	onBoth(t, func(t *testing.T, sqlURL string) {
		users := []string{"avi", "bob", "Lisa", "zoë"}
		n := testx.NatsServer(t)
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			// Each run has rooms of its own, in one long-lived installation.
			name := func(i int) string { return fmt.Sprintf("%s%d", users[i], runs) }
			if runs == 1 {
				launch(t, n.ClientURL(), sqlURL, func(c *history.Config) { c.Streams.Partitions = 3 }).ready()
			}
			c := newClient(t, n.ClientURL(), 3)
			type stored struct {
				api.StoredMessage
				hidden bool
			}
			var all []stored
			for range rapid.IntRange(1, 60).Draw(rt, "messages") {
				from := rapid.IntRange(0, 3).Draw(rt, "from")
				to := (from + rapid.IntRange(1, 3).Draw(rt, "to")) % 4
				id, text := fmt.Sprint(rapid.IntRange(0, 30).Draw(rt, "id")), fmt.Sprint(rapid.IntRange(0, 1).Draw(rt, "text"))
				rm := pair(name(from), name(to))
				m := stored{StoredMessage: api.StoredMessage{A: rm.A, B: rm.B, Sender: name(from), ID: id, Content: text}}
				for _, o := range all {
					if o.A == m.A && o.B == m.B && o.Sender == m.Sender && o.ID == id && o.Content == text {
						m.hidden = true
					}
				}
				m.Seq = c.resend(name(from), name(to), id, text)
				all = append(all, m)
			}
			c.settle()
			read := map[string]int64{}
			for i := range users {
				for k := range users {
					if i == k {
						continue
					}
					me, peer := name(i), name(k)
					rm := pair(me, peer)
					var want, in []int64
					for _, m := range all {
						if m.A == rm.A && m.B == rm.B && !m.hidden {
							want = append(want, m.Seq)
							if m.Sender == peer {
								in = append(in, m.Seq)
							}
						}
					}
					ms := c.room(me, peer)
					if !slices.Equal(seqs(ms), want) {
						rt.Fatalf("%s has %v, want %v", rm, seqs(ms), want)
					}
					var prev int64
					for _, m := range ms {
						if m.Prev == nil || *m.Prev != prev {
							rt.Fatalf("%s: before %d is %v, want %d", rm, m.Seq, m.Prev, prev)
						}
						prev = m.Seq
					}
					limit := rapid.IntRange(1, 5).Draw(rt, "limit")
					var back []int64
					for before := int64(0); ; before = back[0] {
						p := ask(c, api.HistoryPage, api.PageRequest{A: rm.A, B: rm.B, Before: before, Limit: limit})
						back = append(seqs(p.Messages), back...)
						if !p.More {
							break
						}
					}
					if !slices.Equal(back, want) {
						rt.Fatalf("%s backwards has %v, want %v", rm, back, want)
					}
					if len(want) == 0 {
						continue
					}
					at := rapid.SampledFrom(want).Draw(rt, "read")
					read[me+" "+peer] = at
					unread := 0
					for _, seq := range in {
						if seq > at {
							unread++
						}
					}
					if r := ask(c, api.HistoryRead, readOf(me, peer, at)); r.Seq != at || r.Unread != int64(unread) || !r.Moved {
						rt.Fatalf("%s read %s up to %d: %+v, want %d unread", me, peer, at, r, unread)
					}
				}
			}
			for i := range users {
				me := name(i)
				vector := []int64{}
				for _, end := range c.ends() {
					vector = append(vector, max(0, end-int64(rapid.IntRange(0, 30).Draw(rt, "back"))))
				}
				var byCursor, byVector []api.StoredMessage
				for _, m := range all {
					peer := pair(m.A, m.B).Peer(me)
					if m.hidden || peer == "" {
						continue
					}
					if m.Seq > read[me+" "+peer] {
						byCursor = append(byCursor, m.StoredMessage)
					}
					if m.Seq > vector[c.partition(m.A, m.B)] {
						byVector = append(byVector, m.StoredMessage)
					}
				}
				for what, tc := range map[string]struct {
					item api.CatchUpItem
					want []api.StoredMessage
				}{"cursors": {api.CatchUpItem{User: me}, byCursor}, "a vector": {api.CatchUpItem{User: me, Vector: vector}, byVector}} {
					slices.SortStableFunc(tc.want, byRoomThenSeq)
					got, _ := c.catchUp(tc.item)
					if !slices.Equal(seqs(got), seqs(tc.want)) {
						rt.Fatalf("%s catches up by %s on %v, want %v", me, what, seqs(got), seqs(tc.want))
					}
				}
				for _, v := range ask(c, api.HistoryConversations, api.ConversationsRequest{Username: me}).Conversations {
					if v.ReadSeq != read[me+" "+v.Peer] || v.PeerReadSeq != read[v.Peer+" "+me] {
						rt.Fatalf("%s with %s: %+v", me, v.Peer, v)
					}
				}
			}
			c.nc.Close()
		})
	})
}

// TestModelOneSnapshotWhileMessagesCome reads while it is written: an answer has everything up to the position that it names.
func TestModelOneSnapshotWhileMessagesCome(t *testing.T) {
	for name, url := range map[string]string{"sqlite": "sqlite:" + filepath.Join(t.TempDir(), "h.db"), "postgres": testx.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			n, _, c := start(t, url)
			done := make(chan struct{})
			go func() {
				defer close(done)
				newClient(t, n.ClientURL(), 1).burst("avi", "lisa", "m", 3000)
			}()
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				resp := ask(c, api.HistoryCatchUp, api.CatchUpRequest{Items: []api.CatchUpItem{{User: "lisa"}}})
				ms := resp.Results[0].Messages
				if resp.Results[0].Cont == "" && int64(len(ms)) != resp.Applied[0] {
					t.Fatalf("%d messages at position %d", len(ms), resp.Applied[0])
				}
			}
		})
	}
}
