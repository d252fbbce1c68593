package outage

import (
	"fmt"
	"regexp"
	"syscall"
	"testing"
	"time"

	"parley.example/tests/harness"
)

// TestAllInOneKilled: kill -9 of the one process right after it has accepted a message for somebody who is away. After the restart
// the message is there, once.
func TestAllInOneKilled(t *testing.T) {
	dir := t.TempDir()
	serve := func(addr string) (*harness.Process, string) {
		p := harness.Start(t, "parley serve", "parley", map[string]string{"http-rate": "100000", "http-burst": "100000"}, "serve", "--http", addr, "--data", dir)
		return p, p.LogMatch(t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
	}
	p, base := serve("127.0.0.1:0")
	v := harness.Outside(t, base)
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	var want []string
	for round := range 3 {
		l := lisa.Joined(base)
		text := fmt.Sprintf("right before the end %d", round)
		l.MustSend(room, text)
		p.Kill()
		want = append(want, text)
		p, _ = serve(base[len("http://"):])
	}
	a := avi.Joined(base)
	a.Message(want[2])
	settle()
	sameTexts(t, "who was away", a.Received(room), want)
	sameTexts(t, "history", avi.History(t, base, room, len(want)), want)
	p.Signal(t, syscall.SIGTERM)
	if status := p.Exited(t, 30*time.Second); status != 0 {
		t.Errorf("SIGTERM ended it with status %d", status)
	}
}
