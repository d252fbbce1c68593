package allinone

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
)

// diskEvery is how often the free space is looked at: the floor must not be written away in between.
const diskEvery = 250 * time.Millisecond

// errDisk is what clients hear. It comes before SQLite or NATS meet a full disk, from which NATS does not recover without a restart.
var errDisk = &wire.Error{Code: wire.Unavailable, Message: "the server's disk is full: nothing new can be stored until there is room", RetryAfterMS: 5000}

// disk watches the free space under the data folder.
type disk struct {
	dir   string
	floor int64
	log   *slog.Logger
	free  atomic.Int64
	low   atomic.Bool
}

func newDisk(dir string, floor int64, log *slog.Logger, reg prometheus.Registerer) *disk {
	d := &disk{dir: dir, floor: floor, log: log}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_serve_disk_" + name, Help: help}, f))
	}
	gauge("free_bytes", "Free space where the data folder is.", func() float64 { return float64(d.free.Load()) })
	gauge("floor_bytes", "Below so much free space nothing new is stored.", func() float64 { return float64(floor) })
	gauge("full", "1 while messages and registrations are refused for want of free space.", func() float64 {
		if d.low.Load() {
			return 1
		}
		return 0
	})
	d.look()
	return d
}

// look measures. A full disk counts as such until there is a tenth more than the floor, so that the last bytes do not make it flap.
func (d *disk) look() {
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.log.Warn("the free space cannot be told", "folder", d.dir, "error", err)
		return
	}
	free := int64(s.Bavail) * int64(s.Bsize)
	d.free.Store(free)
	was := d.low.Load()
	low := free < d.floor || was && free-d.floor < d.floor/10
	if low == was {
		return
	}
	d.low.Store(low)
	if low {
		d.log.Error("the disk is full: messages and registrations are refused", "folder", d.dir, "free", free, "floor", d.floor)
	} else {
		d.log.Warn("the disk has room again", "folder", d.dir, "free", free, "floor", d.floor)
	}
}

// Run looks until ctx ends.
func (d *disk) Run(ctx context.Context) error {
	t := time.NewTicker(diskEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.look()
		case <-ctx.Done():
			return nil
		}
	}
}

// Storage is nil while there is room.
func (d *disk) Storage() error {
	if d.low.Load() {
		return errDisk
	}
	return nil
}

// restartRoom is what a store must be able to write for a start of it to be of use, however low the floor is.
const restartRoom = 1 << 20

// Room is nil while there is room to start a store in.
func (d *disk) Room() error {
	if d.free.Load() < restartRoom {
		return errDisk
	}
	return d.Storage()
}

// Ready says more than Storage: it is for the private port.
func (d *disk) Ready() error {
	if d.low.Load() {
		return fmt.Errorf("%d bytes are free under %s, free-space-floor is %d", d.free.Load(), d.dir, d.floor)
	}
	return nil
}
