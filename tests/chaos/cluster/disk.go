package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// smallDisk is large enough for a node's first minutes, and filled in a moment.
const smallDisk = 256 << 20

// mount puts a file system of smallDisk bytes on dir, until the test ends.
func (c *Cluster) mount(dir string) {
	c.t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(smallDisk)); err != nil {
		c.t.Fatalf("mount a small disk: %v", err)
	}
	c.t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			c.t.Errorf("unmount the small disk: %v", err)
		}
	})
}

func (n *Node) filler() string { return filepath.Join(filepath.Dir(n.Store), "filler") }

// FillDisk writes until there is no space left under the node's store, which has to be a small disk.
func (n *Node) FillDisk() {
	n.c.t.Helper()
	f, err := os.Create(n.filler())
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for written := 0; written <= smallDisk; {
		k, err := f.Write(block)
		written += k
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return
		case err != nil:
			n.c.t.Fatal(err)
		}
	}
	n.c.t.Fatal("the disk is not small")
}

// FreeDisk ends FillDisk.
func (n *Node) FreeDisk() {
	n.c.t.Helper()
	if err := os.Remove(n.filler()); err != nil {
		n.c.t.Error(err)
	}
}

// Free is how many bytes there are under the node's store.
func (n *Node) Free() int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(n.Store), &s); err != nil {
		n.c.t.Error(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// Lead lets partition p's stream be led by n.
func (c *Cluster) Lead(p int, n *Node, within time.Duration) {
	c.t.Helper()
	c.wait(Stream(p)+" is led by "+n.Name, within, func() bool {
		if c.Leader(p) == n {
			return true
		}
		_, _ = c.js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+Stream(p), []byte(`{"placement":{"preferred":"`+n.Name+`"}}`), 3*time.Second) // asked for again
		return false
	})
}
