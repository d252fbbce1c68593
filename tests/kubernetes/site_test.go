//go:build kubernetes

package kubernetes

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/pkg/token"
	"parley.example/tests/kubernetes/lab"
)

const (
	release = "parley"
	labels  = "app.kubernetes.io/name=parley"
)

var (
	deployments  = []string{"gateway", "auth", "presence", "history"}
	statefulSets = []string{"nats", "redis", "postgresql"}
)

// site is the release as its clients see it: one address.
type site struct {
	t    testing.TB
	s    *suite
	door string
	key  ed25519.PrivateKey
}

func (s *site) Door() string    { return s.door }
func (s *site) Doors() []string { return []string{s.door} }

func (s *site) Token(user, login, scope string) string {
	tok, err := token.NewSigner(s.key).Sign(token.Claims{Username: user, UID: 1, SID: login, Scope: scope, Issued: time.Now(), Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		s.t.Error(err)
	}
	return tok
}

func (s *site) WaitCalm(within time.Duration) {
	s.t.Helper()
	s.s.rolledOut(s.t, within)
	s.s.wait(s.t, "SQL has what the streams have", within, s.s.caughtUp)
}

// workload is kind/name of a component.
func workload(component string) string {
	for _, c := range deployments {
		if c == component {
			return "deployment/" + release + "-" + c
		}
	}
	return "statefulset/" + release + "-" + component
}

// rolledOut waits until every workload has all its pods, and all are ready.
func (s *suite) rolledOut(t testing.TB, within time.Duration, components ...string) {
	t.Helper()
	if len(components) == 0 {
		components = append(append(components, deployments...), s.own...)
	}
	for _, c := range components {
		s.kubectl(t, "rollout", "status", workload(c), "--timeout="+within.String())
	}
}

// pod is what is needed of one.
type pod struct {
	Metadata struct {
		Name              string
		UID               string
		DeletionTimestamp string
	}
	Spec struct {
		NodeName   string
		Containers []struct {
			Name  string
			Image string
			Ports []struct {
				Name          string
				ContainerPort int
			}
		}
	}
	Status struct {
		Phase      string
		Conditions []struct{ Type, Status string }
	}
}

func (p *pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == ""
		}
	}
	return false
}

// port is a container port by one of its names.
func (p *pod) port(names ...string) string {
	for _, c := range p.Spec.Containers {
		for _, have := range c.Ports {
			for _, name := range names {
				if have.Name == name {
					return strconv.Itoa(have.ContainerPort)
				}
			}
		}
	}
	return names[0]
}

func (s *suite) pods(component string) ([]pod, error) {
	return s.podsIn("default", component)
}

func (s *suite) podsIn(namespace, component string) ([]pod, error) {
	var list struct{ Items []pod }
	err := s.lab.Get(s.ctx, &list, "pods", "-n", namespace, "-l", labels+",app.kubernetes.io/component="+component)
	return list.Items, err
}

// metric sums a series over a component's ready pods, or takes the highest.
func (s *suite) metric(component, series string, highest bool) (float64, error) {
	pods, err := s.pods(component)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, p := range pods {
		if !p.ready() {
			continue
		}
		text, err := s.lab.Proxy(s.ctx, "default", p.Metadata.Name, p.port("admin", "metrics"), "/metrics")
		if err != nil {
			return 0, err
		}
		for _, line := range strings.Split(text, "\n") {
			i := strings.LastIndexByte(line, ' ')
			if i < 0 || line[:i] != series && !strings.HasPrefix(line, series+"{") {
				continue
			}
			v, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				return 0, err
			}
			if highest {
				total = max(total, v)
			} else {
				total += v
			}
		}
	}
	return total, nil
}

// stream is what a NATS server says of one.
type stream struct {
	Name    string
	Cluster struct {
		Leader   string
		Replicas []struct {
			Name    string
			Current bool
			Offline bool
		}
	}
	State struct {
		Messages int64 `json:"messages"`
		FirstSeq int64 `json:"first_seq"`
		LastSeq  int64 `json:"last_seq"`
	}
}

// streams asks every NATS server, and believes each stream's leader.
func (s *suite) streams() (map[string]stream, error) {
	space := cmp.Or(s.natsSpace, "default")
	pods, err := s.podsIn(space, "nats")
	if err != nil {
		return nil, err
	}
	out := map[string]stream{}
	for _, p := range pods {
		if !p.ready() {
			continue
		}
		text, err := s.lab.Proxy(s.ctx, space, p.Metadata.Name, p.port("monitor", "monitoring"), "/jsz?streams=1&acc="+account)
		if err != nil {
			return nil, err
		}
		var j struct {
			Accounts []struct {
				Streams []stream `json:"stream_detail"`
			} `json:"account_details"`
		}
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			return nil, err
		}
		for _, a := range j.Accounts {
			for _, st := range a.Streams {
				if st.Cluster.Leader == p.Metadata.Name {
					out[st.Name] = st
				}
			}
		}
	}
	return out, nil
}

// caughtUp is nil when SQL has what the streams had when they were asked.
func (s *suite) caughtUp() error {
	streams, err := s.streams()
	if err != nil {
		return err
	}
	seen := 0
	for name, st := range streams {
		p, ok := strings.CutPrefix(name, "ROOMS_")
		if !ok {
			continue
		}
		seen++
		at, err := s.metric("history", `parley_history_position{partition="`+p+`"}`, true)
		if err != nil {
			return err
		}
		if at < float64(st.State.LastSeq) { // it may go on meanwhile
			return fmt.Errorf("%s ends at %d, SQL has %.0f: %w", name, st.State.LastSeq, at, lab.ErrNotYet)
		}
	}
	if seen == 0 {
		return fmt.Errorf("no stream has a leader: %w", lab.ErrNotYet)
	}
	return nil
}

// secret reads one key of a Secret.
func (s *suite) secret(t testing.TB, name, key string) string {
	t.Helper()
	return s.secretIn(t, "default", name, key)
}

func (s *suite) secretIn(t testing.TB, namespace, name, key string) string {
	t.Helper()
	var o struct{ Data map[string]string }
	must(t, s.lab.Get(s.ctx, &o, "secret", name, "-n", namespace))
	b, err := base64.StdEncoding.DecodeString(o.Data[key])
	must(t, err)
	if len(b) == 0 {
		t.Fatalf("Secret %s has no %s", name, key)
	}
	return string(b)
}

// guest is a user who registers and logs in like anybody.
type guest struct {
	name string
	api  *client.Session
	conn *client.Conn
	http *http.Client
}

const password = "correct horse battery"

func (s *suite) guest(ctx context.Context, door, name string) (*guest, error) {
	hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	c, err := client.New(door, hc)
	if err != nil {
		return nil, err
	}
	if err := c.Register(ctx, name, password); err != nil && !strings.Contains(err.Error(), "taken") {
		return nil, fmt.Errorf("register: %w", err)
	}
	sess, err := c.Login(ctx, name, password)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	conn, err := client.Dial(ctx, client.Options{Session: sess, MinBackoff: 50 * time.Millisecond, MaxBackoff: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &guest{name, sess, conn, hc}, nil
}

// pair is two guests who stay until the test ends; of is what their names begin with.
func (s *suite) pair(t testing.TB, of string) (ann, bob *guest) {
	t.Helper()
	var two [2]*guest
	for i, name := range []string{"ann", "bob"} {
		g, err := s.guest(s.ctx, s.site.door, s.name(of+name))
		must(t, err)
		t.Cleanup(g.close)
		two[i] = g
	}
	return two[0], two[1]
}

func (g *guest) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.conn.Close() // it is over in any case
	}()
	for range g.conn.Events() {
	}
	<-done
	g.http.CloseIdleConnections()
}

// receive waits for a message with this content.
func (g *guest) receive(ctx context.Context, content string) (client.Message, error) {
	for {
		select {
		case ev, ok := <-g.conn.Events():
			if !ok {
				return client.Message{}, g.conn.Err()
			}
			if m, is := ev.(client.Message); is && m.Content == content {
				return m, nil
			}
		case <-ctx.Done():
			return client.Message{}, fmt.Errorf("%s waits for %q: %w", g.name, content, ctx.Err())
		}
	}
}

// say sends until it is accepted.
func (g *guest) say(ctx context.Context, to, content string) (int64, error) {
	id := fmt.Sprintf("%d", time.Now().UnixNano())
	for retry := false; ; retry = true {
		try, cancel := context.WithTimeout(ctx, 15*time.Second)
		acc, err := g.conn.SendMessage(try, client.Outgoing{Room: client.Room(g.name, to), Content: content, ID: id, Retry: retry})
		cancel()
		if err == nil {
			return acc.Seq, nil
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond): // between two tries
		}
	}
}

// chat lets one say something to the other, and back.
func chat(ctx context.Context, a, b *guest, text string) (seq int64, err error) {
	if _, err = a.say(ctx, b.name, text); err != nil {
		return 0, err
	}
	if _, err = b.receive(ctx, text); err != nil {
		return 0, err
	}
	if seq, err = b.say(ctx, a.name, text+", too"); err != nil {
		return 0, err
	}
	_, err = a.receive(ctx, text+", too")
	return seq, err
}
