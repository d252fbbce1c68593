package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.example/tests/bench/internal/target"
)

// Storm is many clients that connect as fast as they can and look at each other's presence.
type Storm struct {
	Clients int
	// Watch are the names that client i names; nil: it names nobody and gets its contacts.
	Watch func(i int) []string
	// Picture is how many each of them sees online in the end.
	Picture int
}

// StormResult is how it went.
type StormResult struct {
	Open   time.Duration // until the last one was connected and had joined
	Right  time.Duration // until the picture of the last one was right
	Frames int64         // with presence, to all clients
	Names  int64         // in them
	Bytes  int64         // of them
}

// onlooker is one client and what it was told.
type onlooker struct {
	storm  *storm
	conn   target.Conn
	online int
	known  bool
	asked  bool // it has named whom it watches, or need not
	right  bool
}

type storm struct {
	Storm
	frames, names, bytes atomic.Int64
	right                atomic.Int64 // clients
	done                 chan struct{}
}

var presenceFrame = []byte(`{"event":"presence"`)

// take reads a frame. What is told is counted, not kept: nobody is told twice that somebody is online.
func (o *onlooker) take(frame []byte) {
	if !bytes.HasPrefix(frame, presenceFrame) {
		return
	}
	var f struct {
		Data struct {
			Online, Offline   []json.RawMessage
			Snapshot, Unknown bool
		}
	}
	if json.Unmarshal(frame, &f) != nil {
		return // counts as never right
	}
	o.storm.frames.Add(1)
	o.storm.names.Add(int64(len(f.Data.Online) + len(f.Data.Offline)))
	o.storm.bytes.Add(int64(len(frame)))
	if f.Data.Snapshot {
		o.online = len(f.Data.Online)
	} else {
		o.online += len(f.Data.Online) - len(f.Data.Offline)
	}
	o.known = !f.Data.Unknown
	right := o.asked && o.known && o.online == o.storm.Picture
	if right != o.right {
		o.right = right
		by := int64(1)
		if !right {
			by = -1
		}
		if o.storm.right.Add(by) == int64(o.storm.Clients) {
			select {
			case o.storm.done <- struct{}{}:
			default:
			}
		}
	}
}

// RunStorm connects the clients and waits until all pictures are right; close disconnects them. Sample is called now and then meanwhile.
func RunStorm(ctx context.Context, t target.Target, s Storm, sample func()) (r StormResult, closeAll func(), err error) {
	st := &storm{Storm: s, done: make(chan struct{}, 1)}
	all := make([]*onlooker, s.Clients)
	var readers sync.WaitGroup
	closeAll = func() {
		for _, o := range all {
			if o != nil && o.conn != nil {
				o.conn.Close()
			}
		}
		readers.Wait()
	}
	stop := make(chan struct{})
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sample()
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-sampled }()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(connecting)
	for i := range all {
		o := &onlooker{storm: st, asked: s.Watch == nil}
		all[i] = o
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(gctx, openTime)
			defer cancel()
			user := target.User(i)
			conn, _, err := t.Open(ctx, i%t.Doors(), target.Client{User: user, Peer: user, Local: local(i), Got: o.take})
			if err != nil {
				return err
			}
			o.conn = conn
			if s.Watch != nil {
				frame, err := json.Marshal(map[string]any{"event": "watch_presence", "data": map[string]any{"usernames": s.Watch(i)}})
				if err == nil {
					err = conn.Write(frame)
				}
				if err != nil {
					return fmt.Errorf("name whom to watch: %w", err)
				}
				// Its answer comes after everything before; what came before it was nobody's presence.
				o.asked = true
			}
			readers.Add(1)
			go func() {
				defer readers.Done()
				buf := make([]byte, 4096)
				for {
					b, err := conn.Read(buf)
					if err != nil {
						return
					}
					o.take(b)
				}
			}()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return r, closeAll, fmt.Errorf("connect %d clients to %s: %w", s.Clients, t.Name(), err)
	}
	r.Open = time.Since(began)
	select {
	case <-st.done:
	case <-ctx.Done():
		return r, closeAll, fmt.Errorf("%d of %d pictures are right: %w", st.right.Load(), s.Clients, ctx.Err())
	}
	r.Right = time.Since(began)
	r.Frames, r.Names, r.Bytes = st.frames.Load(), st.names.Load(), st.bytes.Load()
	return r, closeAll, nil
}
