package proc

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestProcessUsageCountsChildren(t *testing.T) {
	g := NewGroup(t.TempDir())
	defer g.Stop()
	// The shell waits for a child that works and ends, then for one that works on.
	p, err := g.Start(Spec{Name: "work", Path: "/bin/sh", Args: []string{"-c",
		`sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; echo one; sh -c 'while :; do :; done' & wait`}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait("the first child has ended", 30*time.Second, func() error {
		if !strings.Contains(p.LogTail(), "one") {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := g.Usage()
	if err != nil || first.CPU == 0 || first.RSS == 0 {
		t.Fatalf("%+v %v", first, err)
	}
	err = p.Wait("the second child is counted", 30*time.Second, func() error {
		now, err := g.Usage()
		if err == nil && now.CPU <= first.CPU+5*tick {
			err = errors.New("not yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessStopEndsAll(t *testing.T) {
	g := NewGroup(t.TempDir())
	p, err := g.Start(Spec{Name: "sleep", Path: "/bin/sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	g.Stop()
	select {
	case <-p.Exited():
	default:
		t.Fatal("it still runs")
	}
}

func TestProcessWaitNoticesItsEnd(t *testing.T) {
	p, err := Start(Spec{Name: "false", Path: "/bin/sh", Args: []string{"-c", "echo out of luck; exit 1"}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait("it answers", 30*time.Second, func() error { return errors.New("never") })
	if err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Fatalf("got %v", err)
	}
}
