package scenario

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	stormClients = 64
	stormFor     = 10 * time.Second
	stormRate    = 500 // chat messages a second beside it
)

// login measures what a login costs, and what a storm of them does to chat.
func login(ctx context.Context, e *Env) error {
	p, err := e.parley(accounts, 1, services)
	if err != nil {
		return err
	}
	list, done, err := chats(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	chat := list[0]
	if _, err := chat.Steady(ctx, stormRate, warmUp); err != nil {
		return err
	}
	calm, err := chat.Steady(ctx, stormRate, stormFor)
	if err != nil {
		return err
	}
	before, err := p.Servers().ByName()
	if err != nil {
		return err
	}
	s := startStorm(p.(target.HTTP).Addr(0))
	busy, err := chat.Steady(ctx, stormRate, stormFor)
	s.stop()
	if err != nil {
		return err
	}
	after, err := p.Servers().ByName()
	if err != nil {
		return err
	}
	ok := s.ok.Load()
	each := (after["auth"] - before["auth"]) / time.Duration(max(1, ok))
	ratio := float64(busy.Percentile(.99)) / float64(calm.Percentile(.99))
	e.Log("%d logins, %d told to wait, %d failed, %s each; chat p99 %s, calm %s", ok, s.refused.Load(), s.failed.Load(), each, busy.Percentile(.99), calm.Percentile(.99))
	t := e.Report.Table(&report.Table{
		Title: "Login storm",
		Note: fmt.Sprintf("%d clients log in again and again beside chat at %d msg/s. argon2id, 19 MiB, 2 passes; one client address, so every login is a right password.",
			stormClients, stormRate),
		Head: []string{"", "logins a second", "answered 429", "failed", "CPU of auth a login", "chat p50", "chat p99", "chat p99.9"},
	})
	row := func(name, logins, refused, failed, cpu string, r load.Result) {
		t.Row(name, logins, refused, failed, cpu, report.Ms(r.Percentile(.5)), report.Ms(r.Percentile(.99)), report.Ms(r.Percentile(.999)))
	}
	row("calm", "0", "", "", "", calm)
	row("storm", fmt.Sprintf("%.0f", float64(ok)/s.took.Seconds()), fmt.Sprint(s.refused.Load()), fmt.Sprint(s.failed.Load()), report.Ms(each), busy)
	e.Report.Budget(report.Budget{What: "login: argon2id at the OWASP parameters; a storm queues and does not starve chat", Budget: "chat goes on", Relay: "",
		Parley: fmt.Sprintf("%s CPU a login; chat p99 %s, %s of calm", report.Ms(each), report.Ms(busy.Percentile(.99)), report.Times(ratio, 1)), Met: busy.Refused == 0 && ok > 0})
	return nil
}

type storm struct {
	ok, refused, failed atomic.Int64

	began time.Time
	took  time.Duration
	end   chan struct{}
	wg    sync.WaitGroup
}

func startStorm(addr string) *storm {
	s := &storm{began: time.Now(), end: make(chan struct{})}
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: stormClients}}
	for i := range stormClients {
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			for n := i; ; n += stormClients {
				select {
				case <-s.end:
					return
				default:
				}
				body := fmt.Appendf(nil, `{"username":%q,"password":%q}`, target.User(n%accounts), target.Password)
				resp, err := c.Post("http://"+addr+"/v1/sessions", "application/json", bytes.NewReader(body))
				if err != nil {
					s.failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
				resp.Body.Close()
				switch resp.StatusCode {
				case http.StatusCreated:
					s.ok.Add(1)
				case http.StatusTooManyRequests:
					s.refused.Add(1)
				default: // most likely 503: the gateway waited longer than rpc-timeout
					s.failed.Add(1)
				}
			}
		}()
	}
	return s
}

func (s *storm) stop() {
	close(s.end)
	s.wg.Wait()
	s.took = time.Since(s.began)
}
