package allinone

import (
	"errors"
	"math"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

// TestDiskFloor: below the floor nothing new is stored, and a little more than the floor has to be free before it is again.
func TestDiskFloor(t *testing.T) {
	d := newDisk(t.TempDir(), 0, testx.Quiet(), prometheus.NewRegistry())
	if err := d.Storage(); err != nil || d.free.Load() == 0 {
		t.Fatalf("without a floor: %v, %d bytes free", err, d.free.Load())
	}
	free := d.free.Swap(restartRoom - 1)
	if d.Room() == nil {
		t.Error("without a floor, a store is started again on a disk that is full")
	}
	d.free.Store(free)
	if err := d.Room(); err != nil {
		t.Errorf("with room: %v", err)
	}
	d.floor = math.MaxInt64
	d.look()
	var e *wire.Error
	if err := d.Storage(); !errors.As(err, &e) || e.Code != wire.Unavailable || e.RetryAfterMS == 0 || d.Ready() == nil {
		t.Errorf("below the floor: %v, %v", err, d.Ready())
	}
	d.floor = d.free.Load() - d.free.Load()/50
	d.look()
	if d.Storage() == nil {
		t.Error("with hardly more than the floor it is full no more")
	}
	d.floor = d.free.Load() / 2
	d.look()
	if err := errors.Join(d.Storage(), d.Ready()); err != nil {
		t.Errorf("with room again: %v", err)
	}
	d.dir = "/nowhere"
	d.look()
	if d.Storage() != nil {
		t.Error("what cannot be told counts as full")
	}
}
