package history

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/subject"
)

// streamMetrics say how the streams are, whoever reads them and whether SQL is there or not.
type streamMetrics struct{ leader, missing, last *prometheus.GaugeVec }

func newStreamMetrics(reg prometheus.Registerer) streamMetrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_history_stream_" + name, Help: help}, []string{"partition"})
		reg.MustRegister(g)
		return g
	}
	return streamMetrics{
		leader:  gauge("leader", "1 while the stream has a leader that answers; without one nothing can be sent."),
		missing: gauge("copies_missing", "Copies of the stream that are away or behind."),
		last:    gauge("last_seq", "Seq of the youngest message in the stream."),
	}
}

// streamCheck bounds one look at a stream: one without a leader does not answer.
const streamCheck = 5 * time.Second

// watchStreams looks at the streams until ctx ends.
func (s *Service) watchStreams(ctx context.Context) error {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		for p := range s.cfg.Streams.Partitions {
			s.lookAt(ctx, p)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (s *Service) lookAt(ctx context.Context, p int) {
	ctx, cancel := context.WithTimeout(ctx, streamCheck)
	defer cancel()
	label := strconv.Itoa(p)
	stream, err := s.js.Stream(ctx, subject.Stream(p))
	if err != nil {
		s.streamMetrics.leader.WithLabelValues(label).Set(0)
		s.streamMetrics.missing.WithLabelValues(label).Set(float64(s.cfg.Streams.Replicas))
		return
	}
	info := stream.CachedInfo()
	leader, missing := 1.0, info.Config.Replicas-1
	if c := info.Cluster; c != nil {
		if c.Leader == "" {
			leader, missing = 0, missing+1
		}
		for _, r := range c.Replicas {
			if r.Current && !r.Offline {
				missing--
			}
		}
	}
	s.streamMetrics.leader.WithLabelValues(label).Set(leader)
	s.streamMetrics.missing.WithLabelValues(label).Set(float64(max(missing, 0)))
	s.streamMetrics.last.WithLabelValues(label).Set(float64(info.State.LastSeq))
}
