//go:build kubernetes

// Package kubernetes installs the chart on a real cluster of three nodes, and breaks and rolls it under people who chat.
// make test-kubernetes runs it.
package kubernetes

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"parley.example/tests/kubernetes/lab"
)

var (
	only  = flag.String("run", "", "only the scenarios whose name matches this")
	into  = flag.String("into", "", "write the figures into this page, between its markers")
	seed  = flag.Uint64("seed", 0, "what people say and whom it hits; 0: another one each time")
	users = flag.Int("users", 500, "how many users there are while things roll")
	rate  = flag.Float64("rate", 60, "how many messages a second they send together")
	keep  = flag.Bool("keep", false, "use the cluster that runs, if one does, and leave it there")
	built = flag.Bool("built", false, "with -keep: the cluster has the images already")
	saved = flag.String("save", "", "keep the histories in this folder; PARLEY_CHAOS_HISTORY=FILE make chaos CHAOS_RUN=TestJudge judges one again")
	which = flag.String("events", "", "in the scenario events: only those whose name matches this")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}

// scenario is one part of the run. Each finds a cluster with the chart installed but for those that say bare.
type scenario struct {
	name string
	bare bool
	do   func(t *testing.T, s *suite)
}

var scenarios = []scenario{
	{"check", true, checkVariants},
	{"install", true, install},
	{"permissions", false, permissions},
	{"scale", false, scale},
	{"hpa", false, autoscale},
	{"keys", false, rotateKeys},
	{"passwords", false, rotatePasswords},
	{"volume", false, loseVolume},
	{"node", false, loseNode},
	{"restore", false, restore},
	{"disaster", false, disaster},
	{"events", false, events},
	{"external", false, external}, // the last one: nothing is left
}

// suite is what the scenarios share.
type suite struct {
	ctx       context.Context
	lab       *lab.Lab
	root      string // of the repository
	dir       string // for files of this run
	seed      uint64
	begun     time.Time
	site      *site
	report    report
	install   struct{ done bool }
	own       []string // stores that are in the release
	natsSpace string   // the namespace of NATS, if not the release's
}

func TestKubernetes(t *testing.T) {
	s := &suite{ctx: t.Context(), begun: time.Now(), seed: *seed, dir: t.TempDir(), own: statefulSets}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	if s.root, err = filepath.Abs("../.."); err != nil {
		t.Fatal(err)
	}
	if s.lab, err = lab.Find(s.root, s.say); err != nil {
		t.Fatal(err)
	}
	s.say("seed %d (-seed)", s.seed)
	s.up(t)
	for _, sc := range scenarios {
		if !wanted.MatchString(sc.name) {
			continue
		}
		begin := time.Now()
		ok := t.Run(sc.name, func(t *testing.T) {
			if !sc.bare {
				s.installed(t)
			}
			s.say("%s begins", sc.name)
			sc.do(t, s)
		})
		s.say("%s: passed %v, %.0f s", sc.name, ok, time.Since(begin).Seconds())
		if !ok {
			s.autopsy()
			break // what comes after would find a cluster that nobody knows
		}
	}
	fmt.Print(s.report.String())
	if *into != "" && !t.Failed() {
		if err := s.report.into(filepath.Join(s.root, *into)); err != nil {
			t.Error(err)
		}
	}
}

// say prints progress: a run takes long.
func (s *suite) say(format string, args ...any) {
	fmt.Printf("%s %6.1f s  %s\n", time.Now().Format("15:04:05"), time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// name is a user's name that no earlier run on this cluster has taken.
func (s *suite) name(of string) string {
	return of + strconv.FormatInt(s.begun.Unix()%1_000_000, 36) + "x"
}

// autopsy shows what the cluster looked like when something failed.
func (s *suite) autopsy() {
	ctx := context.WithoutCancel(s.ctx)
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}, {"logs", "-l", "app.kubernetes.io/name=parley", "--tail=12", "--prefix", "--max-log-requests=40"}} {
		out, _ := s.lab.Kubectl(ctx, args...) // as far as it goes
		if lines := len(out); lines > 12000 {
			out = out[len(out)-12000:]
		}
		fmt.Printf("--- kubectl %v\n%s", args, out)
	}
}

// must ends the test when a step of it failed.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *suite) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.lab.Kubectl(s.ctx, args...)
	must(t, err)
	return out
}

// wait waits for a state.
func (s *suite) wait(t testing.TB, what string, within time.Duration, ok func() error) {
	t.Helper()
	must(t, lab.Wait(s.ctx, what, within, ok))
}
