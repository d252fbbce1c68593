//go:build kubernetes

package kubernetes

import (
	"crypto/ed25519"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (s *suite) chart() string  { return filepath.Join(s.root, "deploy/helm/parley") }
func (s *suite) values() string { return filepath.Join(s.root, "tests/kubernetes/values.yaml") }

// helm runs helm with the test's values.
func (s *suite) helm(t testing.TB, verb string, more ...string) {
	t.Helper()
	args := []string{"helm", verb, release, s.chart(), "-f", s.values(), "--wait", "--timeout", "5m"}
	_, err := s.lab.Run(s.ctx, append(args, more...)...)
	must(t, err)
}

// checkVariants lets the lab judge every variant of the chart that has a values file.
func checkVariants(t *testing.T, s *suite) {
	variants, err := filepath.Glob(filepath.Join(s.chart(), "ci/*.yaml"))
	must(t, err)
	if len(variants) == 0 {
		t.Fatal("the chart has no ci/*.yaml")
	}
	for _, v := range append(variants, s.values()) {
		name := strings.TrimSuffix(filepath.Base(v), ".yaml")
		t.Run(name, func(t *testing.T) {
			out, err := s.lab.Run(s.ctx, "helm", "template", release, s.chart(), "-f", v)
			must(t, err)
			_, err = s.lab.Feed(s.ctx, []byte(out), "check", "--restricted", "--crds", filepath.Join(s.chart(), "ci/crds"), "-")
			must(t, err)
			s.say("variant %s is accepted", name)
		})
	}
	s.report.fact("variants of the chart that the API server accepts", "%d", len(variants)+1)
}

// install is the time from nothing to a message between two people.
func install(t *testing.T, s *suite) {
	if s.install.done {
		t.Fatal("it is installed already")
	}
	begin := time.Now()
	s.helm(t, "install", "--set", "image.tag="+versions[0])
	ready := time.Since(begin)
	s.open(t)
	ann, bob := s.pair(t, "")
	_, err := ann.say(s.ctx, bob.name, "hello")
	must(t, err)
	_, err = bob.receive(s.ctx, "hello")
	must(t, err)
	first := time.Since(begin)
	_, err = chat(s.ctx, bob, ann, "hello back")
	must(t, err)
	s.say("installed in %.0f s, the first message after %.1f s", ready.Seconds(), first.Seconds())
	s.report.fact("`helm install --wait` on an empty cluster of three nodes", "%.0f s", ready.Seconds())
	s.report.fact("from there: Service published, two users registered, logged in, connected, first message received", "%.1f s", (first - ready).Seconds())
}

// open publishes the Service and learns the key.
func (s *suite) open(t testing.TB) {
	t.Helper()
	addr, err := s.lab.Publish(s.ctx, "default/"+release+"-gateway:http")
	must(t, err)
	s.site = &site{s: s, door: "http://" + addr}
	s.learnKey(t)
	s.install.done = true
}

// learnKey reads the key that signs tokens, so that people need no password.
func (s *suite) learnKey(t testing.TB) {
	t.Helper()
	raw := strings.TrimSpace(s.secret(t, keySecret, keyName))
	seed, err := base64.StdEncoding.DecodeString(raw)
	if err != nil || len(seed) != ed25519.SeedSize {
		t.Fatalf("the token key has %d bytes: %v", len(seed), err)
	}
	s.site.key = ed25519.NewKeyFromSeed(seed)
}

// installed installs the chart unless it is.
func (s *suite) installed(t testing.TB) {
	t.Helper()
	if !s.install.done {
		if out, _ := s.lab.Run(s.ctx, "helm", "status", release); strings.Contains(out, "deployed") {
			s.say("the release that is there is used")
		} else {
			s.say("the chart is installed")
			s.helm(t, "install", "--set", "image.tag="+versions[0])
		}
		s.open(t)
	}
	s.site.t = t
	s.rolledOut(t, 3*time.Minute)
}
