package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/subject"
)

// jsTime bounds one request to JetStream.
const jsTime = 5 * time.Second

// begin looks whether the stream goes on where SQL ends, and notes which stream it is.
func (s *session) begin(ctx context.Context) error {
	err := s.look(ctx, s.state.Seq)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.log.Error("the stream is gone; making a new one above SQL's position", "position", s.state.Seq)
		if err := s.in.deps.Ensure(ctx); err != nil {
			return err
		}
		err = s.look(ctx, s.state.Seq)
	}
	if err != nil {
		return err
	}
	if err := s.compare(ctx); err != nil {
		return err
	}
	if err := s.reopen(ctx); err != nil {
		return err
	}
	next := s.state
	next.Epoch = s.info.Created.UnixMilli()
	if first := int64(s.info.State.FirstSeq); s.state.Seq == 0 && first > 1 {
		// SQL is new and the stream is not, or begins higher up.
		next.Seq = first - 1
		if first > int64(s.info.Config.FirstSeq) {
			next.FirstSeq = first
			s.log.Warn("SQL is empty and the stream lacks its first messages; they are not in history", "first_seq", first)
		}
	}
	if next == s.state {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sqlTime)
	defer cancel()
	if err := s.in.deps.Store.Begin(ctx, s.p, s.in.cfg.Owner, s.state, next); err != nil {
		return err
	}
	s.state = next
	return nil
}

// shut makes a stream that was refused take no more messages: they would get seqs that were given before, and the repair would lose them though
// they had been accepted. Its limit is what it has, so that nothing is thrown away whatever turns out to be the matter.
func (in *Ingest) shut(ctx context.Context, p int) error {
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	stream, err := in.deps.JetStream.Stream(ctx, subject.Stream(p))
	if err != nil {
		return fmt.Errorf("look at a stream: %w", err)
	}
	cfg := stream.CachedInfo().Config
	if cfg.MaxMsgs > 0 {
		return nil
	}
	cfg.MaxMsgs = max(1, int64(stream.CachedInfo().State.Msgs))
	if _, err := in.deps.JetStream.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("shut stream %s: %w", cfg.Name, err)
	}
	return nil
}

// reopen ends shut, for a stream that is found good.
func (s *session) reopen(ctx context.Context) error {
	cfg := s.info.Config
	if cfg.MaxMsgs <= 0 {
		return nil
	}
	cfg.MaxMsgs = -1
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	if _, err := s.in.deps.JetStream.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("open stream %s again: %w", cfg.Name, err)
	}
	s.log.Warn("the stream takes messages again")
	return nil
}

// look reads the stream's state and refuses a stream that does not go on after seq position.
func (s *session) look(ctx context.Context, position int64) error {
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	name := subject.Stream(s.p)
	stream, err := s.in.deps.JetStream.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", name, err)
	}
	info := stream.CachedInfo()
	if s.info != nil && !info.Created.Equal(s.info.Created) {
		return fmt.Errorf("stream %s was made anew", name) // begin again, with all checks
	}
	first, last := int64(info.State.FirstSeq), int64(info.State.LastSeq)
	switch {
	case last < position:
		return fmt.Errorf("%w: %s ends at seq %d, SQL has everything up to %d; an old copy of the stream was restored", ErrRefused, name, last, position)
	case first > position+1 && position > 0:
		return fmt.Errorf("%w: %s begins at seq %d, SQL ends at %d; what lies between is lost", ErrRefused, name, first, position)
	}
	s.info = info
	l := label(s.p)
	m := s.in.deps.Metrics
	m.lag.WithLabelValues(l).Set(float64(last - position))
	m.position.WithLabelValues(l).Set(float64(position))
	full := 0.0
	if limit := info.Config.MaxBytes; limit > 0 {
		full = float64(info.State.Bytes) / float64(limit)
	}
	m.fullness.WithLabelValues(l).Set(full)
	if full > 0.5 && !s.warned {
		s.log.Warn("the stream is half full; when it is full, nothing can be sent", "ratio", full, "lag", last-position)
	}
	s.warned = full > 0.5
	return nil
}

// compare looks whether the message at SQL's position is the same one in the stream: a stream that lost its end and went on has other
// messages under the same seqs.
func (s *session) compare(ctx context.Context) error {
	seq := s.state.Seq
	if seq == 0 || int64(s.info.State.FirstSeq) > seq || int64(s.info.State.LastSeq) < seq {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	at, err := s.in.deps.Store.SentAt(ctx, s.p, seq)
	if err != nil || at == 0 {
		return err // 0: it could not be parsed
	}
	stream, err := s.in.deps.JetStream.Stream(ctx, subject.Stream(s.p))
	if err != nil {
		return fmt.Errorf("look at a stream: %w", err)
	}
	msg, err := stream.GetMsg(ctx, uint64(seq))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // deleted
	}
	if err != nil {
		return fmt.Errorf("read a message of a stream: %w", err)
	}
	if msg.Time.UnixMilli() != at {
		return fmt.Errorf("%w: seq %d is one message in SQL and another in the stream, which has lost its end and gone on", ErrRefused, seq)
	}
	return nil
}

// retain purges what SQL has from the stream, except the youngest messages. Republish looks up the last message of each room, so a long stream
// costs memory; and large messages must not fill it before there are many.
func (s *session) retain(ctx context.Context) error {
	st := &s.info.State
	keep := s.in.cfg.Keep
	if limit := s.info.Config.MaxBytes; limit > 0 && st.Msgs > 0 && int64(st.Bytes) > limit/2 {
		keep = min(keep, int64(float64(st.Msgs)*float64(limit)/4/float64(st.Bytes)))
	}
	// Only when it is worth it: a purge is a request and a write.
	if int64(st.Msgs) <= keep+keep/5 {
		return nil
	}
	below := min(s.state.Seq+1, int64(st.LastSeq)+1-keep)
	if below <= int64(st.FirstSeq) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, jsTime)
	defer cancel()
	stream, err := s.in.deps.JetStream.Stream(ctx, subject.Stream(s.p))
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSequence(uint64(below)))
	}
	if err != nil {
		// The next look tries again.
		s.log.Warn("the stream was not purged", "error", err)
		return nil
	}
	s.in.deps.Metrics.purged.Inc()
	return nil
}
