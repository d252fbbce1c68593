// Command bench measures Parley's budgets on this machine, with a bare relay beside it in the same run, and prints the
// results as Markdown. docs/benchmarks.md explains what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"parley.example/tests/bench/internal/report"
	"parley.example/tests/bench/internal/scenario"
)

func main() {
	run := bench
	if len(os.Args) == 2 && os.Args[1] == "holder" {
		run = func() error { return scenario.Hold(os.Stdin, os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench() error {
	var (
		long = flag.Bool("long", false, "everything, with more rounds")
		only = flag.String("only", "", "comma-separated names of scenarios, instead of all")
		into = flag.String("into", "", "put the results between the marks of this file as well; with -only, what was not measured stays")
		prof = flag.String("profile", "", "folder for CPU profiles of the servers in the last round of each load")
		keep = flag.Bool("keep", false, "keep the working folder with data and logs")
	)
	flag.Usage = usage
	flag.Parse()
	chosen, err := choose(*only, *long)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The collector of this process competes with the servers for the cores.
	debug.SetGCPercent(400)
	work, err := os.MkdirTemp("", "parley-bench")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	began := time.Now()
	logf := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if *keep {
		logf("data and logs are in %s", work)
	} else {
		defer os.RemoveAll(work) //nolint:errcheck // a temporary folder
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	e := &scenario.Env{Bin: filepath.Join(work, "bin"), Work: work, Self: self, Long: *long, Prof: *prof, Report: &report.Report{Machine: machine()}, Log: logf}
	if load := loadAverage(); load > 0.5 {
		logf("the machine is busy with something else (load average %.1f): figures will be worse than they are", load)
	}
	logf("building")
	if err := build(ctx, e.Bin); err != nil {
		return err
	}
	var failed []error
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		logf("%s: %s", s.Name, s.What)
		if err := s.Run(ctx, e); err != nil {
			logf("%s failed: %v", s.Name, err)
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, err))
		}
		e.StopAll()
	}
	logf("done")
	if err := e.Report.Write(os.Stdout); err != nil {
		return err
	}
	if *into != "" && len(failed) == 0 {
		failed = append(failed, e.Report.Into(*into, *only != ""))
	}
	return errors.Join(append(failed, ctx.Err())...)
}

func usage() {
	fmt.Fprintln(os.Stderr, "bench measures Parley's budgets on this machine. Flags:")
	flag.PrintDefaults()
	fmt.Fprintln(os.Stderr, "Scenarios:")
	for _, s := range scenario.All {
		when := ""
		if s.Long {
			when = " (long run only)"
		}
		fmt.Fprintf(os.Stderr, "  %-14s %s%s\n", s.Name, s.What, when)
	}
}

func choose(only string, long bool) ([]scenario.Scenario, error) {
	var out []scenario.Scenario
	if only == "" {
		for _, s := range scenario.All {
			if long || !s.Long {
				out = append(out, s)
			}
		}
		return out, nil
	}
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(scenario.All, func(s scenario.Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q; --help lists them", name)
		}
		out = append(out, scenario.All[i])
	}
	return out, nil
}

// programs that are measured, built from this workspace.
var programs = []string{
	"parley.example/services/gateway/cmd/gateway", "parley.example/services/auth/cmd/auth", "parley.example/services/presence/cmd/presence", "parley.example/services/history/cmd/history",
	"parley.example/cmd/parley", "parley.example/tests/bench/relay",
	"github.com/nats-io/nats-server/v2",
}

func build(ctx context.Context, dir string) error {
	work, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	root := filepath.Dir(strings.TrimSpace(string(work)))
	if err != nil || root == "." {
		return errors.New("run this inside the workspace (go.work)")
	}
	for _, p := range programs {
		name := filepath.Base(p)
		if name == "v2" {
			name = "nats-server"
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), p)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p, err, out)
		}
	}
	return nil
}

// loadAverage is that of the last minute; 0 where it is not known.
func loadAverage() (load float64) {
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(b), &load) // stays 0
	}
	return load
}

// machine describes where the figures come from, as far as that matters.
func machine() string {
	return fmt.Sprintf("%d shared cores, %s/%s, %s; servers and load generator on the same machine, over loopback. %s. Load average before the start: %.1f "+
		"(above 0.5, something else was at work and the figures are worse than they are).",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), time.Now().UTC().Format("2006-01-02"), loadAverage())
}
