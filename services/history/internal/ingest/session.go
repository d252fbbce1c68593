package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/subject"
	"parley.example/services/history/internal/store"
)

// session is one time of owning a partition, from the look at the stream to the first failure. After a failure nothing of it is kept: the
// next one begins where SQL says.
type session struct {
	in    *Ingest
	p     int
	log   *slog.Logger
	state store.Partition

	announced int64 // To of the last announcement
	consumer  *consumer
	info      *jetstream.StreamInfo
	left      bool // the last session ended before a message of a newer version, and nothing shows yet that this one will not
	warned    bool // that the stream is half full
	worked    bool // something was committed
	stalled   int  // looks at the stream in a row that found messages which the consumer does not bring
}

// tick is how often an idle partition is announced, its lease renewed and its stream looked at.
const tick = time.Second

// run reads the partition until something fails or ctx ends.
func (s *session) run(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.consumer = newConsumer(s.in.deps.JetStream, subject.Stream(s.p), s.in.cfg.Batch)
	defer s.consumer.close()
	if err := s.consumer.open(ctx, s.state.Seq+1); err != nil {
		return err
	}
	if !s.left {
		s.in.setTrouble(s.p, nil)
	}
	s.in.deps.Moved(s.p, s.state.Seq)
	s.announced = s.state.Seq
	s.announce(nil)
	t := time.NewTicker(tick)
	defer t.Stop()
	last := time.Now()
	for {
		var msg jetstream.Msg
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.consumer.broken:
			return err
		case <-t.C:
			if err := s.idle(ctx); err != nil {
				return err
			}
			last = time.Now()
			continue
		case msg = <-s.consumer.messages:
		}
		if err := s.batch(ctx, msg); err != nil {
			return err
		}
		// Under load the ticker's case may lose the toss for long.
		if time.Since(last) > 2*tick {
			if err := s.idle(ctx); err != nil {
				return err
			}
			last = time.Now()
		}
	}
}

// batch gathers what follows first, and commits it.
func (s *session) batch(ctx context.Context, first jetstream.Msg) error {
	cfg := &s.in.cfg
	b := store.Batch{P: s.p, Owner: cfg.Owner, Lease: cfg.Lease, From: s.state.Seq, To: s.state.Seq, Complete: s.state.FirstSeq == 0}
	if err := s.add(ctx, &b, first); err != nil {
		return err
	}
	end := time.NewTimer(cfg.Gather)
	defer end.Stop()
	idle := time.NewTimer(cfg.Idle)
	defer idle.Stop()
	var newer error
gather:
	for len(b.Messages) < cfg.Batch {
		var msg jetstream.Msg
		select {
		case msg = <-s.consumer.messages:
		default:
			idle.Reset(cfg.Idle)
			select {
			case msg = <-s.consumer.messages:
			case <-idle.C:
				break gather
			case <-end.C:
				break gather
			case <-ctx.Done():
				return nil
			}
		}
		if err := s.add(ctx, &b, msg); errors.Is(err, ErrVersion) {
			newer = err
			break
		} else if err != nil {
			return err
		}
	}
	// What came before a message of a newer version is stored.
	if err := s.commit(ctx, &b); err != nil {
		return err
	}
	return newer
}

// add puts a message into the batch, after a look at its place in the stream.
func (s *session) add(ctx context.Context, b *store.Batch, msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("read the place of a message: %w", err)
	}
	s.consumer.delivered++
	if meta.Sequence.Consumer != s.consumer.delivered {
		return errors.New("the consumer lost a message")
	}
	seq := int64(meta.Sequence.Stream)
	if seq <= b.To {
		return fmt.Errorf("the stream went back from seq %d to %d", b.To, seq)
	}
	if seq != b.To+1 {
		// Somebody deleted single messages, which is their right, or all up to here, which SQL has not seen.
		s.in.deps.Metrics.holes.Inc()
		if err := s.look(ctx, b.To); err != nil {
			return err
		}
		s.log.Error("messages were deleted from the stream before they were in SQL", "after", b.To, "before", seq)
	}
	m, err := parse(msg, s.p, s.in.cfg.Version, seq, meta.Timestamp.UnixMilli())
	if errors.Is(err, ErrVersion) {
		return err
	}
	b.To = seq
	if subject.IsProbe(msg.Subject()) {
		return nil
	}
	if err != nil {
		s.in.deps.Metrics.unparseable.Inc()
		s.log.Error("a message was skipped", "seq", seq, "subject", msg.Subject(), "error", err)
		return nil
	}
	b.Messages = append(b.Messages, m)
	return nil
}

func (s *session) commit(ctx context.Context, b *store.Batch) error {
	// A transaction that has begun is finished also when the service stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	start := time.Now()
	aliases, err := s.in.deps.Store.Commit(ctx, b)
	m := s.in.deps.Metrics
	if err != nil {
		if !errors.Is(err, store.ErrLost) {
			m.sqlErrors.Inc()
		}
		return err
	}
	m.commit.Observe(time.Since(start).Seconds())
	m.batches.Inc()
	m.messages.Add(float64(len(b.Messages)))
	m.aliases.Add(float64(aliases))
	s.worked, s.stalled = true, 0
	s.moves()
	s.state.Seq = b.To
	s.in.deps.Moved(s.p, b.To)
	m.position.WithLabelValues(label(s.p)).Set(float64(b.To))
	s.announce(b.Messages)
	return nil
}

// moves notes that the session has got past the place at which the last one ended.
func (s *session) moves() {
	if s.left {
		s.left = false
		s.in.setTrouble(s.p, nil)
	}
}

// idle renews the lease, announces where SQL is, and looks at the stream.
func (s *session) idle(ctx context.Context) error {
	st, err := s.in.acquire(ctx, s.p)
	if err != nil {
		if !errors.Is(err, store.ErrLost) {
			s.in.deps.Metrics.sqlErrors.Inc()
		}
		return err
	}
	if st.Seq != s.state.Seq {
		return store.ErrLost // another replica had it meanwhile
	}
	s.announce(nil)
	if err := s.look(ctx, s.state.Seq); err != nil {
		return err
	}
	if int64(s.info.State.LastSeq) > s.state.Seq && len(s.consumer.messages) == 0 {
		// It may be on its way. Thrice in a row without any commit, it is not.
		if s.stalled++; s.stalled >= 3 {
			return errors.New("the consumer does not bring what the stream has")
		}
	} else {
		s.stalled = 0
		s.moves()
	}
	return s.retain(ctx)
}
