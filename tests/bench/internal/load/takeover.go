package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/tests/bench/internal/target"
)

// Return is how a crowd came back.
type Return struct {
	Back    []time.Duration // since the fault, sorted: when each client was connected and had caught up
	Owed    int             // messages that were sent to some of them while they were away
	All     time.Duration   // until everybody was back and had what was owed
	Failed  int64           // tries to connect that failed
	Again   int64           // messages that were refused and sent again
	Doubled int             // clients that got their message more than once
}

// writers are clients that write one message each to members of a crowd.
type writers struct {
	conns    []target.Conn
	frames   [][]byte
	accepted atomic.Int64
	again    atomic.Int64
	wg       sync.WaitGroup
}

// retryAfter is how long a writer waits when its message was refused because something is away or busy. It sends the same frame:
// its id makes it one message, whatever became of the first try.
const retryAfter = 200 * time.Millisecond

func (c *Crowd) writers(ctx context.Context, door, first, n int) (*writers, error) {
	w := &writers{}
	for i := range n {
		conn, _, err := c.t.Open(ctx, door, target.Client{User: target.User(first + i), Peer: c.clients[i].user})
		if err != nil {
			w.close()
			return nil, fmt.Errorf("connect those who write: %w", err)
		}
		frame := c.t.AppendSend(nil, target.User(first+i), c.clients[i].user, int64(i), "while you were away")
		w.conns, w.frames = append(w.conns, conn), append(w.frames, frame)
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			buf := make([]byte, 512)
			for {
				b, err := conn.Read(buf)
				if err != nil {
					return
				}
				switch c.t.Kind(b) {
				case target.Accepted:
					w.accepted.Add(1)
				case target.Refused:
					w.again.Add(1)
					time.Sleep(retryAfter)
					_ = conn.Write(frame) // the next Read reports a broken connection
				}
			}
		}()
	}
	return w, nil
}

func (w *writers) close() {
	for _, c := range w.conns {
		c.Close()
	}
	w.wg.Wait()
}

// Takeover kills the process behind door 0 and waits until everybody is back through door 1. As soon as it is dead, owed other
// accounts, from number first on, write one message each to clients that are away, where the target keeps messages.
func (c *Crowd) Takeover(ctx context.Context, first, owed int) (Return, error) {
	w, err := c.writers(ctx, 1, first, owed)
	if err != nil {
		return Return{}, err
	}
	defer w.close()
	c.door.Store(1)
	fault := time.Now()
	c.t.Front(0).Kill()
	for i, conn := range w.conns {
		if err := conn.Write(w.frames[i]); err != nil {
			return Return{}, fmt.Errorf("write to a client that is away: %w", err)
		}
	}
	r := Return{Owed: owed}
	for range c.clients {
		select {
		case at := <-c.back:
			r.Back = append(r.Back, at.Sub(fault))
		case <-ctx.Done():
			err := ctx.Err()
			if why := c.failure.Load(); why != nil {
				err = *why
			}
			return r, fmt.Errorf("%d of %d clients are back after %d failed tries: %w", len(r.Back), len(c.clients), c.failed.Load(), err)
		}
	}
	slices.Sort(r.Back)
	for missing := 1; missing > 0; {
		missing, r.Doubled = 0, 0
		for _, m := range c.clients[:owed] {
			switch n := m.got.Load(); {
			case n == 0:
				missing++
			case n > 1:
				r.Doubled++
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return r, fmt.Errorf("%d of %d messages are missing (%d accepted): %w", missing, owed, w.accepted.Load(), ctx.Err())
		}
	}
	r.All, r.Failed, r.Again = time.Since(fault), c.failed.Load(), w.again.Load()
	return r, nil
}
