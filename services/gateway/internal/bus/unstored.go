package bus

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

// unstored knows by the outcomes of publishing itself whether the streams store: a stream may be there, have a leader and answer, and refuse every
// write. While all is well, a message that is stored costs it one look at a word.
type unstored struct {
	failing atomic.Int32                    // partitions with since
	since   [api.MaxPartitions]atomic.Int64 // Unix ns of the first message that was not stored after the last one that was; 0: none
	last    atomic.Int64                    // Unix ns when anything was stored while some partition failed
	gauge   *prometheus.Desc
	now     func() time.Time
}

func newUnstored() *unstored {
	return &unstored{now: time.Now, gauge: prometheus.NewDesc("parley_gateway_unstored_seconds",
		"For how long nothing of what this gateway published to a partition was stored; 0 when the last message was.", []string{"partition"}, nil)}
}

// failed notes that a message to p, published at a time, has not been stored.
func (u *unstored) failed(p int, published time.Time) {
	if u.since[p].CompareAndSwap(0, published.UnixNano()) {
		u.failing.Add(1)
	}
}

func (u *unstored) stored(p int) {
	if u.failing.Load() == 0 {
		return
	}
	u.last.Store(u.now().UnixNano())
	if u.since[p].Swap(0) != 0 {
		u.failing.Add(-1)
	}
}

// longer are the partitions in which nothing was stored for longer than d.
func (u *unstored) longer(d time.Duration) (list []int) {
	for p := range u.since {
		if at := u.since[p].Load(); at != 0 && u.now().Sub(time.Unix(0, at)) >= d {
			list = append(list, p)
		}
	}
	return list
}

// Describe implements prometheus.Collector.
func (u *unstored) Describe(ch chan<- *prometheus.Desc) { ch <- u.gauge }

// Collect implements prometheus.Collector. Partition 0 is always there, the others while something is wrong with them.
func (u *unstored) Collect(ch chan<- prometheus.Metric) {
	for p := range u.since {
		seconds := 0.0
		if at := u.since[p].Load(); at != 0 {
			seconds = u.now().Sub(time.Unix(0, at)).Seconds()
		} else if p > 0 {
			continue
		}
		ch <- prometheus.MustNewConstMetric(u.gauge, prometheus.GaugeValue, seconds, strconv.Itoa(p))
	}
}

// probeEvery is how often a partition that stores nothing is tried.
const probeEvery = time.Second

// probeReply is what a probe's reply subject has after the prefix, before the partition.
const probeReply = "probe-"

// Ready is an error while nothing of what was published was stored for cfg.Unready; one partition that refuses among others that store does not keep
// clients away from these. No client has to send for it to end: who is not ready gets none, so the publisher tries by itself (probe).
func (p *Publisher) Ready() error {
	u := p.unstored
	if list := u.longer(p.cfg.Unready); len(list) > 0 && u.now().Sub(time.Unix(0, u.last.Load())) >= p.cfg.Unready {
		return fmt.Errorf("the streams of these partitions have stored nothing for %s or longer: %v", p.cfg.Unready, list)
	}
	return nil
}

// probe stores a message that nobody gets in each partition that has stored nothing for a while.
func (p *Publisher) probe() {
	for _, n := range p.unstored.longer(p.cfg.Unready / 2) {
		err := p.bus.nc.PublishMsg(&nats.Msg{Subject: subject.Probe(n), Reply: p.prefix + probeReply + strconv.Itoa(n)})
		if err != nil {
			p.bus.log.Debug("a probe could not be sent", "partition", n, "error", err)
		}
	}
}

// probed takes the answer to a probe.
func (p *Publisher) probed(partition string, a pubAck) {
	n, err := strconv.Atoi(partition)
	if err != nil || n < 0 || n >= len(p.unstored.since) || a.Error != nil || a.Seq == 0 {
		return
	}
	p.unstored.stored(n)
	p.bus.log.Info("the stream stores again", "partition", n)
}
