// Package scenario has what is measured, one file each. A further one is a function and a line in All.
package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"parley.example/tests/bench/internal/load"
	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/target"
)

// Scenario measures something and adds it to the report.
type Scenario struct {
	Name string
	What string
	Long bool // part of the long run only
	Run  func(ctx context.Context, e *Env) error
}

// All scenarios, in the order in which they run.
var All = []Scenario{
	{"memory", "memory of idle connections", false, memory},
	{"saturation", "messages a second and CPU of each", false, saturation},
	{"latency", "send → received at a steady rate", false, latency},
	{"takeover", "a gateway is killed", false, takeover},
	{"login", "a login storm beside chat", false, login},
	{"socketio", "clients of the older system beside native ones", false, socketio},
	{"presence-storm", "everybody connects at once and sees everybody else", true, presenceStorm},
	{"durable", "three nodes, every write synced to disk", true, durable},
	{"partitions", "1, 4 and 16 partitions", true, partitions},
	{"held", "connections held", true, held},
}

// Env is what a scenario works with.
type Env struct {
	Bin    string // built programs
	Work   string // for data and logs
	Self   string // this program, for helpers of its own
	Prof   string // folder for CPU profiles of the last rounds, "" for none
	Long   bool
	Report *report.Report
	Log    func(format string, args ...any)

	starts int
	open   []target.Target
}

// pick is the short or the long run's value.
func pick[T any](e *Env, short, long T) T {
	if e.Long {
		return long
	}
	return short
}

func (e *Env) options(users, doors int) (target.Options, error) {
	e.starts++
	o := target.Options{Bin: e.Bin, Work: filepath.Join(e.Work, fmt.Sprint(e.starts)), Users: users, Doors: doors}
	if err := os.MkdirAll(o.Work, 0o700); err != nil {
		return o, fmt.Errorf("make a folder: %w", err)
	}
	return o, nil
}

func (e *Env) relay(doors int) (target.Target, error) {
	o, err := e.options(0, doors)
	if err != nil {
		return nil, err
	}
	return e.keep(target.Relay(o))
}

func (e *Env) parley(users, doors int, v target.Variant) (target.Target, error) {
	e.Log("starting %s", v.Label)
	o, err := e.options(users, doors)
	if err != nil {
		return nil, err
	}
	return e.keep(target.Parley(o, v))
}

func (e *Env) keep(t target.Target, err error) (target.Target, error) {
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	e.open = append(e.open, t)
	return t, nil
}

// StopAll ends what a scenario started.
func (e *Env) StopAll() {
	for _, t := range e.open {
		t.Stop()
	}
	e.open = nil
}

// The variants that are measured.
var (
	services = target.Variant{Label: "Parley, R1"}
	allInOne = target.Variant{Label: "Parley all-in-one, SQLite", AllInOne: true}
	cluster  = target.Variant{Label: "Parley, 3 nodes R3, fsync always", Cluster: true}
)

const (
	pairs    = 200
	inFlight = 4
	// accounts are there in every run: more than a gateway keeps the whole directory for.
	accounts = 25_000
)

// chats opens pairs on several targets: accounts of their own for each, because several targets may be one system.
func chats(ctx context.Context, targets ...target.Target) ([]*load.Chat, func(), error) {
	var out []*load.Chat
	closeAll := func() {
		for _, c := range out {
			c.Close()
		}
	}
	for i, t := range targets {
		c, err := load.Open(ctx, t, 2*pairs*i, pairs)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		out = append(out, c)
	}
	return out, closeAll, nil
}

// rounds runs f on each chat in turn, several times over, so that what else the machine does hits all of them; the first turn warms
// up and is not counted.
func rounds(e *Env, n int, targets []target.Target, list []*load.Chat, f func(c *load.Chat, warm bool) (load.Result, error)) ([][]load.Result, error) {
	out := make([][]load.Result, len(list))
	for round := -1; round < n; round++ {
		for i, c := range list {
			profiled := func() {}
			if round == n-1 {
				profiled = e.profile(targets[i])
			}
			r, err := f(c, round < 0)
			profiled()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", targets[i].Name(), err)
			}
			e.Log("%s: %.0f msg/s, p50 %s, p99 %s, %s a message, history behind %s", targets[i].Name(), r.Rate(),
				r.Percentile(.5), r.Percentile(.99), r.CPUEach(), r.Behind.Round(time.Millisecond))
			if round >= 0 {
				out[i] = append(out[i], r)
			}
		}
	}
	return out, nil
}

// median of what f reads from each result.
func median[R any, T int64 | float64 | time.Duration](list []R, f func(R) T) T {
	values := make([]T, len(list))
	for i, r := range list {
		values[i] = f(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func at(q float64) func(load.Result) time.Duration {
	return func(r load.Result) time.Duration { return r.Percentile(q) }
}
