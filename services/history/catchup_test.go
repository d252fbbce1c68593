package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
)

func TestCatchUpStartingPoints(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		var bob, lisa []int64
		for i := range 4 {
			bob = append(bob, c.send("bob", "avi", fmt.Sprint(i), "from bob"))
			lisa = append(lisa, c.send("lisa", "avi", fmt.Sprint(i), "from lisa"))
		}
		c.send("bob", "lisa", "private", "not for avi")
		c.settle()
		confirm := func(user, device, peer string, seq int64) {
			rm := pair(user, peer)
			ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: user, Device: device, A: rm.A, B: rm.B, Seq: seq}}})
		}
		confirm("avi", "phone", "bob", bob[1])
		confirm("avi", "", "bob", bob[2])
		confirm("avi", "", "bob", bob[0]) // never back
		confirm("avi", "", "lisa", lisa[3])
		end := c.ends()[0]
		all := slices.Concat(bob, lisa)
		for name, tc := range map[string]struct {
			item api.CatchUpItem
			want []int64
		}{
			"what no session confirmed":      {api.CatchUpItem{}, bob[3:]},
			"what a device did not confirm":  {api.CatchUpItem{Device: "phone"}, slices.Concat(bob[2:], lisa)},
			"a new device":                   {api.CatchUpItem{Device: "tablet"}, bob[3:]},
			"a vector":                       {api.CatchUpItem{Vector: []int64{lisa[1]}}, slices.Concat(bob[2:], lisa[2:])},
			"a vector wins over a device":    {api.CatchUpItem{Vector: []int64{lisa[3]}, Device: "phone"}, nil},
			"since":                          {api.CatchUpItem{Since: map[string]int64{"avi&bob": 0}}, bob},
			"since above a cursor":           {api.CatchUpItem{Since: map[string]int64{"avi&bob": bob[3]}}, nil},
			"since and a vector":             {api.CatchUpItem{Since: map[string]int64{"avi&bob": bob[0]}, Vector: []int64{lisa[2]}}, slices.Concat(bob[1:], lisa[3:])},
			"some rooms":                     {api.CatchUpItem{Rooms: []string{"avi&lisa"}, Device: "phone"}, lisa},
			"some rooms with since":          {api.CatchUpItem{Rooms: []string{"avi&lisa", "avi&bob"}, Since: map[string]int64{"avi&lisa": lisa[1]}}, slices.Concat(bob[3:], lisa[2:])},
			"no rooms":                       {api.CatchUpItem{Rooms: []string{"avi&zoe", "bogus", "", "avi&avi"}}, nil},
			"a room of others":               {api.CatchUpItem{Rooms: []string{"bob&lisa"}}, nil},
			"since a room of others":         {api.CatchUpItem{Rooms: []string{"bob&lisa"}, Since: map[string]int64{"bob&lisa": 0}}, nil},
			"up to":                          {api.CatchUpItem{Vector: []int64{0}, Upto: []int64{bob[1]}}, slices.Concat(bob[:2], lisa[:1])},
			"up to above everything":         {api.CatchUpItem{Vector: []int64{0}, Upto: []int64{end + 100}}, all},
			"between two vectors":            {api.CatchUpItem{Vector: []int64{bob[1]}, Upto: []int64{bob[2]}}, slices.Concat(bob[2:3], lisa[1:2])},
			"a room twice":                   {api.CatchUpItem{Rooms: []string{"avi&lisa", "avi&lisa"}, Device: "phone"}, lisa},
			"since the same room as in all":  {api.CatchUpItem{Since: map[string]int64{"avi&lisa": lisa[0]}, Device: "phone"}, slices.Concat(bob[2:], lisa[1:])},
			"a vector with a room named too": {api.CatchUpItem{Rooms: []string{"avi&lisa"}, Vector: []int64{lisa[2]}}, lisa[3:]},
		} {
			item := tc.item
			item.User = "avi"
			got, _ := c.catchUp(item)
			if !slices.Equal(seqs(got), tc.want) {
				t.Errorf("%s: %v, want %v", name, seqs(got), tc.want)
			}
		}
		resp := ask(c, api.HistoryCatchUp, api.CatchUpRequest{MinApplied: []int64{end + 1}, Items: []api.CatchUpItem{{User: "avi"}}})
		if !resp.Behind || !slices.Equal(resp.Applied, []int64{end}) || len(resp.Results[0].Messages) != 1 {
			t.Errorf("behind: %+v", resp)
		}
		c.refused(wire.InvalidArgument, api.HistoryCatchUp.Subject, api.CatchUpRequest{Items: make([]api.CatchUpItem, 201)})
		c.refused(wire.InvalidArgument, api.HistoryCatchUp.Subject, api.CatchUpRequest{Items: []api.CatchUpItem{{User: "avi", Cont: "!"}}})
	})
}

// Many items share one answer: each gets something, and all get everything in the end.
func TestCatchUpOfManyIsFairAndComplete(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		const users = 30
		want := map[string]int{}
		c.burst("heavy", "peer", "h", 6000)
		want["heavy"] = 6000
		for i := range users {
			u := fmt.Sprintf("user%02d", i)
			for k := range 3 {
				c.burst(fmt.Sprint("friend", k), u, u+"-", 5+i)
				want[u] += 5 + i
			}
		}
		c.settle()
		items := []api.CatchUpItem{{User: "heavy"}}
		for i := range users {
			items = append(items, api.CatchUpItem{User: fmt.Sprintf("user%02d", i)})
		}
		got := map[string][]api.StoredMessage{}
		rounds := 0
		for len(items) > 0 {
			resp := ask(c, api.HistoryCatchUp, api.CatchUpRequest{Items: items})
			rounds++
			var more []api.CatchUpItem
			for i, r := range resp.Results {
				if rounds == 1 && len(r.Messages) == 0 {
					t.Errorf("%s got nothing in the first round", items[i].User)
				}
				got[items[i].User] = append(got[items[i].User], r.Messages...)
				if items[i].Cont = r.Cont; r.Cont != "" {
					more = append(more, items[i])
				}
			}
			items = more
		}
		for u, n := range want {
			if len(got[u]) != n {
				t.Errorf("%s got %d, want %d", u, len(got[u]), n)
			}
			if !slices.IsSortedFunc(got[u], byRoomThenSeq) {
				t.Errorf("%s is out of order", u)
			}
		}
		if rounds < 2 || rounds > 20 {
			t.Errorf("%d rounds", rounds)
		}
	})
}

func byRoomThenSeq(x, y api.StoredMessage) int {
	switch {
	case x.A != y.A:
		return cmp(x.A, y.A)
	case x.B != y.B:
		return cmp(x.B, y.B)
	}
	return cmp(x.Seq, y.Seq)
}

func cmp[T int64 | string](x, y T) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// Another session's confirmation between two pages takes nothing away from the room that is being read.
func TestCatchUpContIgnoresLaterCursors(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		c.burst("avi", "lisa", "m", 5000)
		c.settle()
		item := api.CatchUpItem{User: "lisa"}
		resp := ask(c, api.HistoryCatchUp, api.CatchUpRequest{Items: []api.CatchUpItem{item}})
		n := len(resp.Results[0].Messages)
		if item.Cont = resp.Results[0].Cont; item.Cont == "" {
			t.Fatal("not cut")
		}
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "lisa", A: "avi", B: "lisa"}}}) // 0: all
		rest, _ := c.catchUp(item)
		if n+len(rest) != 5000 {
			t.Errorf("%d + %d messages, want 5000", n, len(rest))
		}
		if got, _ := c.catchUp(api.CatchUpItem{User: "lisa"}); len(got) != 0 {
			t.Errorf("%d messages after all was confirmed", len(got))
		}
	})
}

func TestDevicesSeventeenthReplacesTheOldest(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		seq := c.send("avi", "lisa", "1", "hello")
		c.settle()
		for i := range 17 {
			ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "lisa", Device: fmt.Sprintf("d%02d", i), A: "avi", B: "lisa", Seq: seq}}})
			time.Sleep(2 * time.Millisecond) // devices are told apart by the millisecond of their use
		}
		missed := func(device string) int {
			got, _ := c.catchUp(api.CatchUpItem{User: "lisa", Device: device})
			return len(got)
		}
		// What is said from here on is missed by all; the one that was forgotten starts where its user stands.
		next := c.send("avi", "lisa", "2", "again")
		c.settle()
		if missed("d01") != 1 || missed("d16") != 1 {
			t.Errorf("missed: %d %d", missed("d01"), missed("d16"))
		}
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "lisa", Device: "d16", A: "avi", B: "lisa", Seq: next}}})
		if missed("d00") != 0 || missed("d02") != 1 || missed("d01") != 0 {
			t.Errorf("missed: %d %d %d", missed("d00"), missed("d02"), missed("d01"))
		}
	})
}

// A device that nobody knows starts where its user stands, at its first join, and from then on has a place of its own.
func TestDevicesStartWhereTheirUserStands(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		old := c.send("bob", "avi", "1", "long ago")
		quiet := c.send("eve", "avi", "1", "confirmed, and never again")
		unseen := c.send("lisa", "avi", "1", "nobody has seen this")
		c.settle()
		confirm := func(device, peer string, seq int64) {
			rm := pair("avi", peer)
			ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "avi", Device: device, A: rm.A, B: rm.B, Seq: seq}}})
		}
		missed := func(device string) []int64 {
			got, _ := c.catchUp(api.CatchUpItem{User: "avi", Device: device})
			return seqs(got)
		}
		confirm("", "bob", old)
		confirm("", "eve", quiet)
		if got := missed("new"); !slices.Equal(got, []int64{unseen}) {
			t.Fatalf("a new device missed %v", got)
		}
		// Other sessions go on; what they confirm is not confirmed by the device.
		confirm("", "lisa", unseen)
		news := c.send("zoe", "avi", "1", "a new room")
		c.settle()
		confirm("other", "zoe", news)
		if got := missed("new"); !slices.Equal(got, []int64{unseen, news}) {
			t.Errorf("a known device missed %v", got)
		}
		confirm("new", "zoe", news)
		if got := missed("new"); !slices.Equal(got, []int64{unseen}) {
			t.Errorf("and then %v", got)
		}
		// One that comes with a place of its own is known from then on, too.
		c.catchUp(api.CatchUpItem{User: "avi", Device: "resumes", Vector: []int64{0}})
		last := c.send("bob", "avi", "2", "news")
		c.settle()
		confirm("", "bob", last)
		if got := missed("resumes"); !slices.Equal(got, []int64{last}) {
			t.Errorf("one that resumed first missed %v", got)
		}
	})
}

// Where an answer begins is below each room's first message, not below the last one that was confirmed.
func TestCatchUpTellsWhereItBegins(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		c.send("eve", "avi", "0", "of a room of which all was confirmed")
		for i := range 5 {
			c.send("bob", "avi", fmt.Sprint(i), "x")
		}
		first := c.send("lisa", "avi", "0", "the first one that was missed, of a room without a cursor")
		c.burst("lisa", "avi", "l", 3000)
		bob := c.send("bob", "avi", "9", "x")
		c.settle()
		end := c.ends()[0]
		for _, i := range []string{"eve", "bob"} {
			rm := pair("avi", i)
			ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: []api.Confirm{{User: "avi", A: rm.A, B: rm.B, Seq: first - 1}}})
		}
		begin := func(item api.CatchUpItem) []int64 {
			item.User, item.Begin = "avi", true
			return ask(c, api.HistoryCatchUp, api.CatchUpRequest{Items: []api.CatchUpItem{item}}).Results[0].Begin
		}
		for name, tc := range map[string]struct {
			item api.CatchUpItem
			want []int64
		}{
			"all":             {api.CatchUpItem{Upto: []int64{end}}, []int64{first - 1}},
			"one room":        {api.CatchUpItem{Upto: []int64{end}, Rooms: []string{"avi&bob"}}, []int64{bob - 1}},
			"nothing missed":  {api.CatchUpItem{Upto: []int64{end}, Rooms: []string{"avi&eve"}}, []int64{end}},
			"below the news":  {api.CatchUpItem{Upto: []int64{first - 1}}, []int64{first - 1}},
			"since":           {api.CatchUpItem{Upto: []int64{end}, Since: map[string]int64{"avi&eve": 0}}, []int64{0}},
			"without an end":  {api.CatchUpItem{}, nil},
			"in a later part": {api.CatchUpItem{Upto: []int64{end}, Cont: "eyJhIjoiYXZpIn0"}, nil},
		} {
			if got := begin(tc.item); !slices.Equal(got, tc.want) {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
			}
		}
	})
}

func TestConfirmOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		var items []api.Confirm
		for i := range 300 {
			u := fmt.Sprintf("user%03d", i)
			rm := pair("hub", u)
			seq := c.send("hub", u, u, "hello")
			items = append(items, api.Confirm{User: u, Device: "phone", A: rm.A, B: rm.B, Seq: seq}, api.Confirm{User: "hub", A: rm.A, B: rm.B, Seq: seq + 1000})
		}
		items = append(items, api.Confirm{User: "hub", A: "hub", B: "nobody", Seq: 5})
		c.settle()
		ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: items})
		convs := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "hub", Limit: 200}).Conversations
		for _, v := range convs {
			if v.DeliveredSeq != v.LastMessage.Seq || v.PeerDeliveredSeq != v.LastMessage.Seq {
				t.Fatalf("%+v", v)
			}
		}
		if got, _ := c.catchUp(api.CatchUpItem{User: "hub"}); len(got) != 0 {
			t.Errorf("%d left", len(got))
		}
		c.refused(wire.InvalidArgument, api.HistoryConfirm.Subject, api.ConfirmRequest{Items: []api.Confirm{{User: "eve", A: "avi", B: "lisa", Seq: 1}}})
	})
}
