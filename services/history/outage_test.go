package history_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/streams"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/services/history"
)

func TestOutageSQLDownAndBack(t *testing.T) {
	pg := testx.PostgresServer(t)
	_, r, c := start(t, pg.Database(t))
	c.burst("avi", "lisa", "before", 10)
	c.settle()
	pg.Stop()
	c.burst("avi", "lisa", "during", 3000)
	begun := time.Now()
	c.refused(wire.Unavailable, api.HistoryPage.Subject, api.PageRequest{A: "avi", B: "lisa"})
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("answered after %s", d)
	}
	testx.Eventually(t, "not ready", 20*time.Second, func() bool { return r.svc.Ready() != nil })
	pg.Start(t)
	c.settle()
	if n := len(c.room("avi", "lisa")); n != 3010 {
		t.Errorf("%d messages, want 3010", n)
	}
	r.ready()
}

func TestOutageStartsBeforeItsDependencies(t *testing.T) {
	pg := testx.PostgresServer(t)
	url := pg.Database(t)
	n := testx.NatsServer(t)
	pg.Stop()
	n.Stop()
	r := launch(t, n.ClientURL(), url)
	testx.Eventually(t, "a reason", 5*time.Second, func() bool { return r.svc.Ready() != nil })
	n.Restart()
	pg.Start(t)
	r.ready()
	c := newClient(t, n.ClientURL(), 1)
	c.send("avi", "lisa", "1", "hello")
	c.settle()
	if len(c.room("avi", "lisa")) != 1 {
		t.Error("the message is missing")
	}
}

func TestOutageNATSRestarts(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n, r, c := start(t, sqlURL)
		for i := range 3 {
			c.burst("avi", "lisa", fmt.Sprint("m", i, "-"), 100)
			n.Stop()
			testx.Eventually(t, "not ready", 20*time.Second, func() bool { return r.svc.Ready() != nil })
			n.Restart()
			testx.Eventually(t, "the client is back", 20*time.Second, c.nc.IsConnected)
			c.send("lisa", "avi", fmt.Sprint("after", i), "still there?")
			c.settle()
		}
		if got := len(c.room("avi", "lisa")); got != 303 {
			t.Errorf("%d messages, want 303", got)
		}
		r.ready()
	})
}

// The consumer's server is replaced under it: a cluster node that held it stops for good.
func TestOutageClusterNodesStopInTurn(t *testing.T) {
	cl := testx.NatsCluster(t, 3)
	r := launch(t, cl.URL(), "sqlite:"+filepath.Join(t.TempDir(), "h.db"), func(c *history.Config) { c.Streams.Replicas = 3 })
	testx.Eventually(t, "ready", 60*time.Second, func() bool { return r.svc.Ready() == nil })
	c := newClient(t, cl.URL(), 1)
	sent := 0
	send := func() {
		testx.Eventually(t, "stored", 60*time.Second, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := c.js.PublishMsg(ctx, message(pair("avi", "lisa"), "avi", fmt.Sprint(sent), "text", 1))
			return err == nil
		})
		sent++
	}
	for i := range cl.Nodes {
		send()
		cl.Nodes[i].Stop()
		send()
		testx.Eventually(t, "everything is in SQL", 60*time.Second, func() bool {
			page, err := try(c, api.HistoryPage, api.PageRequest{A: "avi", B: "lisa", Limit: 200})
			return err == nil && len(page.Messages) == sent
		})
		cl.Nodes[i].Restart()
		cl.WaitLeader(t)
	}
}

// Two replicas, and the owner is stopped while messages flow: each message is stored once.
func TestPartitionsTakenOver(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n := testx.NatsServer(t)
		a := launch(t, n.ClientURL(), sqlURL).ready()
		b := launch(t, n.ClientURL(), sqlURL).ready()
		c := newClient(t, n.ClientURL(), 1)
		testx.Eventually(t, "one owner", 10*time.Second, func() bool { return a.metric("partition_owned")+b.metric("partition_owned") == 1 })
		for i := range 4 {
			c.burst("avi", "lisa", fmt.Sprint("m", i, "-"), 400)
			old := &a
			if b.metric("partition_owned") == 1 {
				old = &b
			}
			(*old).stop()
			c.burst("lisa", "avi", fmt.Sprint("n", i, "-"), 400)
			*old = launch(t, n.ClientURL(), sqlURL).ready()
			c.settle()
		}
		got := seqs(c.room("avi", "lisa"))
		if want := int(c.ends()[0]); len(got) != want || want != 3200 || !slices.IsSorted(got) || len(slices.Compact(got)) != want {
			t.Errorf("%d messages, want %d", len(got), want)
		}
	})
}

// Somebody else moves the position under an owner that does not know it: the owner's rows must not get in.
func TestPartitionsFenceAnotherWriter(t *testing.T) {
	sqlURL := testx.Postgres(t)
	_, _, c := start(t, sqlURL)
	c.burst("avi", "lisa", "m", 10)
	c.settle()
	db, err := sql.Open("pgx", sqlURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE history_partitions SET seq = 12, owner = 'thief', lease_until = 0`); err != nil {
		t.Fatal(err)
	}
	c.burst("avi", "lisa", "n", 10)
	c.settle()
	if got := seqs(c.room("avi", "lisa")); len(got) != 18 || got[10] != 13 {
		t.Errorf("%v: 11 and 12 are the thief's", got)
	}
}

func TestAnnouncements(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n := testx.NatsServer(t)
		c := newClient(t, n.ClientURL(), 1)
		ch := c.follow()
		limit, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r := launch(t, n.ClientURL(), sqlURL).ready()
		next := func() api.Applied {
			t.Helper()
			if limit.Err() != nil {
				t.Fatal("announcements stand still")
			}
			select {
			case a := <-ch:
				return a
			case <-time.After(20 * time.Second):
				t.Fatal("no announcement")
				return api.Applied{}
			}
		}
		if a := next(); a.From != 0 || a.To != 0 || len(a.Rows) != 0 {
			t.Errorf("first %+v", a)
		}
		c.burst("avi", "lisa", "m", 1500)
		var at, rows int64
		for at < 1500 {
			a := next()
			if a.From != at || int64(len(a.Rows)) != a.To-a.From {
				t.Fatalf("at %d: from %d to %d with %d rows", at, a.From, a.To, len(a.Rows))
			}
			created := c.stream().Created.UnixMilli()
			if a.Epoch != created {
				t.Fatalf("epoch %d, want %d", a.Epoch, created)
			}
			for _, row := range a.Rows {
				if rows++; row != (api.Row{A: "avi", B: "lisa", Seq: rows}) {
					t.Fatalf("row %+v", row)
				}
			}
			at = a.To
		}
		r.stop()
		for len(ch) > 0 {
			<-ch
		}
		launch(t, n.ClientURL(), sqlURL)
		if a := next(); a.From != 1500 || a.To != 1500 {
			t.Errorf("after a restart %+v", a)
		}
	})
}

func (c *client) stream() *jetstream.StreamInfo {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := c.js.Stream(ctx, subject.Stream(0))
	if err != nil {
		c.t.Fatalf("stream: %v", err)
	}
	return s.CachedInfo()
}

func TestStreamPurgedOfWhatSQLHas(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, r, c := start(t, sqlURL, func(c *history.Config) { c.Keep = 100 })
		c.burst("avi", "lisa", "m", 1000)
		testx.Eventually(t, "purged", 20*time.Second, func() bool { return c.stream().State.Msgs <= 120 })
		c.settle()
		if st := c.stream().State; st.Msgs < 100 || st.LastSeq != 1000 {
			t.Errorf("%d messages are left up to %d", st.Msgs, st.LastSeq)
		}
		if n := len(c.room("avi", "lisa")); n != 1000 {
			t.Errorf("SQL has %d", n)
		}
		// The predecessor of a message is known although the stream has lost it.
		c.send("old", "friend", "1", "first")
		c.burst("avi", "lisa", "n", 500)
		testx.Eventually(t, "purged", 20*time.Second, func() bool { return c.stream().State.FirstSeq > 1002 })
		c.send("old", "friend", "2", "second")
		c.settle()
		ms := c.room("old", "friend")
		if len(ms) != 2 || ms[1].Prev == nil || *ms[1].Prev != ms[0].Seq {
			t.Errorf("%+v", ms)
		}
		if r.metric("purges_total") < 2 {
			t.Error("not counted")
		}
	})
}

// TestOutageSQLThatTakesNoWrites: history says so, by its own work, and goes on by itself.
func TestOutageSQLThatTakesNoWrites(t *testing.T) {
	pg := testx.PostgresServer(t)
	url := pg.Database(t)
	_, r, c := start(t, url)
	c.send("avi", "lisa", "1", "before")
	c.settle()
	pg.ReadOnly(t, url, true)
	c.send("avi", "lisa", "2", "meanwhile")
	testx.Eventually(t, "history is not ready", 30*time.Second, func() bool {
		err := r.svc.Ready()
		return err != nil && strings.Contains(err.Error(), "read-only")
	})
	pg.ReadOnly(t, url, false)
	testx.Eventually(t, "history is ready", 30*time.Second, func() bool { return r.svc.Ready() == nil })
	c.settle()
	if n := len(c.room("avi", "lisa")); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

func TestStreamThatIsOldIsRefusedAndHeals(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, r, c := start(t, sqlURL)
		c.burst("avi", "lisa", "m", 20)
		c.settle()
		r.stop()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		// As history makes it: the server may refuse a name whose last stream it has only just deleted.
		remake := func(first uint64) {
			if err := c.js.DeleteStream(ctx, subject.Stream(0)); err != nil {
				t.Fatal(err)
			}
			if err := streams.Ensure(ctx, c.js, settings(t, "", sqlURL).Streams, func(int) uint64 { return first }); err != nil {
				t.Fatal(err)
			}
		}
		remake(1)
		c.burst("avi", "lisa", "old", 5)
		r = launch(t, c.nc.ConnectedUrl(), sqlURL)
		refused := func(why string) {
			t.Helper()
			testx.Eventually(t, why, 20*time.Second, func() bool {
				err := r.svc.Ready()
				return err != nil && strings.Contains(err.Error(), why) && r.metric("partition_refused") == 1
			})
			if n := len(c.room("avi", "lisa")); n != 20 {
				t.Fatalf("SQL has %d messages, want 20", n)
			}
			// It is shut then, and not at some moment in which this test deletes it: nats-server has a data race of its own there.
			testx.Eventually(t, "the stream is shut", 20*time.Second, func() bool { return c.stream().Config.MaxMsgs > 0 })
		}
		refused("ends at seq 5")
		// What it took now would be lost by the repair, and its seqs were given before: it takes nothing.
		testx.Eventually(t, "the stream takes no messages", 20*time.Second, func() bool {
			_, err := c.js.Publish(ctx, subject.RoomPrefix+"0.avi.lisa", []byte(`{"v":1,"sender":"avi","id":"lost","content":"x"}`))
			return err != nil
		})
		r.stop()
		// The same, and gone on beyond the position while history was away.
		remake(1)
		c.burst("avi", "lisa", "more", 35)
		r = launch(t, c.nc.ConnectedUrl(), sqlURL)
		refused("another in the stream")
		remake(50)
		refused("begins at seq 50")
		remake(21)
		r.ready()
		c.send("avi", "lisa", "new", "healed")
		c.settle()
		// A stream that was shut and turns out to be the right one is opened again.
		r.stop()
		cfg := c.stream().Config
		cfg.MaxMsgs = 1
		if _, err := c.js.UpdateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		r = launch(t, c.nc.ConnectedUrl(), sqlURL)
		r.ready()
		testx.Eventually(t, "the stream is open", 20*time.Second, func() bool { return c.stream().Config.MaxMsgs <= 0 })
		c.settle()
		if ms := c.room("avi", "lisa"); len(ms) != 21 || ms[20].Seq != 21 {
			t.Errorf("%v", seqs(ms))
		}
	})
}

// A deleted stream is made again above every seq that was given.
func TestStreamThatIsLostIsMadeAnewAbove(t *testing.T) {
	_, r, c := start(t, "sqlite:"+filepath.Join(t.TempDir(), "h.db"))
	c.burst("avi", "lisa", "m", 20)
	c.settle()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.js.DeleteStream(ctx, subject.Stream(0)); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "a new stream", 30*time.Second, func() bool {
		s, err := c.js.Stream(ctx, subject.Stream(0))
		return err == nil && s.CachedInfo().State.FirstSeq == 21
	})
	if seq := c.send("avi", "lisa", "n", "goes on"); seq != 21 {
		t.Errorf("seq %d", seq)
	}
	c.settle()
	r.ready()
}

// SQL was lost, the stream was not: what is left is read, and predecessors that nobody knows are left out.
func TestStreamPurgedAndSQLEmpty(t *testing.T) {
	_, r, c := start(t, "sqlite:"+filepath.Join(t.TempDir(), "h.db"), func(c *history.Config) { c.Keep = 100 })
	c.burst("avi", "lisa", "m", 500)
	testx.Eventually(t, "purged", 20*time.Second, func() bool { return c.stream().State.FirstSeq > 1 })
	r.stop()
	first := int64(c.stream().State.FirstSeq)
	launch(t, c.nc.ConnectedUrl(), "sqlite:"+filepath.Join(t.TempDir(), "new.db")).ready()
	c.settle()
	ms := c.room("avi", "lisa")
	if int64(len(ms)) != 501-first || ms[0].Seq != first || ms[0].Prev != nil || ms[1].Prev == nil || *ms[1].Prev != first {
		t.Errorf("%d messages from %d; the first %+v", len(ms), first, ms[0])
	}
}

func TestPartitionsAreFixed(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n, r, c := start(t, sqlURL, func(c *history.Config) { c.Streams.Partitions = 4 })
		for i := range 40 {
			c.resend("avi", fmt.Sprint("peer", i), "x", "the same id everywhere")
		}
		c.settle()
		ends := c.ends()
		if slices.Min(ends) == 0 {
			t.Fatalf("not spread: %v", ends)
		}
		if ms, _ := c.catchUp(api.CatchUpItem{User: "avi"}); len(ms) != 40 {
			t.Errorf("caught up %d", len(ms))
		}
		// A vector counts per partition.
		v := slices.Clone(ends)
		v[2] = 0
		if ms, _ := c.catchUp(api.CatchUpItem{User: "avi", Vector: v}); int64(len(ms)) != ends[2] {
			t.Errorf("caught up %d, want %d", len(ms), ends[2])
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if p, created, err := streams.Lookup(ctx, c.js); p != 4 || len(created) != 4 || err != nil {
			t.Errorf("looked up %d %v %v", p, created, err)
		}
		r.stop()
		for _, wrong := range []int{1, 3, 5} {
			for name, url := range map[string]string{"the same SQL": sqlURL, "another SQL": "sqlite:" + filepath.Join(t.TempDir(), "o.db")} {
				x := launch(t, n.ClientURL(), url, func(c *history.Config) { c.Streams.Partitions = wrong })
				testx.Eventually(t, name+" refuses", 20*time.Second, func() bool {
					err := x.svc.Ready()
					return err != nil && strings.Contains(err.Error(), "another number of partitions")
				})
				x.stop()
			}
		}
	})
}

func TestStreamSettingsFollow(t *testing.T) {
	_, r, c := start(t, "sqlite:"+filepath.Join(t.TempDir(), "h.db"))
	c.burst("avi", "lisa", "m", 20)
	r.stop()
	launch(t, c.nc.ConnectedUrl(), "sqlite:"+filepath.Join(t.TempDir(), "h.db"), func(c *history.Config) {
		c.Streams.MaxBytes, c.Streams.DedupeWindow = 32<<20, 10*time.Second
	}).ready()
	info := c.stream()
	if info.Config.MaxBytes != 32<<20 || info.Config.Duplicates != 10*time.Second || info.State.Msgs != 20 {
		t.Errorf("%+v", info)
	}
}
