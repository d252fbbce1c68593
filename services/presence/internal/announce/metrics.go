package announce

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	changes, epochs, unsent prometheus.Counter
	failures                *prometheus.CounterVec
}

func newMetrics(reg *prometheus.Registry) metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_presence_" + name, Help: help})
	}
	m := metrics{
		changes: counter("changes_total", "Users who came online or went offline, as announced by this replica."),
		epochs:  counter("epochs_total", "Shards that this replica found empty or rolled back and began anew."),
		unsent:  counter("unsent_total", "Batches of changes that could not be published."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_presence_redis_failures_total", Help: "Requests that failed because of Redis, by operation.",
		}, []string{"operation"}),
	}
	reg.MustRegister(m.changes, m.epochs, m.unsent, m.failures)
	for _, op := range []string{"sessions", "heartbeat", "resync", "snapshot", "last_seen", "tick"} {
		m.failures.WithLabelValues(op) // counters start at zero
	}
	return m
}
