package cluster

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/tests/chaos/link"
)

func way(bad bool) link.Way { return link.Way{Swallow: bad} }

// Entry is a load balancer: it passes connections on to the gateways that say they are ready, in turn.
type Entry struct {
	URL  string
	next atomic.Int64
	wg   sync.WaitGroup

	mu    sync.Mutex
	ready []*Service
	conns map[net.Conn]struct{}
	ended bool
}

// probeEvery is how often the balancer asks.
const probeEvery = 250 * time.Millisecond

func newEntry(t testing.TB, c *Cluster) *Entry {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &Entry{URL: "http://" + ln.Addr().String(), conns: map[net.Conn]struct{}{}, ready: c.Gateways[:]}
	stop := make(chan struct{})
	e.wg.Go(func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.probe(c)
			case <-stop:
				return
			}
		}
	})
	e.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			e.wg.Go(func() { e.pass(in) })
		}
	})
	t.Cleanup(func() {
		close(stop)
		ln.Close()
		e.mu.Lock()
		e.ended = true
		for c := range e.conns {
			c.Close()
		}
		e.mu.Unlock()
		e.wg.Wait()
	})
	return e
}

func (e *Entry) probe(c *Cluster) {
	var wg sync.WaitGroup
	var ok [3]bool
	for i, g := range c.Gateways {
		wg.Go(func() { ok[i] = g.Ready() })
	}
	wg.Wait()
	var ready []*Service
	for i, g := range c.Gateways {
		if ok[i] {
			ready = append(ready, g)
		}
	}
	if len(ready) == 0 {
		ready = c.Gateways[:] // as balancers do when all are bad
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready = ready
}

func (e *Entry) pass(in net.Conn) {
	defer in.Close()
	e.mu.Lock()
	ready := e.ready
	e.mu.Unlock()
	for range ready {
		g := ready[int(e.next.Add(1))%len(ready)]
		out, err := net.DialTimeout("tcp", g.Clients.Addr, time.Second)
		if err != nil {
			continue
		}
		defer out.Close()
		e.mu.Lock()
		if e.ended {
			e.mu.Unlock()
			return
		}
		e.conns[in], e.conns[out] = struct{}{}, struct{}{}
		e.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { pipe(out, in) })
		pipe(in, out)
		wg.Wait()
		e.mu.Lock()
		delete(e.conns, in)
		delete(e.conns, out)
		e.mu.Unlock()
		return
	}
}

func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // either end may break it
	dst.Close()
	src.Close()
}

// freePort is below what the kernel gives to outgoing connections (from 32768 on): a process that is killed finds its port free when it comes back.
func (c *Cluster) freePort() int {
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		ln.Close()
		if !c.ports[port] {
			c.ports[port] = true
			return port
		}
	}
	c.t.Fatal("no free port below 32768")
	return 0
}
