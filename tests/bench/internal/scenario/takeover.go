package scenario

import (
	"context"
	"fmt"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	takeoverClients = 10_000
	takeoverOwed    = 1000
	takeoverBudget  = 5 * time.Second
	takeoverPatient = 90 * time.Second
)

// takeover kills one of two gateways with all clients on it.
func takeover(ctx context.Context, e *Env) error {
	t := e.Report.Table(&report.Table{
		Title: "A gateway is killed",
		Note: fmt.Sprintf("%s clients on one of two gateways, which gets SIGKILL. They come back to the other one after a random wait up to 500 ms, doubling with each failed try, with the token they have, "+
			"and resume. %s of them are sent one message each in the moment of the fault.", report.Count(takeoverClients), report.Count(takeoverOwed)),
		Head: []string{"system", "half are back", "99 % are back", "all are back", "and have what they missed", "messages got twice", "sent again", "failed tries", "server CPU a client"},
	})
	var all [2]time.Duration
	for i, start := range []func() (target.Target, error){
		func() (target.Target, error) { return e.relay(2) },
		func() (target.Target, error) { return e.parley(accounts, 2, services) },
	} {
		s, err := start()
		if err != nil {
			return err
		}
		crowd, err := load.Gather(ctx, s, 0, 0, takeoverClients)
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // the crowd's own storm is over
		owed := takeoverOwed
		if i == 0 {
			owed = 0 // a relay keeps nothing
		}
		before, err := s.Servers().ByName()
		if err != nil {
			return err
		}
		within, cancel := context.WithTimeout(ctx, takeoverPatient)
		r, err := crowd.Takeover(within, takeoverClients, owed)
		cancel()
		after, usageErr := s.Servers().ByName()
		spent := byProcess(cost(before, after), takeoverClients)
		crowd.Close()
		e.StopAll()
		if err == nil {
			err = usageErr
		}
		e.Log("%s: %s a client", s.Name(), spent)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name(), err)
		}
		all[i] = r.All
		n := len(r.Back)
		caught, twice, again := report.Seconds(r.All), fmt.Sprint(r.Doubled), fmt.Sprint(r.Again)
		if owed == 0 {
			caught, twice, again = "nothing kept", "", ""
		}
		e.Log("%s: all back in %s", s.Name(), r.All)
		t.Row(s.Name(), report.Seconds(r.Back[n/2]), report.Seconds(r.Back[n*99/100]), report.Seconds(r.Back[n-1]), caught, twice, again, fmt.Sprint(r.Failed), spent)
	}
	e.Report.Budget(report.Budget{What: "gateway killed: its 10,000 clients back and caught up", Budget: "≤ 5 s", Relay: report.Seconds(all[0]) + " (nothing to catch up)",
		Parley: report.Seconds(all[1]), Met: all[1] <= takeoverBudget})
	return nil
}
