package history_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
)

// heard collects announcements of marks.
func heard(c *client) <-chan api.Marks {
	ch := make(chan api.Marks, 1000)
	sub, err := c.nc.Subscribe(subject.Marks, func(m *nats.Msg) {
		var a api.Marks
		if err := json.Unmarshal(m.Data, &a); err != nil {
			c.t.Fatalf("%s: %v", m.Data, err)
		}
		ch <- a
	})
	if err == nil {
		err = c.nc.Flush()
	}
	if err != nil {
		c.t.Fatalf("listen: %v", err)
	}
	c.t.Cleanup(func() { _ = sub.Unsubscribe() })
	return ch
}

// Every move is announced once, by a chain without holes that goes on while nothing moves and says when it ends; and what moved can be asked for.
func TestMarksAreAnnouncedAndCanBeAskedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, r, c := start(t, sqlURL)
		ch := heard(c)
		var last api.Marks
		next := func() api.Marks {
			t.Helper()
			select {
			case a := <-ch:
				if last.Source != "" && (a.Source != last.Source || a.From != last.To) {
					t.Fatalf("%+v after %+v", a, last)
				}
				last = a
				return a
			case <-time.After(20 * time.Second):
				t.Fatal("no announcement")
				return last
			}
		}
		row := func() api.Mark {
			t.Helper()
			for {
				if a := next(); len(a.Rows) > 0 {
					if len(a.Rows) != 1 {
						t.Fatalf("%+v", a)
					}
					return a.Rows[0]
				}
			}
		}
		s1 := c.send("avi", "lisa", "1", "hello")
		s2 := c.send("avi", "lisa", "2", "there")
		c.settle()
		if a := next(); a.From != a.To || len(a.Rows) != 0 {
			t.Errorf("nothing has moved: %+v", a)
		}

		confirm := api.Confirm{User: "lisa", Device: "phone", A: "avi", B: "lisa", Seq: s1, PeerSeq: s1, Session: "x"}
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{confirm}})
		if m := row(); m != (api.Mark{User: "lisa", Peer: "avi", Delivered: s1, Session: "x"}) {
			t.Errorf("%+v", m)
		}
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{confirm}})                                     // nothing moves
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "avi", A: "avi", B: "lisa", Seq: s2}}}) // nobody waits for it
		ask(c, api.HistoryRead, api.ReadRequest{User: "lisa", A: "avi", B: "lisa", Seq: s2, Session: "y"})
		if m := row(); m != (api.Mark{User: "lisa", Peer: "avi", Read: s2, Session: "y"}) {
			t.Errorf("%+v", m)
		}
		ask(c, api.HistoryRead, api.ReadRequest{User: "lisa", A: "avi", B: "lisa", Seq: s1, Session: "y"}) // never back

		want := []api.Mark{{User: "avi", Peer: "lisa", Delivered: s2}, {User: "lisa", Peer: "avi", Read: s2, Delivered: s2}}
		check := func(what string, req api.MarksRequest, want []api.Mark) {
			t.Helper()
			if got := ask(c, api.HistoryMarks, req); !slices.Equal(got.Rows, want) || got.Cont != "" {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		check("of the last minute", api.MarksRequest{AgeMS: 60_000}, want)
		check("of a room", api.MarksRequest{Pairs: []api.Pair{{User: "lisa", Peer: "avi"}}}, want)
		check("of another room", api.MarksRequest{Pairs: []api.Pair{{User: "lisa", Peer: "bob"}}}, []api.Mark{})
		testx.Eventually(t, "time passes", 10*time.Second, func() bool { // the database's clock says so
			return len(ask(c, api.HistoryMarks, api.MarksRequest{AgeMS: 1}).Rows) == 0
		})
		c.refused(wire.InvalidArgument, api.HistoryMarks.Subject, api.MarksRequest{AgeMS: -1})
		c.refused(wire.InvalidArgument, api.HistoryMarks.Subject, api.MarksRequest{Cont: "no"})

		r.stop()
		for !last.Ended {
			if a := next(); len(a.Rows) > 0 {
				t.Errorf("nothing has moved: %+v", a)
			}
		}
	})
}

// A long list of marks comes in pages, each mark once.
func TestMarksComeInPages(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		const rooms = 2000
		var items []api.Confirm
		var acks []jetstream.PubAckFuture
		for i := range rooms {
			name := "p" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
			rm := pair("me", name)
			ack, err := c.js.PublishMsgAsync(message(rm, "me", name, "x", c.p))
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
			items = append(items, api.Confirm{User: "me", A: rm.A, B: rm.B})
		}
		for _, a := range acks {
			c.acked(a)
		}
		c.settle()
		for len(items) > 0 {
			ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: items[:100]}) // few: a request has its time, and the machine may be busy
			items = items[100:]
		}
		seen := map[string]int{}
		req, pages := api.MarksRequest{AgeMS: 600_000}, 0
		for {
			resp := ask(c, api.HistoryMarks, req)
			pages++
			for _, m := range resp.Rows {
				seen[m.Peer]++
			}
			if req.Cont = resp.Cont; req.Cont == "" {
				break
			}
		}
		if len(seen) != rooms || pages < 2 {
			t.Errorf("%d of %d marks in %d pages", len(seen), rooms, pages)
		}
		for peer, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", peer, n)
			}
		}
	})
}
