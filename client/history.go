package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"parley.example/client/wire"
)

// historyPage is how many messages an iterator asks for at a time, the most that the server gives.
const historyPage = 200

// History goes through room from the message before the one with seq before (0: from the last one) to the first, newest first. It asks
// for the next page when the loop gets there. Messages that come meanwhile are not in it: Events brings those.
//
// An error is the last thing it yields; the seq of the message before it is where another History goes on.
func (s *Session) History(ctx context.Context, room string, before int64) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for {
			page, err := s.patiently(ctx, room, MessagesQuery{Before: before, Limit: historyPage})
			if err != nil {
				yield(wire.Message{}, err)
				return
			}
			for i := len(page.Messages) - 1; i >= 0; i-- {
				before = page.Messages[i].Seq
				if !yield(page.Messages[i], nil) {
					return
				}
			}
			if !page.More || len(page.Messages) == 0 {
				return
			}
		}
	}
}

// HistoryAfter goes through room from the message after the one with seq after (0: from the first one) to the last that is stored when the
// loop gets there, oldest first. Errors are as in History; wire.Unavailable when the server's history is behind and has no more for now.
func (s *Session) HistoryAfter(ctx context.Context, room string, after int64) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for {
			page, err := s.patiently(ctx, room, MessagesQuery{After: &after, Limit: historyPage})
			if err != nil {
				yield(wire.Message{}, err)
				return
			}
			for _, m := range page.Messages {
				after = m.Seq
				if !yield(m, nil) {
					return
				}
			}
			if page.Behind && len(page.Messages) == 0 {
				yield(wire.Message{}, wire.E(wire.Unavailable, "the server's history is behind; try again later"))
				return
			}
			if !page.More || len(page.Messages) == 0 {
				return
			}
		}
	}
}

// patiently reads a page, and waits when the server says that this goes too fast: a long conversation is many pages.
func (s *Session) patiently(ctx context.Context, room string, q MessagesQuery) (MessagesPage, error) {
	for {
		page, err := s.Messages(ctx, room, q)
		var we *wire.Error
		if !errors.As(err, &we) || we.Code != wire.RateLimited {
			return page, err
		}
		select {
		case <-time.After(max(time.Duration(we.RetryAfterMS)*time.Millisecond, 100*time.Millisecond)):
		case <-ctx.Done():
			return page, ctx.Err()
		}
	}
}
