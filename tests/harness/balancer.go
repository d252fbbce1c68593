package harness

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Balancer passes TCP connections on to the gateways in turn, and past those that are down.
type Balancer struct {
	URL      string
	backends []string
	next     atomic.Int64
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ended bool
}

func newBalancer(t testing.TB, backends []string) *Balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	b := &Balancer{URL: "http://" + ln.Addr().String(), backends: backends, conns: map[net.Conn]struct{}{}}
	b.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.pass(in) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		b.mu.Lock()
		b.ended = true
		for c := range b.conns {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *Balancer) pass(in net.Conn) {
	defer in.Close()
	for range b.backends {
		at := b.backends[int(b.next.Add(1))%len(b.backends)]
		out, err := net.DialTimeout("tcp", at, time.Second)
		if err != nil {
			continue
		}
		defer out.Close()
		b.mu.Lock()
		if b.ended {
			b.mu.Unlock()
			return
		}
		b.conns[in], b.conns[out] = struct{}{}, struct{}{}
		b.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { copyAndClose(out, in) })
		copyAndClose(in, out)
		wg.Wait()
		b.mu.Lock()
		delete(b.conns, in)
		delete(b.conns, out)
		b.mu.Unlock()
		return
	}
}

func copyAndClose(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // either end may break it
	dst.Close()
	src.Close()
}
