package wsconn

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	var b Bucket
	now := time.Now()
	for i := range 50 {
		if !b.Allow(10, 50, now) {
			t.Fatalf("the burst ended at %d", i)
		}
	}
	if b.Allow(10, 50, now) {
		t.Fatal("more than the burst")
	}
	now = now.Add(time.Second)
	for range 10 {
		if !b.Allow(10, 50, now) {
			t.Fatal("a second brings ten")
		}
	}
	if b.Allow(10, 50, now) {
		t.Fatal("and no more")
	}
}
