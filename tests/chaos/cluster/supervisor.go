package cluster

import (
	"context"
	"sync"
	"syscall"
	"time"

	"parley.example/tests/harness"
)

// What Kubernetes does with the probes of deploy/helm/parley/templates/nats.yaml.
const (
	startupPeriod, startupFailures = 2 * time.Second, 60
	livePeriod, liveFailures       = 5 * time.Second, 6
	gracePeriod                    = 60 * time.Second
	firstBackOff, lastBackOff      = 10 * time.Second, 5 * time.Minute // after the first start anew, which comes at once
)

// Supervise lets every NATS node be probed and started again as the chart's are, until the test ends. Nothing else starts them then.
func (c *Cluster) Supervise() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, n := range c.Nats {
		wg.Go(func() { n.supervise(ctx) })
	}
	c.t.Cleanup(func() { stop(); wg.Wait() })
}

// Supervised supervises a node while something happens to it, and after it until the node is well and stays so, which has to be soon. Meanwhile nothing
// else starts it.
func (n *Node) Supervised(within time.Duration, happens func()) {
	n.c.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.supervise(ctx) })
	defer wg.Wait()
	defer stop()
	happens()
	for deadline := time.Now().Add(within); ; {
		n.WaitHealthy(time.Until(deadline))
		// One that fails its probe is started again after that time at the latest, and one that ended is at once.
		if p := n.Process(); sleep(ctx, p, livePeriod*liveFailures/2) && n.Healthy() && p == n.Process() {
			return
		}
	}
}

func (n *Node) supervise(ctx context.Context) {
	for backOff := time.Duration(0); ; backOff = min(max(2*backOff, firstBackOff), lastBackOff) {
		p := n.Process()
		if n.fails(ctx, p, startupPeriod, startupFailures, true) || n.fails(ctx, p, livePeriod, liveFailures, false) {
			n.terminate(p)
		}
		if !sleep(ctx, nil, backOff) || ctx.Err() != nil {
			return // both may be so
		}
		n.c.t.Logf("%s is started again", n.Name)
		n.Start()
	}
}

// fails asks /healthz until it has failed so often in a row, or the process has ended by itself: false. With until, one success is enough, and it is false too.
func (n *Node) fails(ctx context.Context, p *harness.Process, period time.Duration, most int, until bool) bool {
	for failed := 0; sleep(ctx, p, period); {
		switch {
		case !n.Healthy():
			if failed++; failed >= most {
				return true
			}
		case until:
			return false
		default:
			failed = 0
		}
	}
	return false
}

// terminate is the chart's preStop (lame duck), then SIGTERM, then SIGKILL.
func (n *Node) terminate(p *harness.Process) {
	n.c.t.Logf("%s has failed its probe for too long", n.Name)
	_ = syscall.Kill(p.Pid(), syscall.SIGUSR2) // it may have ended
	// The kubelet sends SIGTERM when the preStop command is back. A server that has not yet begun its lame duck would end at once.
	sleep(context.Background(), p, time.Second)
	_ = syscall.Kill(p.Pid(), syscall.SIGTERM)
	select {
	case <-p.Ended():
	case <-time.After(gracePeriod):
		p.Kill()
	}
}

// sleep reports whether d went by before ctx and p ended.
func sleep(ctx context.Context, p *harness.Process, d time.Duration) bool {
	var ended <-chan struct{}
	if p != nil {
		ended = p.Ended()
	}
	select {
	case <-time.After(d):
		return true
	case <-ended:
	case <-ctx.Done():
	}
	return false
}
