package store

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"parley.example/pkg/testx"
)

// BenchmarkTick is what all shards cost while nothing happens.
func BenchmarkTick(b *testing.B) {
	cfg := Config{Lease: 5 * time.Second, Grace: 5 * time.Second, Forget: time.Minute, LastSeen: time.Hour}
	run := func(b *testing.B, addr string) {
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		defer rdb.Close()
		s := New(rdb, cfg)
		for b.Loop() {
			if _, err := s.Tick(context.Background(), false); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("redis", func(b *testing.B) { run(b, testx.RedisServer(b).Addr) })
	b.Run("embedded", func(b *testing.B) { run(b, miniredis.RunT(b).Addr()) })
}
