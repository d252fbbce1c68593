package presence

import (
	"math/bits"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	resyncs, snapshots prometheus.Counter
}

func newMetrics(m *Mirror, reg prometheus.Registerer) metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Name: "parley_gateway_presence_" + name, Help: help}
	}
	gauge := func(name, help string, f func() int) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), func() float64 {
			m.mu.RLock()
			defer m.mu.RUnlock()
			return float64(f())
		}))
	}
	gauge("online_users", "Users who are online on any gateway, as mirrored here.", func() (n int) {
		for i := range m.shards {
			n += len(m.shards[i].online)
		}
		return n
	})
	gauge("watchers", "Sessions here that watch presence.", func() int { return len(m.byWatcher) })
	gauge("watched_pairs", "Pairs of a watcher with a list and a user on it.", func() int { return m.pairs })
	gauge("unknown_shards", "Shards (of 16) whose presence cannot be known now.", func() int { return bits.OnesCount16(m.unknown) })
	c := metrics{
		resyncs:   prometheus.NewCounter(prometheus.CounterOpts(opts("resyncs_total", "Shards whose sessions here were sent again as a whole."))),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts(opts("snapshots_total", "Snapshots of a shard that were fetched."))),
	}
	reg.MustRegister(c.resyncs, c.snapshots)
	return c
}
