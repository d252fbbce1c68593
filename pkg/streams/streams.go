// Package streams makes the JetStream streams that messages are stored in, and says what is there.
package streams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/api"
	"parley.example/pkg/subject"
)

// Config is how the streams of messages are made. Only history makes them.
type Config struct {
	Partitions   int           `cfg:"partitions" default:"1" help:"streams that rooms are spread over; fixed for the life of an installation"`
	Replicas     int           `cfg:"nats-replicas" default:"1" help:"copies of each stream and bucket in NATS: 1, 3 or 5"`
	MaxBytes     int64         `cfg:"stream-max-bytes" default:"1073741824" help:"size of one stream at most; a full one takes no messages until history has emptied it"`
	DedupeWindow time.Duration `cfg:"dedupe-window" default:"30s" help:"how long NATS itself recognises a message id that is sent again"`
}

// Validate returns every mistake.
func (c Config) Validate() error {
	var errs []error
	if c.Partitions < 1 || c.Partitions > api.MaxPartitions {
		errs = append(errs, fmt.Errorf("partitions: %d is not between 1 and %d", c.Partitions, api.MaxPartitions))
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		errs = append(errs, fmt.Errorf("nats-replicas: %d is none of 1, 3, 5", c.Replicas))
	}
	if c.MaxBytes < 1<<20 {
		errs = append(errs, errors.New("stream-max-bytes: must be at least 1048576"))
	}
	if c.DedupeWindow < time.Second || c.DedupeWindow > time.Hour {
		errs = append(errs, fmt.Errorf("dedupe-window: %s is not between a second and an hour", c.DedupeWindow))
	}
	return errors.Join(errs...)
}

// Errors of the streams.
var (
	// ErrPartitions: the streams that exist were made for another number of partitions. Rooms would move to other streams, and their
	// order would be lost, so nothing may run.
	ErrPartitions = errors.New("the streams in NATS were made for another number of partitions")
	// ErrNone: the streams are not all there yet.
	ErrNone = errors.New("the message streams are not there yet")
	// ErrUpdate: the streams are there and can be used, but a changed setting could not be applied to one.
	ErrUpdate = errors.New("a stream could not be changed to the present settings")
)

// metaPartitions records P in every stream.
const metaPartitions = "parley.partitions"

// apiTime bounds one JetStream request; in a cluster, the leader of a new stream is elected within it.
const apiTime = 5 * time.Second

// Ensure makes the streams that are missing and brings the others up to date; it deletes nothing. A new stream
// begins at firstSeq(p), which is to be above every seq ever given, at least 1. What may pass is tried again until ctx ends: a cluster that is electing
// its leader, or an account's last stream that was deleted a moment ago (nats-server removes the account's empty folder beside the next request, which
// then fails with "error creating store for stream", 10049). ErrPartitions is final.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config, firstSeq func(p int) uint64) error {
	wait := 100 * time.Millisecond
	for {
		err := ensureStreams(ctx, js, cfg, firstSeq)
		if err == nil || errors.Is(err, ErrPartitions) || errors.Is(err, ErrUpdate) {
			return err
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func ensureStreams(ctx context.Context, js jetstream.JetStream, cfg Config, firstSeq func(p int) uint64) error {
	there, err := streams(ctx, js)
	if err != nil {
		return err
	}
	for p, info := range there {
		if n := info.Config.Metadata[metaPartitions]; p >= cfg.Partitions || n != strconv.Itoa(cfg.Partitions) {
			return fmt.Errorf("%w: %s was made for %q, partitions is set to %d", ErrPartitions, info.Config.Name, n, cfg.Partitions)
		}
	}
	var soft error
	for p := range cfg.Partitions {
		info, ok := there[p]
		if !ok {
			if err := createStream(ctx, js, cfg.stream(p, max(firstSeq(p), 1))); err != nil {
				return err
			}
			continue
		}
		if err := updateStream(ctx, js, info.Config, cfg); err != nil {
			soft = errors.Join(soft, err)
		}
	}
	return soft
}

func (c Config) stream(p int, first uint64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: subject.Stream(p), Subjects: []string{subject.StreamFilter(p)}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: c.MaxBytes,
		Replicas: c.Replicas, Duplicates: c.DedupeWindow, AllowDirect: true, FirstSeq: first,
		RePublish: &jetstream.RePublish{Source: subject.StreamFilter(p), Destination: subject.DeliverPrefix + "{{wildcard(1)}}.{{wildcard(2)}}"},
		Metadata:  map[string]string{metaPartitions: strconv.Itoa(c.Partitions)},
	}
}

func createStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	if _, err := js.CreateStream(ctx, cfg); err != nil {
		return fmt.Errorf("make stream %s: %w", cfg.Name, err)
	}
	return nil
}

// updateStream changes what differs and may differ; subjects and the first seq stay as they are.
func updateStream(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, c Config) error {
	want, is := c.stream(0, 1), have
	p, _ := subject.StreamPartition(have.Name) // checked by streams
	is.MaxBytes, is.Replicas, is.Duplicates = want.MaxBytes, want.Replicas, want.Duplicates
	is.Discard, is.AllowDirect, is.RePublish = want.Discard, want.AllowDirect, c.stream(p, 1).RePublish
	if reflect.DeepEqual(is, have) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	if _, err := js.UpdateStream(ctx, is); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUpdate, have.Name, err)
	}
	return nil
}

// streams reads what exists, by partition.
func streams(ctx context.Context, js jetstream.JetStream) (map[int]*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	out := map[int]*jetstream.StreamInfo{}
	list := js.ListStreams(ctx, jetstream.WithStreamListSubject(subject.RoomPrefix+">"))
	for info := range list.Info() {
		if p, ok := subject.StreamPartition(info.Config.Name); ok {
			out[p] = info
		}
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, fmt.Errorf("list the streams: %w", err)
	}
	return out, nil
}

// Lookup returns how many partitions this installation has and when each stream was created. Until history has made them all it
// fails with ErrNone.
func Lookup(ctx context.Context, js jetstream.JetStream) (partitions int, created []time.Time, err error) {
	there, err := streams(ctx, js)
	if err != nil {
		return 0, nil, err
	}
	first, ok := there[0]
	if !ok {
		return 0, nil, ErrNone
	}
	n, err := strconv.Atoi(first.Config.Metadata[metaPartitions])
	if err != nil || n < 1 || n > api.MaxPartitions {
		return 0, nil, fmt.Errorf("%w: %s does not say which", ErrPartitions, first.Config.Name)
	}
	for p := range n {
		info, ok := there[p]
		if !ok {
			return 0, nil, fmt.Errorf("%w: %s is missing", ErrNone, subject.Stream(p))
		}
		created = append(created, info.Created)
	}
	return n, created, nil
}
