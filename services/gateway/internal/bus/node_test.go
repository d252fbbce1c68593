package bus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"parley.example/pkg/testx"
)

func TestNodesAskEachOther(t *testing.T) {
	srv := testx.NatsServer(t)
	a, b := openBus(t, srv.ClientURL()), openBus(t, srv.ClientURL())
	gaveUp := make(chan struct{})
	stop, err := ServeNode(b, "B", func(ctx context.Context, req string) string {
		if req == "wait" {
			<-ctx.Done()
			close(gaveUp)
			return ""
		}
		return strings.ToUpper(req)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if got, err := AskNode[string](ctx, a, "B", 20*time.Second, "hello"); err != nil || got != "HELLO" {
		t.Fatalf("%q %v", got, err)
	}
	if _, err := AskNode[string](ctx, a, "C", 20*time.Second, "hello"); !errors.Is(err, ErrNoNode) {
		t.Fatalf("a gateway that is none: %v", err)
	}
	// Who gives up is noticed by who is asked.
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { _, err := AskNode[string](short, a, "B", 20*time.Second, "wait"); done <- err }()
	testx.Eventually(t, "it is asked", 20*time.Second, func() bool { return b.nc.Stats().InMsgs >= 2 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-gaveUp:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	stop()
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := AskNode[string](ctx, a, "B", 20*time.Second, "hello"); !errors.Is(err, ErrNoNode) {
		t.Fatalf("a gateway that stopped: %v", err)
	}
}
