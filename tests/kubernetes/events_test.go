//go:build kubernetes

package kubernetes

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/load"
	"parley.example/tests/kubernetes/lab"
)

// event is something that happens to the cluster while people chat. It returns when it is over: everything runs and is ready.
type event struct {
	what string
	do   func(t *testing.T, s *suite, r *rand.Rand) (how string)
}

var happenings = []event{
	{"nothing", func(*testing.T, *suite, *rand.Rand) string {
		time.Sleep(20 * time.Second) // what is measured is that time
		return ""
	}},
	{"gateways roll to a new version", func(t *testing.T, s *suite, _ *rand.Rand) string {
		s.kubectl(t, "set", "image", workload("gateway"), "gateway=lab.local/parley:"+versions[1])
		s.rolledOut(t, 5*time.Minute, "gateway")
		s.gone(t, "gateway") // the old ones drain after that
		return ""
	}},
	{"every Deployment rolls", func(t *testing.T, s *suite, _ *rand.Rand) string {
		for _, c := range deployments {
			s.restart(t, c)
		}
		s.gone(t, deployments...)
		return ""
	}},
	{"NATS rolls", func(t *testing.T, s *suite, _ *rand.Rand) string {
		s.restart(t, "nats")
		return ""
	}},
	{"a node is drained under its PDBs, and uncordoned", drainNode},
	{"a pod of each kind is deleted by force", killPods},
	{"a node is cut off, and healed", partition},
	{"the chart is upgraded", func(t *testing.T, s *suite, _ *rand.Rand) string {
		s.helm(t, "upgrade", "--force-conflicts", "--set", "image.tag="+versions[1], "--set", "podAnnotations.upgraded=yes")
		s.rolledOut(t, 5*time.Minute)
		s.gone(t, deployments...)
		return ""
	}},
	{"and rolled back", func(t *testing.T, s *suite, _ *rand.Rand) string {
		_, err := s.lab.Run(s.ctx, "helm", "rollback", release, "--force-conflicts", "--wait", "--timeout", "5m")
		must(t, err)
		s.rolledOut(t, 5*time.Minute)
		s.gone(t, deployments...)
		return ""
	}},
}

func (s *suite) restart(t testing.TB, component string) {
	t.Helper()
	s.kubectl(t, "rollout", "restart", workload(component))
	s.rolledOut(t, 5*time.Minute, component)
}

// spare is a node other than the first whose loss does not take the only PostgreSQL along, nor the only Redis if that can be.
func (s *suite) spare(t testing.TB, r *rand.Rand) string {
	t.Helper()
	nodes := []string{"n2", "n3"}
	r.Shuffle(2, func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, kind := range []string{"redis", "postgresql"} { // the latter counts for more
		pods, err := s.pods(kind)
		must(t, err)
		for _, p := range pods {
			if p.Spec.NodeName == nodes[0] {
				nodes[0], nodes[1] = nodes[1], nodes[0]
			}
		}
	}
	return nodes[0]
}

func (s *suite) on(t testing.TB, node string) string {
	t.Helper()
	count := map[string]int{}
	for _, c := range append(append([]string{}, deployments...), statefulSets...) {
		pods, err := s.pods(c)
		must(t, err)
		for _, p := range pods {
			if p.Spec.NodeName == node {
				count[c]++
			}
		}
	}
	var list []string
	for _, c := range append(append([]string{}, deployments...), statefulSets...) {
		if count[c] > 0 {
			list = append(list, fmt.Sprintf("%d %s", count[c], c))
		}
	}
	return strings.Join(list, ", ")
}

func drainNode(t *testing.T, s *suite, r *rand.Rand) string {
	node := s.spare(t, r)
	had := s.on(t, node)
	s.say("%s has %s", node, had)
	s.kubectl(t, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=5m")
	for _, c := range deployments {
		s.rolledOut(t, 3*time.Minute, c)
	}
	s.kubectl(t, "uncordon", node)
	s.rolledOut(t, 5*time.Minute)
	s.gone(t, deployments...)
	return had
}

func killPods(t *testing.T, s *suite, r *rand.Rand) string {
	for _, c := range append(append([]string{}, deployments...), statefulSets...) {
		pods, err := s.pods(c)
		must(t, err)
		p := pods[r.IntN(len(pods))].Metadata
		s.say("%s is deleted by force", p.Name)
		s.kubectl(t, "delete", "pod", p.Name, "--force", "--grace-period=0")
		s.wait(t, p.Name+" is replaced", 3*time.Minute, func() error {
			have, err := s.pods(c)
			if err != nil {
				return err
			}
			for _, h := range have {
				if h.Metadata.UID == p.UID {
					return lab.ErrNotYet
				}
			}
			if len(have) < len(pods) {
				return lab.ErrNotYet
			}
			return nil
		})
		s.rolledOut(t, 5*time.Minute, c) // a NATS server may have to start twice
	}
	return ""
}

// patience is how long the control plane may take to notice that a node is away: 40 s by default, more where the machine is slow (K8S_LAB_GRACE).
const patience = 4 * time.Minute

func (s *suite) nodeReady(node string) (string, error) {
	return s.lab.Kubectl(s.ctx, "get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
}

func partition(t *testing.T, s *suite, r *rand.Rand) string {
	node := s.spare(t, r)
	had := s.on(t, node)
	s.say("%s has %s", node, had)
	_, err := s.lab.Run(s.ctx, "partition", node)
	must(t, err)
	defer func() {
		_, err := s.lab.Run(s.ctx, "heal", node)
		must(t, err)
		s.wait(t, node+" is ready again", 2*time.Minute, func() error { return want(s.nodeReady(node))("True") })
		s.rolledOut(t, 5*time.Minute)
	}()
	s.wait(t, node+" is not ready", patience, func() error { return want(s.nodeReady(node))("Unknown") })
	s.say("%s is not ready", node)
	for _, c := range deployments {
		s.wait(t, c+" has its pods elsewhere", 3*time.Minute, func() error {
			var d struct {
				Spec   struct{ Replicas int }
				Status struct{ AvailableReplicas int }
			}
			if err := s.lab.Get(s.ctx, &d, workload(c)); err != nil {
				return err
			}
			if d.Status.AvailableReplicas < d.Spec.Replicas {
				return lab.ErrNotYet
			}
			return nil
		})
	}
	s.say("its pods run elsewhere; it is healed")
	return had
}

// want compares what was read.
func want(have string, err error) func(string) error {
	return func(wanted string) error {
		switch {
		case err != nil:
			return err
		case have != wanted:
			return fmt.Errorf("%q: %w", have, lab.ErrNotYet)
		}
		return nil
	}
}

// Bounds that are promised: of a reconnect when something rolls, and of presence after a crash.
const (
	reconnectBound = 5 * time.Second
	presenceBound  = 12 * time.Second
)

// sudden events kill without a good-bye; there the clients' own patience decides.
var sudden = regexp.MustCompile("cut off|by force")

func events(t *testing.T, s *suite) {
	chosen, err := regexp.Compile(*which)
	must(t, err)
	r := rand.New(rand.NewPCG(s.seed, 1))
	s.say("%d users register", *users)
	w := load.New(t, s.site, load.Options{Users: *users, Names: s.name("u"), Rate: *rate, Seed: s.seed})
	s.say("and connect")
	w.Start()
	s.say("all are there")
	var rows []*row
	for _, e := range happenings {
		if !chosen.MatchString(e.what) {
			continue
		}
		how := ""
		row := s.during(t, w, e.what, func() { how = e.do(t, s, r) })
		if row.presence > presenceBound {
			t.Errorf("%s: presence was true %.1f s after it was over", e.what, row.presence.Seconds())
		}
		if how != "" {
			row.what += " (" + how + ")"
		}
		rows = append(rows, row)
	}
	s.say("it comes to rest")
	s.verdict(t, w, rows...)
	for _, row := range rows {
		if !sudden.MatchString(row.what) && row.seen.Reconnect > reconnectBound {
			t.Errorf("%s: %s was without a connection for %.1f s", row.what, row.seen.SlowestDevice, row.seen.Reconnect.Seconds())
		}
	}
}

// judge finds what was broken, and says what happened.
func (s *suite) judge(t *testing.T, h *checker.History) {
	t.Helper()
	what := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
	if *saved != "" {
		must(t, checker.Save(h, filepath.Join(*saved, fmt.Sprintf("%s-%d.history", what, len(s.report.totals)))))
	}
	bad := load.Judge(t, h)
	wrong := 0 // presence pictures
	for _, v := range bad {
		if v.What == checker.Presence {
			wrong++
		}
	}
	f := checker.Count(h)
	if f.Accepted < 100 || f.Listed < f.Accepted/2 || f.Beliefs == 0 {
		t.Errorf("too little happened: %+v", f)
	}
	out := fmt.Sprintf("Sent %d (again %d), accepted %d, received %d (late %d), refused as it had to be %d; lost, doubled, out of order, shown to others: %d; presence pictures at the end %d, wrong %d.",
		f.Sent, f.Resent, f.Accepted, f.Received, f.Late, f.Refused, len(bad)-wrong, f.Beliefs, wrong)
	s.say("%s", out)
	s.report.totals = append(s.report.totals, fmt.Sprintf("%s: %d connections. %s", what, len(h.Devices), out))
}
