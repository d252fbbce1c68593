//go:build kubernetes

package kubernetes

import (
	"fmt"
	"os"
	"testing"
	"time"

	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/load"
	"parley.example/tests/kubernetes/lab"
)

// adapterPort is on the first node, where the API server is.
const adapterPort = "4543"

// apiService tells the API server who answers for custom.metrics.k8s.io.
const apiService = `
apiVersion: v1
kind: Service
metadata: {name: metrics-adapter, namespace: kube-system}
spec: {ports: [{port: 443, targetPort: ` + adapterPort + `}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-adapter-1, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-adapter}}
addressType: IPv4
ports: [{port: ` + adapterPort + `}]
endpoints: [{addresses: [198.51.100.1]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta2.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta2
  groupPriorityMinimum: 100
  versionPriority: 200
  insecureSkipTLSVerify: true
  service: {name: metrics-adapter, namespace: kube-system}
`

// adapter serves the gateways' sessions as a metric, as long as the test runs.
func (s *suite) adapter(t *testing.T) {
	t.Helper()
	log, err := os.Create(s.dir + "/adapter.log")
	must(t, err)
	cmd := s.lab.Command(s.ctx, "exec", "n1", s.dir+"/adapter", "/etc/kubernetes/admin.conf", ":"+adapterPort, "parley_gateway_sessions="+sessionSeries)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			fmt.Printf("--- adapter\n%s", b)
		}
		// Else the API server goes on asking whom nobody answers.
		_, err := s.lab.Feed(s.ctx, []byte(apiService), "kubectl", "delete", "-f", "-", "--ignore-not-found")
		if err != nil {
			s.say("%v", err)
		}
	})
	_, err = s.lab.Feed(s.ctx, []byte(apiService), "kubectl", "apply", "-f", "-")
	must(t, err)
	s.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io", "--timeout=60s")
}

// autoscale lets many people come and go beside a few who stay: gateways are added and taken away, and nobody misses a message.
func autoscale(t *testing.T, s *suite) {
	s.adapter(t)
	s.helm(t, "upgrade", "--set", "image.tag="+versions[0], "--set", "gateway.autoscaling.enabled=true", "--set", "gateway.autoscaling.minReplicas=2", "--set", "gateway.autoscaling.maxReplicas=5",
		"--set", "gateway.autoscaling.sessions.target=80", "--set", "gateway.autoscaling.cpu.enabled=false", "--set", "gateway.autoscaling.scaleDown.stabilizationWindowSeconds=10",
		"--set", "gateway.autoscaling.scaleDown.periodSeconds=15", "--set", "gateway.autoscaling.scaleUp.periodSeconds=10")
	replicas := func() (int, error) {
		var d struct {
			Spec   struct{ Replicas int }
			Status struct{ ReadyReplicas int }
		}
		err := s.lab.Get(s.ctx, &d, workload("gateway"))
		if err == nil && d.Status.ReadyReplicas != d.Spec.Replicas {
			err = fmt.Errorf("%d of %d are ready: %w", d.Status.ReadyReplicas, d.Spec.Replicas, lab.ErrNotYet)
		}
		return d.Spec.Replicas, err
	}
	is := func(n int) func() error {
		return func() error {
			have, err := replicas()
			if err == nil && have != n {
				err = fmt.Errorf("%d gateways: %w", have, lab.ErrNotYet)
			}
			return err
		}
	}
	stay := load.New(t, s.site, load.Options{Users: 60, Names: s.name("stay"), Rate: 30, Seed: s.seed})
	stay.Start()
	s.wait(t, "two gateways for those who stay", 3*time.Minute, is(2))
	s.say("two gateways")
	var late *load.World // come when there are five, and are on all of them; few, so that two are enough for all who stay
	in := s.during(t, stay, "sessions grow, the HPA adds gateways", func() {
		come := load.New(t, s.site, load.Options{Users: 150, Names: s.name("come"), Rate: 15, Seed: s.seed + 1})
		come.Start()
		s.wait(t, "five gateways", 4*time.Minute, is(5))
		wait(20 * time.Second) // else there is nothing to judge where gateways start fast
		late = load.New(t, s.site, load.Options{Users: 10, Names: s.name("late"), Rate: 15, Seed: s.seed + 2})
		late.Start()
		s.say("five gateways; the many leave")
		h := come.Finish()
		s.judge(t, h)
	})
	from := late.Since()
	out := s.during(t, stay, "the many have left, the HPA takes gateways away", func() {
		s.wait(t, "two gateways again", 6*time.Minute, is(2))
		s.gone(t, "gateway")
		s.say("two gateways again")
	})
	to := late.Since()
	s.verdict(t, stay, in, out)
	h := late.Finish()
	s.judge(t, h)
	if out.seen.Broken+checker.During(h, from, to).Broken == 0 {
		t.Error("nobody was on a gateway that was taken away")
	}
	// The number of gateways is the autoscaler's until then; while it is there, it takes back what the chart says.
	s.kubectl(t, "delete", "hpa", release+"-gateway")
	s.helm(t, "upgrade", "--force-conflicts", "--set", "image.tag="+versions[0])
	s.wait(t, "as many gateways as the values say", 2*time.Minute, is(3))
}
