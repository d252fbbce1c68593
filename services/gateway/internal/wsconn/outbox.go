package wsconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/client/wire"
)

// writeTimeout bounds one write: a peer that takes nothing for so long is gone.
const writeTimeout = 10 * time.Second

// Budget bounds what is queued for writing, per connection and for all connections of a process.
type Budget struct {
	PerConn int64 // bytes
	Total   int64 // bytes; once it is passed, connections above a sixteenth of PerConn are closed as slow
	used    atomic.Int64
}

// Used is what is queued now, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

// Take takes n bytes for a connection that has taken have; false when its peer reads too slowly for that.
func (b *Budget) Take(have, n int64) bool {
	if over := have + n; over > b.PerConn || over > b.PerConn/16 && b.used.Load() > b.Total {
		return false
	}
	b.used.Add(n)
	return true
}

// Give gives n bytes back.
func (b *Budget) Give(n int64) { b.used.Add(-n) }

// outbox queues complete WebSocket frames and writes them in one goroutine that exists only while there is
// something to write. Appending never blocks.
type outbox struct {
	nc     net.Conn
	budget *Budget
	failed func(error) // called once, without the lock, when a write fails

	mu      sync.Mutex
	q       [][]byte
	bytes   int64         // queued and being written
	writing bool          // the writer goroutine exists
	closed  bool          // nothing is accepted any more
	idle    chan struct{} // closed by the writer when it ends; made by whoever waits
}

// append queues frames. It returns false when the outbox is closed, and the reason to close the connection
// when the peer reads too slowly.
func (o *outbox) append(frame []byte) (ok bool, slow bool) {
	n := int64(len(frame))
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false, false
	}
	if !o.budget.Take(o.bytes, n) {
		o.mu.Unlock()
		return false, true
	}
	o.bytes += n
	o.q = append(o.q, frame)
	start := !o.writing
	o.writing = true
	o.mu.Unlock()
	if start {
		go o.write()
	}
	return true, false
}

// last queues a final frame and accepts nothing after it. drop throws away what waits.
func (o *outbox) last(frame []byte, drop bool) bool {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false
	}
	o.closed = true
	if drop {
		for _, f := range o.q {
			o.release(int64(len(f)))
		}
		o.q = nil
	}
	o.bytes += int64(len(frame))
	o.budget.used.Add(int64(len(frame)))
	o.q = append(o.q, frame)
	start := !o.writing
	o.writing = true
	o.mu.Unlock()
	if start {
		go o.write()
	}
	return true
}

func (o *outbox) release(n int64) {
	o.bytes -= n
	o.budget.Give(n)
}

func (o *outbox) write() {
	for {
		o.mu.Lock()
		q := o.q
		o.q = nil
		if len(q) == 0 {
			o.writing = false
			if o.idle != nil {
				close(o.idle)
				o.idle = nil
			}
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()

		var n int64
		for _, f := range q {
			n += int64(len(f))
		}
		_ = o.nc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a closed connection shows in the write
		bufs := net.Buffers(q)
		_, err := bufs.WriteTo(o.nc)

		o.mu.Lock()
		o.release(n)
		if err != nil {
			o.closed = true
			for _, f := range o.q {
				o.release(int64(len(f)))
			}
			o.q = nil
		}
		o.mu.Unlock()
		if err != nil {
			o.failed(err)
		}
	}
}

// wait returns when everything queued before has been handed to the kernel, or the outbox has failed.
func (o *outbox) wait(ctx context.Context) error {
	o.mu.Lock()
	if !o.writing {
		o.mu.Unlock()
		return nil
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Text makes one complete, unmasked text frame of the parts of a text. The result may be shared by any number of connections.
func Text(parts ...[]byte) []byte { return frame(opText, parts...) }

// Payload is the text in a frame that Text made.
func Payload(frame []byte) []byte {
	switch frame[1] {
	case 126:
		return frame[4:]
	case 127:
		return frame[10:]
	}
	return frame[2:]
}

func frame(op byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n+10)
	b = append(b, 0x80|op)
	switch {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = append(b, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func closeFrame(c wire.Close) []byte {
	p := append(make([]byte, 0, 2+len(c.Reason)), byte(c.Code>>8), byte(c.Code))
	return frame(opClose, append(p, c.Reason...))
}
