package streams_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/streams"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
)

func newStreams(t *testing.T) (*testx.Nats, jetstream.JetStream, streams.Config) {
	t.Helper()
	n := testx.NatsServer(t)
	js, err := jetstream.New(n.Connect())
	if err != nil {
		t.Fatal(err)
	}
	return n, js, streams.Config{Partitions: 1, Replicas: 1, MaxBytes: 1 << 20, DedupeWindow: time.Second}
}

// folderGone fails to make streams as nats-server does while it removes the folder of an account's last stream.
type folderGone struct {
	jetstream.JetStream
	left int
}

func (f *folderGone) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	if f.left > 0 {
		f.left--
		return nil, &jetstream.APIError{Code: 500, ErrorCode: 10049, Description: "error creating store for stream"}
	}
	return f.JetStream.CreateStream(ctx, cfg)
}

func TestEnsureStreamsOutlastsAFolderThatIsBeingRemoved(t *testing.T) {
	_, js, cfg := newStreams(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f := &folderGone{js, 3}
	if err := streams.Ensure(ctx, f, cfg, func(int) uint64 { return 7 }); err != nil || f.left != 0 {
		t.Fatalf("%d failures left, %v", f.left, err)
	}
}

// What an operator's repair does: the only stream is deleted, and made again as soon as that is answered.
func TestEnsureStreamsRightAfterADeletion(t *testing.T) {
	n, js, cfg := newStreams(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range uint64(100) {
		if err := streams.Ensure(ctx, js, cfg, func(int) uint64 { return i + 1 }); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(ctx, subject.Stream(0))
		if err != nil {
			t.Fatal(err)
		}
		if st := stream.CachedInfo().State; st.FirstSeq != i+1 || st.Msgs != 0 {
			t.Fatalf("round %d: %+v", i, st)
		}
		if _, err := js.Publish(ctx, subject.RoomPrefix+"0.a.b", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(ctx, subject.Stream(0)); err != nil {
			t.Fatal(err)
		}
		// Until the files are gone, the server does not delete another stream of the name: it would leave its messages to the next one.
		old := filepath.Join(n.Dir(), "jetstream", "$G", "streams", "."+subject.Stream(0))
		testx.Eventually(t, "the files are gone", 10*time.Second, func() bool {
			_, err := os.Stat(old)
			return errors.Is(err, os.ErrNotExist)
		})
	}
}
