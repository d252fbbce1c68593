package scenario

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

const (
	rateBudget    = 12_000 // messages a second
	cpuBudget     = 75 * time.Microsecond
	steadyRate    = 2000 // messages a second
	medianBudget  = time.Millisecond
	tailBudget    = 3 // × relay's p99
	durableRate   = 500
	warmUp        = 2 * time.Second
	saturationFor = 5 * time.Second
	steadyFor     = 8 * time.Second
)

// saturation: 200 pairs, 4 messages of each under way; the relay and Parley in turn.
func saturation(ctx context.Context, e *Env) error {
	targets, err := e.three()
	if err != nil {
		return err
	}
	t := e.Report.Table(&report.Table{
		Title: "Saturation",
		Note: fmt.Sprintf("%d pairs, %d messages of %d bytes under way in each, one gateway; medians. CPU is that of all server processes, until history has stored the last message; "+
			"the load generator's comes on top and shares the cores.", pairs, inFlight, load.ContentBytes),
		Head: []string{"system", "delivered a second", "server CPU a message", "× relay", "p50", "p99", "history behind at the end", "CPU a message by process"},
	})
	res, err := saturate(ctx, e, targets, pick(e, 3, 5))
	if err != nil {
		return err
	}
	base := median(res[0], load.Result.CPUEach)
	for i, list := range res {
		cpu := median(list, load.Result.CPUEach)
		t.Row(targets[i].Name(), report.Count(median(list, load.Result.Rate)), report.Us(cpu), report.Times(float64(cpu), float64(base)),
			report.Ms(median(list, at(.5))), report.Ms(median(list, at(.99))), behind(list), parts(list))
	}
	rate, cpu := median(res[1], load.Result.Rate), median(res[1], load.Result.CPUEach)
	e.Report.Budget(report.Budget{What: "stored and delivered messages a second, one gateway, R1", Budget: "≥ " + report.Count(rateBudget),
		Relay: report.Count(median(res[0], load.Result.Rate)), Parley: report.Count(rate), Met: rate >= rateBudget})
	e.Report.Budget(report.Budget{What: "server CPU for a delivered message that was stored first, at saturation", Budget: "≤ 75 µs, 3× relay",
		Relay: report.Us(base), Parley: fmt.Sprintf("%s, %s", report.Us(cpu), report.Times(float64(cpu), float64(base))), Met: cpu <= cpuBudget})
	return nil
}

// three is the relay, Parley as services and Parley as one process.
func (e *Env) three() ([]target.Target, error) {
	relay, err := e.relay(1)
	if err != nil {
		return nil, err
	}
	parley, err := e.parley(accounts, 1, services)
	if err != nil {
		return nil, err
	}
	one, err := e.parley(accounts, 1, allInOne)
	return []target.Target{relay, parley, one}, err
}

func saturate(ctx context.Context, e *Env, targets []target.Target, n int) ([][]load.Result, error) {
	list, done, err := chats(ctx, targets...)
	if err != nil {
		return nil, err
	}
	defer done()
	return rounds(e, n, targets, list, func(c *load.Chat, warm bool) (load.Result, error) {
		if warm {
			return c.Saturate(ctx, inFlight, warmUp)
		}
		return c.Saturate(ctx, inFlight, saturationFor)
	})
}

func steady(ctx context.Context, e *Env, targets []target.Target, n, rate int) ([][]load.Result, error) {
	list, done, err := chats(ctx, targets...)
	if err != nil {
		return nil, err
	}
	defer done()
	return rounds(e, n, targets, list, func(c *load.Chat, warm bool) (load.Result, error) {
		if warm {
			return c.Steady(ctx, rate, warmUp)
		}
		return c.Steady(ctx, rate, steadyFor)
	})
}

func behind(list []load.Result) string {
	return report.Seconds(median(list, func(r load.Result) time.Duration { return r.Behind }))
}

// parts is where the CPU of several runs went.
func parts(list []load.Result) string {
	sum := map[string]time.Duration{}
	var sent int64
	for _, r := range list {
		sent += r.Sent
		for name, cpu := range r.Parts {
			sum[name] += cpu
		}
	}
	return byProcess(sum, sent)
}

// cost is what each process used between two readings. Of one that was killed in between nothing is known.
func cost(before, after map[string]time.Duration) map[string]time.Duration {
	out := map[string]time.Duration{}
	for name, cpu := range after {
		out[name] = max(0, cpu-before[name])
	}
	return out
}

// byProcess prints what each of n things cost, the most expensive program first; processes of one program are one.
func byProcess(cpu map[string]time.Duration, n int64) string {
	sum := map[string]time.Duration{}
	for name, d := range cpu {
		sum[strings.TrimRight(name, "-0123456789")] += d
	}
	names := slices.SortedFunc(maps.Keys(sum), func(a, b string) int { return cmp.Compare(sum[b], sum[a]) })
	var out []string
	for _, name := range names {
		if each := sum[name] / time.Duration(max(1, n)); each >= time.Microsecond/2 {
			out = append(out, name+" "+report.Us(each))
		}
	}
	return strings.Join(out, ", ")
}

// latency at a rate that leaves the machine idle half of the time.
func latency(ctx context.Context, e *Env) error {
	targets, err := e.three()
	if err != nil {
		return err
	}
	t := e.Report.Table(latencyTable("Latency at a steady rate", steadyRate))
	res, err := steady(ctx, e, targets, pick(e, 3, 5), steadyRate)
	if err != nil {
		return err
	}
	p50, p99 := latencyRows(t, targets, res)
	ratio := float64(p99[1]) / float64(p99[0])
	e.Report.Budget(report.Budget{What: fmt.Sprintf("send → received at %s msg/s, stored first, p50", report.Count(steadyRate)), Budget: "≤ 1 ms",
		Relay: report.Ms(p50[0]), Parley: report.Ms(p50[1]), Met: p50[1] <= medianBudget})
	e.Report.Budget(report.Budget{What: "the same, p99", Budget: "≤ 3× relay", Relay: report.Ms(p99[0]),
		Parley: fmt.Sprintf("%s, %s", report.Ms(p99[1]), report.Times(float64(p99[1]), float64(p99[0]))), Met: ratio <= tailBudget})
	return nil
}

func latencyTable(title string, rate int) *report.Table {
	return &report.Table{
		Title: title,
		Note: fmt.Sprintf("%s messages a second in all, %d pairs, one gateway, open loop; from just before the sender's write to the recipient's read. Medians of the rounds' percentiles.",
			report.Count(float64(rate)), pairs),
		Head: []string{"system", "p50", "p90", "p99", "p99.9", "p99 × relay", "server CPU a message"},
	}
}

// latencyRows fills a table; the first target is what the others are compared with.
func latencyRows(t *report.Table, targets []target.Target, res [][]load.Result) (p50, p99 []time.Duration) {
	for i, list := range res {
		p50 = append(p50, median(list, at(.5)))
		p99 = append(p99, median(list, at(.99)))
		t.Row(targets[i].Name(), report.Ms(p50[i]), report.Ms(median(list, at(.9))), report.Ms(p99[i]), report.Ms(median(list, at(.999))),
			report.Times(float64(p99[i]), float64(p99[0])), report.Us(median(list, load.Result.CPUEach)))
	}
	return p50, p99
}
