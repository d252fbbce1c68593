package history_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
)

// raw stores a payload as it stands, and returns its seq.
func (c *client) raw(body string) int64 {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ack, err := c.js.Publish(ctx, subject.RoomPrefix+"0.avi.lisa", []byte(body))
	if err != nil {
		c.t.Fatalf("publish: %v", err)
	}
	return int64(ack.Sequence)
}

// A roll: gateways of the next version write what this history does not know. It stores what came before and stops there, until a history of that
// version takes over, which finds everything.
func TestVersionsStopAtANewerPayload(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n, old, c := start(t, sqlURL)
		c.burst("avi", "lisa", "m", 10)
		first := c.raw(`{"v":2,"s":"avi","i":"n0","c":"from a newer gateway","kind":"poll","meta":{"a":1}}`)
		for i := range 3 {
			c.raw(fmt.Sprintf(`{"v":2,"s":"lisa","i":"n%d","c":"more","reply_to":3}`, i+1))
		}
		c.burst("avi", "lisa", "o", 5) // an old gateway is still there
		stopped := func() bool {
			err := old.svc.Ready()
			return err != nil && strings.Contains(err.Error(), "newer version") && old.metric("partition_newer") == 1
		}
		testx.Eventually(t, "it says that it has stopped", 30*time.Second, stopped)
		if got := c.room("avi", "lisa"); len(got) != 10 || got[9].Seq != first-1 {
			t.Fatalf("SQL has %v", seqs(got))
		}
		// Nothing that it is asked for counts as absent, and the stream goes on.
		c.refused(wire.Unavailable, api.HistoryFind.Subject, api.FindRequest{Sender: "avi", ID: "n0", MinApplied: first})
		c.burst("avi", "lisa", "p", 5)
		if err := old.svc.Ready(); err == nil || old.metric("partition_refused") != 0 {
			t.Fatalf("ready: %v, refused %v", err, old.metric("partition_refused"))
		}

		launchVersion(t, 2, n.ClientURL(), sqlURL).ready()
		c.settle()
		got := c.room("avi", "lisa")
		if len(got) != 24 || got[10].ID != "n0" || got[10].Content != "from a newer gateway" || *got[10].Prev != got[9].Seq {
			t.Fatalf("SQL has %v", seqs(got))
		}
		testx.Eventually(t, "the old one has left the partition", 30*time.Second, func() bool {
			return old.svc.Ready() == nil && old.metric("partition_newer") == 0
		})
	})
}

func TestVersionsOfPayloads(t *testing.T) {
	_, r, c := start(t, "sqlite:"+t.TempDir()+"/h.db")
	for i, body := range []string{
		`{"s":"avi","i":"%d","c":"none is 1"}`, `{"v":null,"s":"avi","i":"%d","c":"x"}`, `{"v":1,"s":"avi","i":"%d","c":"x","unknown":[1]}`, `{"v":0,"s":"avi","i":"%d","c":"x"}`,
	} {
		c.raw(fmt.Sprintf(body, i))
	}
	c.settle()
	if got := c.room("avi", "lisa"); !slices.Equal(seqs(got), []int64{1, 2, 3, 4}) {
		t.Fatalf("SQL has %v", seqs(got))
	}
	// A newer one may be of any shape: it is not skipped as garbage.
	c.raw(`{"v":"2026-12","s":["avi"],"c":{"text":"x"}}`)
	testx.Eventually(t, "it stops", 30*time.Second, func() bool {
		err := r.svc.Ready()
		return err != nil && strings.Contains(err.Error(), "newer version") && r.metric("unparseable_total") == 0
	})
	if _, err := try(c, api.HistoryPage, api.PageRequest{A: "avi", B: "lisa"}); err != nil {
		t.Fatal(errors.Join(errors.New("what it has is not read any more"), err))
	}
}
