package history_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/services/history/internal/answer"
)

// reader is a request that waits for the writer: ask asks for what SQL has at seq, and says whether the message of that seq is in the answer.
type reader struct {
	ask func(c *client, seq int64) (there, behind bool, err error)
	// refuses: behind is an error, for an answer without the message would be a lie.
	refuses bool
}

// readers are all requests to history: nil are those that need not wait, for the reason given.
var readers = map[string]*reader{
	api.HistoryCatchUp.Subject: {ask: func(c *client, seq int64) (bool, bool, error) {
		resp, err := try(c, api.HistoryCatchUp, api.CatchUpRequest{MinApplied: []int64{seq},
			Items: []api.CatchUpItem{{User: "avi", Since: map[string]int64{"avi&lisa": seq - 1}, Rooms: []string{"avi&lisa"}}}})
		return len(resp.Results) == 1 && has(resp.Results[0].Messages, seq), resp.Behind, err
	}},
	api.HistoryPage.Subject: {ask: func(c *client, seq int64) (bool, bool, error) {
		after := seq - 1
		resp, err := try(c, api.HistoryPage, api.PageRequest{A: "avi", B: "lisa", After: &after, MinApplied: []int64{seq}})
		if resp.Behind && !resp.More {
			c.t.Fatalf("a page that is behind says that there are no more")
		}
		return has(resp.Messages, seq), resp.Behind, err
	}},
	api.HistoryConversations.Subject: {ask: func(c *client, seq int64) (bool, bool, error) {
		resp, err := try(c, api.HistoryConversations, api.ConversationsRequest{Username: "lisa", MinApplied: []int64{seq}})
		return len(resp.Conversations) == 1 && resp.Conversations[0].LastMessage.Seq >= seq, resp.Behind, err
	}},
	api.HistoryFind.Subject: {refuses: true, ask: func(c *client, seq int64) (bool, bool, error) {
		resp, err := try(c, api.HistoryFind, api.FindRequest{Sender: "avi", ID: fmt.Sprint("m", seq), MinApplied: seq})
		return resp.Message != nil, false, err
	}},
	api.HistoryRead.Subject: {ask: func(c *client, seq int64) (bool, bool, error) {
		resp, err := try(c, api.HistoryRead, api.ReadRequest{User: "lisa", A: "avi", B: "lisa", Seq: seq})
		return resp.Seq >= seq, resp.Behind, err
	}},
	api.HistoryRows.Subject:     nil, // says itself how far SQL is
	api.HistoryMessages.Subject: nil, // asks for what was announced
	api.HistoryMarks.Subject:    nil, // marks are rows of their own, made by requests and not by the stream
	api.HistoryConfirm.Subject:  nil, // reads nothing; gateways confirm what history has announced
}

func has(ms []api.StoredMessage, seq int64) bool {
	for _, m := range ms {
		if m.Seq == seq {
			return true
		}
	}
	return false
}

// Whoever asks history for something has heard of messages that SQL does not have yet. Each kind of request must have a place in readers.
func TestReadersAllWaitForTheWriter(t *testing.T) {
	for _, h := range new(answer.Server).Handlers() {
		if _, ok := readers[h.Subject]; !ok {
			t.Errorf("%s is in no list: does it have to wait for the writer?", h.Subject)
		}
	}
	onBoth(t, func(t *testing.T, sqlURL string) {
		_, _, c := start(t, sqlURL)
		for subj, r := range readers {
			if r == nil {
				continue
			}
			// Asked for before it is sent, many times in a row.
			waited := 0
			for waited < 3 {
				seq := c.ends()[0] + 1
				type outcome struct {
					there, behind bool
					err           error
				}
				got := make(chan outcome, 1)
				go func() {
					there, behind, err := r.ask(c, seq)
					got <- outcome{there, behind, err}
				}()
				c.send("avi", "lisa", fmt.Sprint("m", seq), "x")
				switch o := <-got; {
				case o.there:
					waited++
				case o.behind, r.refuses && o.err != nil: // the machine is slow, and it says so
				default:
					t.Fatalf("%s answers without seq %d: %v", subj, seq, o.err)
				}
			}
			// What does not come is not waited for long.
			begin := time.Now()
			there, behind, err := r.ask(c, c.ends()[0]+1000)
			var e *wire.Error
			switch {
			case r.refuses && !(errors.As(err, &e) && e.Code == wire.Unavailable), !r.refuses && (err != nil || there || !behind):
				t.Errorf("%s: there %v, behind %v, %v", subj, there, behind, err)
			case time.Since(begin) < answer.Patience:
				t.Errorf("%s did not wait", subj)
			}
		}
	})
}

// An older page is complete however far behind SQL is.
func TestReadersOfOlderPagesDoNotWait(t *testing.T) {
	_, _, c := start(t, "sqlite:"+t.TempDir()+"/h.db")
	c.burst("avi", "lisa", "m", 10)
	c.settle()
	resp := ask(c, api.HistoryPage, api.PageRequest{A: "avi", B: "lisa", Before: 8, MinApplied: []int64{1000}})
	if resp.Behind || len(resp.Messages) != 7 {
		t.Errorf("%+v", resp)
	}
}
