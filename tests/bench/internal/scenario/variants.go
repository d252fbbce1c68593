package scenario

import (
	"context"
	"fmt"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

// durable is production's setting: a message is on the disks of a majority before it is accepted.
func durable(ctx context.Context, e *Env) error {
	relay, err := e.relay(1)
	if err != nil {
		return err
	}
	parley, err := e.parley(accounts, 1, cluster)
	if err != nil {
		return err
	}
	targets := []target.Target{relay, parley}
	t := e.Report.Table(latencyTable("Three NATS nodes, R3, every write synced: latency", durableRate))
	res, err := steady(ctx, e, targets, 3, durableRate)
	if err != nil {
		return err
	}
	latencyRows(t, targets, res)
	t = e.Report.Table(&report.Table{Title: "Three NATS nodes, R3, every write synced: saturation",
		Note: "Three nats-servers share two cores and one disk with everything else here: ratios to real machines are not to be drawn.",
		Head: []string{"system", "delivered a second", "server CPU a message", "p50", "p99", "CPU a message by process"}})
	res, err = saturate(ctx, e, targets, 3)
	if err != nil {
		return err
	}
	for i, list := range res {
		t.Row(targets[i].Name(), report.Count(median(list, load.Result.Rate)), report.Us(median(list, load.Result.CPUEach)),
			report.Ms(median(list, at(.5))), report.Ms(median(list, at(.99))), parts(list))
	}
	return nil
}

// partitions compares numbers of streams, so that a default can be chosen.
func partitions(ctx context.Context, e *Env) error {
	t := e.Report.Table(&report.Table{Title: "Partitions",
		Note: fmt.Sprintf("The same loads with different numbers of streams: saturation, and latency at %s msg/s (R1) or %d msg/s (R3, every write synced).", report.Count(steadyRate), durableRate),
		Head: []string{"NATS", "partitions", "delivered a second", "server CPU a message", "steady p50", "steady p99", "CPU a message by process"}})
	for _, base := range []target.Variant{services, cluster} {
		rate, name := steadyRate, "R1"
		if base.Cluster {
			rate, name = durableRate, "R3, fsync always"
		}
		for _, n := range []int{1, 4, 16} {
			v := base
			v.Partitions = n
			v.Label = fmt.Sprintf("%s, %d partitions", base.Label, n)
			p, err := e.parley(accounts, 1, v)
			if err != nil {
				return err
			}
			sat, err := saturate(ctx, e, []target.Target{p}, 3)
			if err != nil {
				return err
			}
			lat, err := steady(ctx, e, []target.Target{p}, 3, rate)
			if err != nil {
				return err
			}
			t.Row(name, fmt.Sprint(n), report.Count(median(sat[0], load.Result.Rate)), report.Us(median(sat[0], load.Result.CPUEach)),
				report.Ms(median(lat[0], at(.5))), report.Ms(median(lat[0], at(.99))), parts(sat[0]))
			e.StopAll()
		}
	}
	return nil
}
