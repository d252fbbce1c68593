package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

// Whoever walks through all pages is shown each conversation, whatever moves meanwhile, and as young as it was when the walk began.
func TestConversationsThatMoveAreShown(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		const partitions, rooms = 3, 24
		ctx := context.Background()
		if err := s.Init(ctx, partitions); err != nil {
			t.Fatal(err)
		}
		var seqs [partitions]int64
		var last [rooms]int64
		clock := int64(1000)
		for p := range partitions {
			if _, err := s.Acquire(ctx, p, "me", time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		say := func(i int) {
			t.Helper()
			p := i % partitions
			seqs[p]++
			clock += r.Int64N(2)
			// One partition lags behind: what comes from it was sent a while ago.
			b := Batch{P: p, Owner: "me", Lease: time.Hour, From: seqs[p] - 1, To: seqs[p], Complete: true, Messages: []Message{{
				Seq: seqs[p], Room: room.Room{A: "m", B: fmt.Sprintf("n%02d", i)}, ID: fmt.Sprint(i, ".", seqs[p]), Content: []byte("c"), SentAt: clock - int64(p)*20,
			}}}
			if i%2 == 0 { // the user is the second one in half of them
				b.Messages[0].Room = room.Room{A: fmt.Sprintf("a%02d", i), B: "m"}
			}
			if _, err := s.Commit(ctx, &b); err != nil {
				t.Fatal(err)
			}
			last[i] = seqs[p]
		}
		for i := range rooms - 4 { // four come while pages are read
			say(i)
		}
		for range 25 {
			want, seen, pages := last, map[string]int64{}, 0
			req := api.ConversationsRequest{Username: "m", Limit: 1 + r.IntN(6)}
			for {
				page, err := s.Conversations(ctx, req)
				if err != nil {
					t.Fatal(err)
				}
				inPage := map[string]bool{}
				for _, c := range page.Conversations {
					if inPage[c.Room] {
						t.Fatalf("%s is twice in a page", c.Room)
					}
					inPage[c.Room] = true
					seen[c.Peer] = c.LastMessage.Seq
				}
				if len(page.Conversations) > req.Limit || page.Next != "" && len(page.Conversations) == 0 {
					t.Fatalf("%d conversations, next %q", len(page.Conversations), page.Next)
				}
				if pages++; page.Next == "" {
					break
				}
				req.After = page.Next
				if pages < 40 { // then they rest
					for range r.IntN(4) {
						say(r.IntN(rooms))
					}
				}
			}
			for i, seq := range want {
				peer := fmt.Sprintf("n%02d", i)
				if i%2 == 0 {
					peer = fmt.Sprintf("a%02d", i)
				}
				if seq > 0 && seen[peer] < seq {
					t.Fatalf("limit %d: %s is at %d, shown at %d", req.Limit, peer, seq, seen[peer])
				}
			}
		}
	})
}

// The walk's first page is in the order of the youngest message, and one page is all of a short list.
func TestConversationsOfOnePage(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		load(t, s)
		page, err := s.Conversations(context.Background(), api.ConversationsRequest{Username: "u10000", Limit: 5})
		if err != nil || len(page.Conversations) != 5 || page.Next != "" || page.Conversations[0].Peer != "v50004" {
			t.Fatalf("%+v, %v", page, err)
		}
	})
}
