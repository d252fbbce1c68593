package scenario

import (
	"context"
	"fmt"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/proc"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	idleClients = 10_000
	// idleFor is what a garbage collector gets to calm down.
	idleFor      = 15 * time.Second
	memoryBudget = 10 << 10
)

// memory is the resident size of the process that holds the connections, all of it, divided by their number.
func memory(ctx context.Context, e *Env) error {
	t := e.Report.Table(&report.Table{
		Title: "Memory of idle connections",
		Note: fmt.Sprintf("%s clients, authenticated and joined to all their rooms (relay: subscribed); resident size of the whole gateway process %s after the last one came.",
			report.Count(idleClients), idleFor),
		Head: []string{"system", "empty process", "full process", "full / N", "opened in", "server CPU an opening"},
	})
	var each [2]float64
	for i, start := range []func() (target.Target, error){
		func() (target.Target, error) { return e.relay(1) },
		func() (target.Target, error) { return e.parley(accounts, 1, services) },
	} {
		s, err := start()
		if err != nil {
			return err
		}
		empty, err := resident(s)
		if err != nil {
			return err
		}
		before, err := s.Servers().ByName()
		if err != nil {
			return err
		}
		began := time.Now()
		crowd, err := load.Gather(ctx, s, 0, 0, idleClients)
		if err != nil {
			return err
		}
		took := time.Since(began)
		after, err := s.Servers().ByName()
		if err != nil {
			return err
		}
		time.Sleep(idleFor)
		full, err := resident(s)
		e.heap(s)
		crowd.Close()
		if err != nil {
			return err
		}
		each[i] = float64(full) / idleClients
		e.Log("%s: %s a connection", s.Name(), report.KB(each[i]))
		t.Row(s.Name(), report.MB(empty), report.MB(full), report.KB(each[i]), report.Seconds(took), byProcess(cost(before, after), idleClients))
		e.StopAll()
	}
	e.Report.Budget(report.Budget{What: "memory for an idle connection, whole gateway process / N", Budget: "≤ 10 KB", Relay: report.KB(each[0]),
		Parley: report.KB(each[1]), Met: each[1] <= memoryBudget})
	return nil
}

// resident is the memory of the process behind the first door.
func resident(t target.Target) (int64, error) {
	u, err := proc.Read(t.Front(0).Pid())
	return u.RSS, err
}
