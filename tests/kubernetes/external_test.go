//go:build kubernetes

package kubernetes

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"parley.example/client"
)

// The stores that external moves to: another release, of which only these run, in a namespace of its own.
const (
	storesSpace = "stores"
	stores      = "parley-stores"
)

// external takes PostgreSQL, Redis and NATS out of the release, one at a time, under people who chat.
func external(t *testing.T, s *suite) {
	_, err := s.lab.Run(s.ctx, "helm", "install", stores, s.chart(), "-f", s.values(), "-n", storesSpace, "--create-namespace", "--wait", "--timeout", "5m",
		"--set", "gateway.replicas=0,auth.replicas=0,presence.replicas=0,history.replicas=0,networkPolicy.enabled=false")
	must(t, err)
	s.say("other stores are there")
	ann, bob := s.pair(t, "ext")
	before, err := chat(s.ctx, ann, bob, "before the move")
	must(t, err)

	values := []string{"--force-conflicts", "--set", "image.tag=" + versions[0]}
	upgrade := func(store string, more ...string) {
		for _, v := range more {
			values = append(values, "--set", v)
		}
		s.own = without(s.own, store)
		s.helm(t, "upgrade", values...)
		s.rolledOut(t, 5*time.Minute)
		s.gone(t, deployments...)
		if pods, err := s.pods(store); err != nil || len(pods) > 0 {
			t.Errorf("%d pods of %s are still in the release: %v", len(pods), store, err)
		}
	}
	w := s.crowd(t, "ext")
	sql := s.during(t, w, "PostgreSQL is moved out of the release", func() {
		s.kubectl(t, "scale", workload("auth"), workload("history"), "--replicas=0")
		s.gone(t, "auth", "history")
		_, err := s.lab.Feed(s.ctx, s.dump(t), "kubectl", "exec", "-i", "-n", storesSpace, stores+"-postgresql-0", "--", "pg_restore", "-U", release, "-d", release, "--exit-on-error")
		must(t, err)
		s.copySecret(t, "postgresql", func(data map[string]string) map[string]string {
			return map[string]string{"url": fmt.Sprintf("postgres://parley:%s@%s-postgresql.%s:5432/parley?sslmode=disable", data["password"], stores, storesSpace)}
		})
		upgrade("postgresql", "postgresql.enabled=false", "postgresql.external.existingSecret=our-postgresql")
	})
	redis := s.during(t, w, "Redis is moved out of the release", func() {
		s.copySecret(t, "redis", func(data map[string]string) map[string]string {
			return map[string]string{"url": fmt.Sprintf("redis://:%s@%s-redis.%s:6379/0", data["password"], stores, storesSpace)}
		})
		upgrade("redis", "redis.enabled=false", "redis.external.existingSecret=our-redis")
	})
	nats := s.during(t, w, "NATS is moved out of the release", func() {
		s.kubectl(t, "scale", workload("gateway"), "--replicas=0")
		s.gone(t, "gateway")
		s.wait(t, "SQL has what the streams have", time.Minute, s.caughtUp)
		s.copySecret(t, "nats", func(data map[string]string) map[string]string { return data })
		s.natsSpace = storesSpace
		upgrade("nats", "nats.enabled=false", "nats.auth.existingSecret=our-nats", fmt.Sprintf("nats.external.urls={nats://%s-nats.%s:4222}", stores, storesSpace))
	})
	s.verdict(t, w, sql, redis, nats)

	after, err := chat(s.ctx, ann, bob, "after the move")
	must(t, err)
	if after <= before {
		t.Errorf("seq %d after the move, %d before", after, before)
	}
	found := map[string]bool{}
	for m, err := range bob.api.History(s.ctx, client.Room(ann.name, bob.name), 0) {
		must(t, err)
		found[m.Content] = true
	}
	if !found["before the move"] || !found["after the move"] {
		t.Errorf("history has %v", found)
	}
	s.uninstall(t)
}

func without(list []string, what string) []string {
	var out []string
	for _, l := range list {
		if l != what {
			out = append(out, l)
		}
	}
	return out
}

// copySecret makes our-STORE of the other release's Secret.
func (s *suite) copySecret(t testing.TB, store string, of func(data map[string]string) map[string]string) {
	t.Helper()
	var have struct{ Data map[string]string }
	must(t, s.lab.Get(s.ctx, &have, "secret", stores+"-"+store, "-n", storesSpace))
	data := map[string]string{}
	for key := range have.Data {
		data[key] = s.secretIn(t, storesSpace, stores+"-"+store, key)
	}
	o, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "our-" + store}, "stringData": of(data)})
	must(t, err)
	_, err = s.lab.Feed(s.ctx, o, "kubectl", "apply", "-f", "-")
	must(t, err)
}

// uninstall leaves an empty cluster, for a later run on the same one.
func (s *suite) uninstall(t testing.TB) {
	t.Helper()
	for _, args := range [][]string{
		{"helm", "uninstall", release, "--wait"},
		{"helm", "uninstall", stores, "-n", storesSpace, "--wait"},
		{"kubectl", "delete", "namespace", storesSpace},
		{"kubectl", "delete", "pvc,secret", "-l", labels},
		{"kubectl", "delete", "secret", "our-postgresql", "our-redis", "our-nats"},
	} {
		_, err := s.lab.Run(s.ctx, args...)
		must(t, err)
	}
	s.own, s.natsSpace, s.install.done = statefulSets, "", false
}
