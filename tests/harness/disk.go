package harness

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Disk is a small file system of its own. Only root can mount one.
type Disk struct {
	Dir   string
	t     testing.TB
	bytes int
}

// NewDisk mounts one until the test ends.
func NewDisk(t testing.TB, bytes int) *Disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatalf("a small disk has to be mounted, which only root can do: run it as root, or leave this test out with -skip %s", t.Name())
	}
	d := &Disk{t.TempDir(), t, bytes}
	if err := syscall.Mount("tmpfs", d.Dir, "tmpfs", 0, "size="+strconv.Itoa(bytes)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.Dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	return d
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill writes until no space is left.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size, written := 1<<20, 0; written <= d.bytes; {
		k, err := f.Write(make([]byte, size))
		written += k
		switch {
		case errors.Is(err, syscall.ENOSPC) && size > 1:
			size /= 16 // the last page, too
		case errors.Is(err, syscall.ENOSPC):
			return
		case err != nil:
			d.t.Fatal(err)
		}
	}
	d.t.Fatal("the disk is not small")
}

// Empty ends Fill.
func (d *Disk) Empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Error(err)
	}
}

// Free is how many bytes there are.
func (d *Disk) Free() int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.Dir, &s); err != nil {
		d.t.Error(err)
	}
	return int64(s.Bavail) * s.Bsize
}
