package ingest

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of all partitions of a process.
type Metrics struct {
	messages, batches, aliases, unparseable, holes, purged prometheus.Counter
	sqlErrors, restarts                                    prometheus.Counter
	commit                                                 prometheus.Histogram
	lag, fullness, position, refused, newer, owned         *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	var err error
	register := func(c prometheus.Collector) {
		if e := reg.Register(c); err == nil {
			err = e
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_history_" + name, Help: help})
		register(c)
		return c
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_history_" + name, Help: help}, []string{"partition"})
		register(g)
		return g
	}
	m := &Metrics{
		messages:    counter("messages_total", "Messages stored in SQL, those that repeat one included."),
		batches:     counter("batches_total", "Transactions that stored messages."),
		aliases:     counter("aliases_total", "Messages that repeat a stored one of the same sender, id, room and content."),
		unparseable: counter("unparseable_total", "Messages of the streams that were skipped because they could not be understood."),
		holes:       counter("stream_holes_total", "Times that messages were missing within a stream."),
		purged:      counter("purges_total", "Purges of what SQL has from a stream."),
		sqlErrors:   counter("ingest_sql_errors_total", "Failed transactions of ingest; each is tried again."),
		restarts:    counter("ingest_restarts_total", "Times that reading a stream began again after a failure."),
		lag:         gauge("lag_messages", "Messages in the stream that SQL does not have yet."),
		fullness:    gauge("stream_fullness_ratio", "Size of the stream as a part of its maximum."),
		position:    gauge("position", "Seq up to which SQL has the partition."),
		refused:     gauge("partition_refused", "1 while the stream and SQL do not belong together and nothing is read."),
		newer:       gauge("partition_newer", "1 while the next message was written by a newer version of Parley, which this one does not store."),
		owned:       gauge("partition_owned", "1 while this replica reads the partition."),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_history_commit_seconds", Help: "Time of one transaction of ingest.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}),
	}
	register(m.commit)
	return m, err
}

func label(p int) string { return strconv.Itoa(p) }
