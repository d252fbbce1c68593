package history_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/history"
)

// BenchmarkIngest reads b.N messages of 200 rooms, which lie in the stream already, into SQL. cpu-µs/msg is this process's CPU, with the NATS
// server's part of reading and (SQLite only) SQL in it.
func BenchmarkIngest(b *testing.B) {
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return "sqlite:" + filepath.Join(b.TempDir(), "h.db") },
		"postgres": func() string { return testx.Postgres(b) },
	} {
		b.Run(name, func(b *testing.B) {
			n := testx.NatsServer(b)
			size := func(c *history.Config) { c.Streams.MaxBytes = 4 << 30; c.Keep = 10_000_000 }
			sqlURL := url()
			r := launch(b, n.ClientURL(), sqlURL, size)
			r.ready().stop()
			c := newClient(b, n.ClientURL(), 1)
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for k := range 50 {
						c.burst(fmt.Sprintf("user%03d", i*50+k), fmt.Sprintf("peer%03d", i*50+k), fmt.Sprint("id-", i, "-"), b.N/200+1)
					}
				}()
			}
			wg.Wait()
			total := c.ends()[0]
			r = launch(b, n.ClientURL(), sqlURL, size)
			b.ResetTimer()
			cpu := cpuTime()
			testx.Eventually(b, "everything is in SQL", 10*time.Minute, func() bool {
				resp, err := try(c, api.HistoryCatchUp, api.CatchUpRequest{MinApplied: []int64{total}})
				return err == nil && !resp.Behind
			})
			b.StopTimer()
			b.ReportMetric(float64(cpuTime()-cpu)/1000/float64(total), "cpu-µs/msg")
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "msg/s")
			r.stop()
		})
	}
}

// BenchmarkCatchUp answers 200 users, each with 20 conversations of which 3 have 4 new messages.
func BenchmarkCatchUp(b *testing.B) {
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return "sqlite:" + filepath.Join(b.TempDir(), "h.db") },
		"postgres": func() string { return testx.Postgres(b) },
	} {
		b.Run(name, func(b *testing.B) {
			_, _, c := start(b, url())
			var req api.CatchUpRequest
			for i := range 200 {
				u := fmt.Sprintf("user%03d", i)
				req.Items = append(req.Items, api.CatchUpItem{User: u})
				for k := range 20 {
					c.burst(fmt.Sprint("friend", k), u, u+"-", 10)
				}
			}
			c.settle()
			var all, confirms []api.Confirm
			for _, item := range req.Items {
				ms, _ := c.catchUp(item)
				for i, m := range ms {
					if i%10 == 9 && i < 170 || i%10 == 5 && i > 170 {
						all = append(all, api.Confirm{User: item.User, A: m.A, B: m.B, Seq: m.Seq})
					}
				}
			}
			for ; len(all) > 0; all = all[min(len(all), 1000):] {
				confirms = all[:min(len(all), 1000)]
				ask(c, api.HistoryConfirm, api.ConfirmRequest{Items: confirms})
			}
			b.ResetTimer()
			for b.Loop() {
				n := 0
				for _, r := range ask(c, api.HistoryCatchUp, req).Results {
					n += len(r.Messages)
				}
				b.ReportMetric(float64(n), "messages")
			}
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for unknown arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
