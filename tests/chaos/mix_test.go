//go:build chaos

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/cluster"
	"parley.example/tests/chaos/load"
)

// TestMix breaks things at random while people chat. PARLEY_CHAOS=30m makes it a long run (make chaos), PARLEY_CHAOS_SEED repeats one,
// PARLEY_CHAOS_USERS and PARLEY_CHAOS_RATE set how many people there are and how many messages a second they send together.
func TestMix(t *testing.T) {
	long := duration(t, "PARLEY_CHAOS")
	if long == 0 {
		t.Parallel()
		mix(t, mixOptions{users: 24, rate: 80, lasts: 20 * time.Second, seed: 1, beside: 2, short: true, accepted: 600, faults: 8, reconnects: 40, only: os.Getenv("PARLEY_CHAOS_ONLY")})
		return
	}
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	if s := os.Getenv("PARLEY_CHAOS_SEED"); s != "" {
		seed = uint64(number(t, "PARLEY_CHAOS_SEED", 0))
	}
	mix(t, mixOptions{
		users: number(t, "PARLEY_CHAOS_USERS", 240), rate: float64(number(t, "PARLEY_CHAOS_RATE", 400)), lasts: long, seed: seed, beside: 2,
		accepted: int(long.Seconds() * 50), faults: int(long.Minutes() * 4), reconnects: int(long.Minutes() * 100), only: os.Getenv("PARLEY_CHAOS_ONLY"), progress: true,
	})
}

// TestJudge judges the history that a run with PARLEY_CHAOS_SAVE=FILE has left, again.
func TestJudge(t *testing.T) {
	path := os.Getenv("PARLEY_CHAOS_HISTORY")
	if path == "" {
		t.Skip("PARLEY_CHAOS_HISTORY names no file")
	}
	h, err := checker.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", checker.Count(h))
	load.Judge(t, h)
}

func duration(t *testing.T, name string) time.Duration {
	s := os.Getenv(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

func number(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

type mixOptions struct {
	users                        int
	rate                         float64
	lasts                        time.Duration
	seed                         uint64
	beside                       int // faults at a time
	short, progress              bool
	only                         string // faults whose name contains this
	accepted, faults, reconnects int    // at least
}

func mix(t *testing.T, o mixOptions) {
	mode := "everyone"
	if o.seed%2 == 1 {
		mode = "roster"
	}
	t.Logf("seed %d (PARLEY_CHAOS_SEED), %s, %d users, %.0f messages a second, directory mode %s", o.seed, o.lasts, o.users, o.rate, mode)
	// Only root can have small disks, so the short run does without.
	c := cluster.New(t, cluster.Options{Settings: map[string]string{"drain": "2s", "directory-mode": mode}, SmallDisks: !o.short})
	w := load.New(t, c, load.Options{Users: o.users, Rate: o.rate, Stay: time.Minute, Seed: o.seed, Acts: o.rate / 10, Roster: mode == "roster"})
	w.Start()
	a := &arena{t: t, c: c, w: w, short: o.short}
	count := storm(a, o)
	c.Heal()
	h := w.Finish()
	if path := os.Getenv("PARLEY_CHAOS_SAVE"); path != "" {
		if err := checker.Save(h, path); err != nil {
			t.Error(err)
		}
	}
	f := w.Figures()
	total := 0
	var names []string
	for name, n := range count {
		total += n
		names = append(names, fmt.Sprintf("%d × %s", n, name))
	}
	sort.Strings(names)
	t.Logf("%d faults: %s", total, strings.Join(names, ", "))
	t.Logf("%d accepted of %d sent (%d again), %d refused as they should be, %d times no outcome, %d received (%d late, %d a second time by clients that do not remember), %d connections",
		f.Accepted, f.Sent, f.Resent, f.Refused, f.Unknown, f.Received, f.Late, f.Again, f.Connected)
	t.Logf("%d rooms read, %d partings, told to %d sessions; %d pictures of contacts and marks", f.Reads, f.Partings, f.ToldOfPartings, f.Known)
	// The run must have been one.
	if f.Reads < o.users || f.Partings == 0 || f.ToldOfPartings == 0 || f.Known < o.users {
		t.Errorf("too little happened beside messages: %+v", f)
	}
	if f.Accepted < o.accepted || total < o.faults || f.Connected-f.Beliefs < o.reconnects || f.Refused == 0 || f.Beliefs == 0 || f.Conversations == 0 || f.Listed < f.Accepted/2 {
		t.Errorf("too little happened: %+v, %d faults", f, total)
	}
	load.Judge(t, h)
}

// storm lets faults happen, some at a time, each at most once at a time and never two of one group. Which ones is chance, so it goes on until
// enough has happened to people, three times as long at most.
func storm(a *arena, o mixOptions) map[string]int {
	var mu sync.Mutex
	busy := map[string]bool{}
	count := map[string]int{}
	start, connected := time.Now(), a.w.SoFar(checker.Connected)
	enough := func() bool {
		return a.w.SoFar(checker.Connected)-connected >= o.reconnects && a.w.SoFar(checker.Accepted) >= o.accepted && a.w.SoFar(checker.ToldParted) > 0
	}
	over := func() bool {
		lasted := time.Since(start)
		return lasted >= 3*o.lasts || lasted >= o.lasts && enough()
	}
	var wg sync.WaitGroup
	for worker := range o.beside {
		r := rand.New(rand.NewPCG(o.seed, uint64(worker)+1000))
		wg.Go(func() {
			for !over() && !a.t.Failed() {
				mu.Lock()
				var free []fault
				for _, f := range faults {
					if !busy[f.group] && strings.Contains(f.name, o.only) && (f.name != diskFull || !a.short) {
						free = append(free, f)
					}
				}
				if len(free) == 0 {
					mu.Unlock()
					time.Sleep(100 * time.Millisecond) // until another fault has ended
					continue
				}
				f := free[r.IntN(len(free))]
				busy[f.group] = true
				mu.Unlock()
				begin := time.Now()
				f.do(a, r)
				if o.progress {
					a.t.Logf("%7.1f s  %-36s %5.1f s; accepted %d, received %d, connections %d, without outcome %d", a.w.Since().Seconds(), f.name, time.Since(begin).Seconds(),
						a.w.SoFar(checker.Accepted), a.w.SoFar(checker.Received), a.w.SoFar(checker.Connected), a.w.SoFar(checker.Unknown))
				}
				mu.Lock()
				busy[f.group] = false
				count[f.name]++
				mu.Unlock()
				a.lasts(r, 0, 4*second) // some peace
			}
		})
	}
	wg.Wait()
	return count
}
