//go:build kubernetes

package kubernetes

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/client"
	"parley.example/tests/chaos/checker"
	"parley.example/tests/chaos/load"
	"parley.example/tests/kubernetes/lab"
)

// crowd is the smaller load of a procedure of operations.
func (s *suite) crowd(t *testing.T, names string) *load.World {
	t.Helper()
	w := load.New(t, s.site, load.Options{Users: 60, Names: s.name(names), Rate: 30, Seed: s.seed})
	w.Start()
	return w
}

// during lets something happen under a load, waits until all is well again and gives its row; it is measured at the end of the load.
func (s *suite) during(t *testing.T, w *load.World, what string, do func()) *row {
	t.Helper()
	s.say("%s", what)
	from, begin := w.Since(), time.Now()
	do()
	took := time.Since(begin)
	w.Wait("everybody is back after: "+what, 2*time.Minute, w.AllThere)
	here, said := time.Now(), false
	w.Wait("presence is true after: "+what, time.Minute, func() bool {
		ok := w.PresenceTrue()
		if !ok && !said && time.Since(here) > presenceBound/2 {
			said = true
			s.say("presence is not true yet: %s", w.WrongPictures(5))
		}
		return ok
	})
	r := &row{what: what, took: took, presence: time.Since(begin) - took, from: from, to: w.Since()}
	s.say("%s: %.0f s, presence true after %.1f s", what, took.Seconds(), r.presence.Seconds())
	return r
}

// verdict ends a load, judges it and files its rows.
func (s *suite) verdict(t *testing.T, w *load.World, rows ...*row) {
	t.Helper()
	h := w.Finish()
	for _, r := range rows {
		r.seen = checker.During(h, r.from, r.to)
		s.say("%s: longest reconnect %.1f s (%s), longest until accepted %.1f s (%s)", r.what, r.seen.Reconnect.Seconds(), r.seen.SlowestDevice, r.seen.Accept.Seconds(), r.seen.SlowestMessage)
		s.report.rows = append(s.report.rows, *r)
	}
	s.judge(t, h)
}

// scale changes how many there are of everything that may be more or fewer.
func scale(t *testing.T, s *suite) {
	w := s.crowd(t, "scale")
	r := s.during(t, w, "scaled: gateways 3 → 5 → 2 → 3, auth, presence and history 2 → 3 → 1 → 2", func() {
		for _, n := range [][2]string{{"5", "3"}, {"2", "1"}, {"3", "2"}} {
			s.kubectl(t, "scale", workload("gateway"), "--replicas="+n[0])
			for _, c := range deployments[1:] {
				s.kubectl(t, "scale", workload(c), "--replicas="+n[1])
			}
			s.rolledOut(t, 5*time.Minute, deployments...)
			s.gone(t, deployments...)
		}
	})
	s.verdict(t, w, r)
}

// gone waits until no pod of these is on its way out.
func (s *suite) gone(t testing.TB, components ...string) {
	t.Helper()
	for _, c := range components {
		s.wait(t, "the old pods of "+c+" have ended", 3*time.Minute, func() error {
			pods, err := s.pods(c)
			if err != nil {
				return err
			}
			for _, p := range pods {
				if p.Metadata.DeletionTimestamp != "" {
					return fmt.Errorf("%s: %w", p.Metadata.Name, lab.ErrNotYet)
				}
			}
			return nil
		})
	}
}

// loseVolume deletes the volume of a NATS server under it: it comes back empty and copies all streams from the others.
func loseVolume(t *testing.T, s *suite) {
	w := s.crowd(t, "volume")
	victim := release + "-nats-1"
	r := s.during(t, w, "a NATS server's volume is lost", func() {
		claim := strings.TrimSpace(s.kubectl(t, "get", "pod", victim, "-o", "jsonpath={.spec.volumes[*].persistentVolumeClaim.claimName}"))
		if claim == "" {
			t.Fatal(victim + " has no volume")
		}
		s.kubectl(t, "delete", "pvc", claim, "--wait=false")
		s.kubectl(t, "delete", "pod", victim, "--grace-period=1")
		s.wait(t, "it has another volume", 3*time.Minute, func() error {
			out, err := s.lab.Kubectl(s.ctx, "get", "pvc", claim, "-o", "jsonpath={.metadata.deletionTimestamp}{.status.phase}")
			return want(out, err)("Bound")
		})
		s.rolledOut(t, 5*time.Minute, "nats")
		s.wait(t, "its copies are complete", 2*time.Minute, s.copies)
	})
	s.verdict(t, w, r)
}

// copies is nil when every stream has all its copies, and they are current.
func (s *suite) copies() error {
	streams, err := s.streams()
	if err != nil {
		return err
	}
	if len(streams) < 3 {
		return fmt.Errorf("%d streams have a leader: %w", len(streams), lab.ErrNotYet)
	}
	for name, st := range streams {
		if len(st.Cluster.Replicas) != 2 {
			return fmt.Errorf("%s has %d followers: %w", name, len(st.Cluster.Replicas), lab.ErrNotYet)
		}
		for _, r := range st.Cluster.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("%s on %s is behind: %w", name, r.Name, lab.ErrNotYet)
			}
		}
	}
	return nil
}

// rotateKeys gives auth another key. Tokens of the old one stay good until they end.
func rotateKeys(t *testing.T, s *suite) {
	w := s.crowd(t, "keys")
	before := s.site.key
	r := s.during(t, w, "the token key is changed", func() {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		patch, err := json.Marshal(map[string]any{"stringData": map[string]string{keyName: base64.StdEncoding.EncodeToString(key)}})
		must(t, err)
		s.kubectl(t, "patch", "secret", keySecret, "-p", string(patch))
		s.restart(t, "auth")
		s.gone(t, "auth")
	})
	s.learnKey(t)
	if s.site.key.Equal(before) {
		t.Error("the key is the same as before")
	}
	s.restart(t, "gateway") // everybody connects again, now with tokens of the new key
	g, err := s.guest(s.ctx, s.site.door, s.name("keysguest"))
	must(t, err)
	defer g.close()
	s.verdict(t, w, r)
	// The upgrade keeps the new key.
	s.helm(t, "upgrade", "--set", "image.tag="+versions[0])
	after := s.site.key
	s.learnKey(t)
	if !s.site.key.Equal(after) {
		t.Error("helm upgrade made another key")
	}
}

// rotatePasswords changes every service's NATS password: each has two users, and the one that is not used gets a new password first.
func rotatePasswords(t *testing.T, s *suite) {
	w := s.crowd(t, "passwords")
	services := []string{"gateway", "auth", "presence", "history"}
	old := map[string]string{}
	renew := func(suffix string) {
		data := map[string]string{}
		for _, u := range services {
			old[u+suffix] = s.secret(t, natsUsers, u+suffix+"-password")
			data[u+suffix+"-password"] = "p" + rand.Text()
		}
		patch, err := json.Marshal(map[string]any{"stringData": data})
		must(t, err)
		s.kubectl(t, "patch", "secret", natsUsers, "-p", string(patch))
		s.restart(t, "nats")
	}
	r := s.during(t, w, "the services' NATS passwords are changed", func() {
		renew("-b")
		s.helm(t, "upgrade", "--set", "image.tag="+versions[0], "--set", "nats.auth.slot=b")
		s.rolledOut(t, 5*time.Minute)
		s.gone(t, deployments...)
		renew("")
	})
	s.verdict(t, w, r)
	addr, err := s.lab.Publish(s.ctx, "default/"+release+"-nats:client")
	must(t, err)
	for user, password := range old {
		if nc, err := nats.Connect("nats://"+addr, nats.UserInfo(user, password), nats.Timeout(10*time.Second)); err == nil {
			nc.Close()
			t.Errorf("the old password of %s is still good", user)
		}
	}
	// Back, for what comes after.
	s.helm(t, "upgrade", "--set", "image.tag="+versions[0])
	s.rolledOut(t, 5*time.Minute)
}

// restore loses SQL and puts an older dump back; then loses every NATS volume.
func restore(t *testing.T, s *suite) {
	w := s.crowd(t, "restore")
	wait(10 * time.Second)
	w.Hush()
	s.site.WaitCalm(time.Minute)
	dump := s.dump(t)
	w.Talk()
	wait(10 * time.Second)

	sql := s.during(t, w, "SQL is lost under load; an older dump is restored, the rest comes from the streams", func() {
		s.kubectl(t, "scale", workload("auth"), workload("history"), "--replicas=0")
		s.gone(t, "auth", "history")
		s.loadDump(t, dump)
		s.kubectl(t, "scale", workload("auth"), workload("history"), "--replicas=2")
		s.rolledOut(t, 3*time.Minute, "auth", "history")
		s.wait(t, "SQL has what the streams have", 2*time.Minute, func() error {
			streams, err := s.streams()
			if err != nil {
				return err
			}
			at, err := s.metric("history", `parley_history_position{partition="0"}`, true)
			if err != nil || at+100 < float64(streams["ROOMS_0"].State.LastSeq) { // people go on talking
				return fmt.Errorf("at %.0f: %w", at, lab.ErrNotYet)
			}
			return nil
		})
	})
	wait(5 * time.Second)

	// What is accepted and not yet in SQL would be lost with the streams, so people are quiet.
	w.Hush()
	s.site.WaitCalm(time.Minute)
	old, err := s.streams()
	must(t, err)
	nats := s.during(t, w, "every NATS volume is lost; history makes the streams anew", func() {
		s.kubectl(t, "scale", workload("nats"), "--replicas=0")
		s.gone(t, "nats")
		s.loseNatsVolumes(t)
		s.kubectl(t, "scale", workload("nats"), "--replicas=3")
		s.rolledOut(t, 3*time.Minute)
		s.wait(t, "all streams are there", 2*time.Minute, s.copies)
	})
	w.Talk()
	wait(10 * time.Second)
	now, err := s.streams()
	must(t, err)
	for name, st := range old {
		if strings.HasPrefix(name, "ROOMS_") && now[name].State.FirstSeq <= st.State.LastSeq {
			t.Errorf("%s ended at %d and begins at %d now", name, st.State.LastSeq, now[name].State.FirstSeq)
		}
	}
	s.report.fact("seqs of the stream before and after all of NATS was lost", "ended at %d, begins at %d", old["ROOMS_0"].State.LastSeq, now["ROOMS_0"].State.FirstSeq)
	s.verdict(t, w, sql, nats)
}

// disaster: SQL and NATS are both lost, and all there is is a dump that is older than what people have seen. What came after the dump is gone; but
// no seq may be given a second time, or clients that resume would miss what is new.
func disaster(t *testing.T, s *suite) {
	ann, bob := s.pair(t, "dis")
	_, err := chat(s.ctx, ann, bob, "before the dump")
	must(t, err)
	s.site.WaitCalm(time.Minute)
	dump := s.dump(t)
	seen := int64(0)
	for i := range 20 {
		seen, err = chat(s.ctx, ann, bob, fmt.Sprintf("after the dump, %d", i))
		must(t, err)
	}
	begin := time.Now()
	s.kubectl(t, "scale", workload("gateway"), workload("auth"), workload("history"), workload("nats"), "--replicas=0")
	s.gone(t, "gateway", "auth", "history", "nats")
	s.loseNatsVolumes(t)
	s.loadDump(t, dump)
	s.psql(t, release, "UPDATE history_partitions SET seq = seq + 1000000")
	s.kubectl(t, "scale", workload("nats"), "--replicas=3")
	s.kubectl(t, "scale", workload("auth"), workload("history"), "--replicas=2")
	s.rolledOut(t, 3*time.Minute, "nats", "auth", "history")
	s.kubectl(t, "scale", workload("gateway"), "--replicas=3")
	s.rolledOut(t, 3*time.Minute)
	again, err := chat(s.ctx, ann, bob, "after the restore")
	must(t, err)
	took := time.Since(begin)
	s.say("up to seq %d before, from %d on after", seen, again)
	if again <= seen {
		t.Errorf("seq %d was given again: the highest before was %d", again, seen)
	}
	found := 0
	for m, err := range bob.api.History(s.ctx, client.Room(ann.name, bob.name), 0) {
		must(t, err)
		if m.Content == "before the dump" || m.Content == "after the restore" {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d of the two messages are in history", found)
	}
	s.report.fact("SQL and NATS lost together, restored from an older dump: from the loss to the next message", "%.0f s; seq %d before, %d after", took.Seconds(), seen, again)
}

// dump is pg_dump's archive.
func (s *suite) dump(t testing.TB) []byte {
	t.Helper()
	out, err := s.lab.Kubectl(s.ctx, "exec", release+"-postgresql-0", "--", "pg_dump", "-U", release, "-Fc", release)
	must(t, err)
	s.say("a dump of %d bytes", len(out))
	return []byte(out)
}

// loadDump loses the database and puts a dump in its place.
func (s *suite) loadDump(t testing.TB, dump []byte) {
	t.Helper()
	s.psql(t, "postgres", fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", release))
	s.psql(t, "postgres", fmt.Sprintf("CREATE DATABASE %s OWNER %s", release, release))
	_, err := s.lab.Feed(s.ctx, dump, "kubectl", "exec", "-i", release+"-postgresql-0", "--", "pg_restore", "-U", release, "-d", release, "--exit-on-error")
	must(t, err)
}

func (s *suite) loseNatsVolumes(t testing.TB) {
	t.Helper()
	for _, c := range strings.Fields(s.kubectl(t, "get", "pvc", "-o", "jsonpath={.items[*].metadata.name}")) {
		if strings.Contains(c, "-nats-") {
			s.kubectl(t, "delete", "pvc", c)
		}
	}
}

// wait lets people talk for a while.
func wait(d time.Duration) { time.Sleep(d) } // the length of a fault

func (s *suite) psql(t testing.TB, db, statement string) string {
	t.Helper()
	out, err := s.lab.Run(s.ctx, "kubectl", "exec", release+"-postgresql-0", "--", "psql", "-U", release, "-d", db, "-v", "ON_ERROR_STOP=1", "-Atc", statement)
	must(t, err)
	return string(bytes.TrimSpace([]byte(out)))
}

// loseNode takes a node away for good: what ran there is started elsewhere.
func loseNode(t *testing.T, s *suite) {
	w := s.crowd(t, "node")
	var node string
	r := s.during(t, w, "a node is lost for good", func() {
		node = s.natsNode(t)
		s.say("%s has %s", node, s.on(t, node))
		_, err := s.lab.Run(s.ctx, "partition", node)
		must(t, err)
		s.wait(t, node+" is not ready", patience, func() error { return want(s.nodeReady(node))("Unknown") })
		// It is off, and will not come back with these pods: without saying so, StatefulSets wait for it for ever.
		s.kubectl(t, "taint", "node", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
		s.rolledOut(t, 5*time.Minute)
		s.wait(t, "all copies are complete", 2*time.Minute, s.copies)
	})
	_, err := s.lab.Run(s.ctx, "heal", node)
	must(t, err)
	s.wait(t, node+" is ready again", 2*time.Minute, func() error { return want(s.nodeReady(node))("True") })
	s.kubectl(t, "taint", "node", node, "node.kubernetes.io/out-of-service-")
	s.rolledOut(t, 5*time.Minute)
	s.verdict(t, w, r)
}

// natsNode is a node other than the first that has a NATS server.
func (s *suite) natsNode(t testing.TB) string {
	t.Helper()
	pods, err := s.pods("nats")
	must(t, err)
	for _, p := range pods {
		if p.Spec.NodeName != "n1" {
			return p.Spec.NodeName
		}
	}
	t.Fatal("all NATS servers are on n1")
	return ""
}
