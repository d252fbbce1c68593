package outage

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// natsHealth is the health check of NATS servers in the compose file, run by what the image has: BusyBox.
type natsHealth struct {
	t      *testing.T
	path   string // folder of the only programs
	failed string // where it counts
}

func newNatsHealth(t *testing.T) *natsHealth {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("make test-deps installs it: %v", err)
	}
	h := &natsHealth{t, t.TempDir(), filepath.Join(t.TempDir(), "failed")}
	for _, applet := range []string{"sh", "cat", "timeout", "wget"} {
		if err := os.Symlink(busybox, filepath.Join(h.path, applet)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// started is what a container's start does to its files in memory.
func (h *natsHealth) started() { _ = os.Remove(h.failed) } // it may have counted nothing

// well runs it once.
func (h *natsHealth) well(pid int, url string) bool {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(h.path, "sh"), "../../deploy/compose/nats-health.sh", fmt.Sprint(pid), url, h.failed)
	cmd.Env = []string{"PATH=" + h.path}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		h.t.Fatalf("the health check: %v\n%s", err, out)
	}
	return err == nil
}

// fails runs it n times; the server does not end before the last one.
func (h *natsHealth) fails(p *harness.Process, url string, n int) {
	h.t.Helper()
	for i := range n {
		select {
		case <-p.Ended():
			h.t.Fatalf("the server ended after %d failures, not %d", i, n)
		default:
		}
		if h.well(p.Pid(), url) {
			h.t.Fatalf("failure %d is none", i+1)
		}
	}
}

// natsOn starts a server whose store is in dir, and gives its URL and that of its health.
func natsOn(t *testing.T, dir string) (p *harness.Process, url, health string) {
	t.Helper()
	p = harness.Start(t, "NATS", harness.NatsServer, nil, "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-js", "-sd", dir)
	url = "nats://" + p.LogMatch(t, regexp.MustCompile(`Listening for client connections on (\S+)`))
	health = "http://" + p.LogMatch(t, regexp.MustCompile(`Starting http monitor on (\S+)`)) + "/healthz"
	return p, url, health
}

// TestComposeNatsIsStartedAgain: a disk is full, then there is room, and the stream still refuses: the health check ends the server, which Docker starts again.
func TestComposeNatsIsStartedAgain(t *testing.T) {
	h := newNatsHealth(t)
	disk := harness.NewDisk(t, 64<<20)
	store := filepath.Join(disk.Dir, "store")
	p, url, health := natsOn(t, store)
	testx.Eventually(t, "it is well", harness.Within, func() bool { return h.well(p.Pid(), health) })
	js, err := jetstream.New(testx.Connect(t, url), jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	stored := 0
	say := func() error {
		_, err := js.Publish(t.Context(), "s", make([]byte, 10_000))
		if err == nil {
			stored++
		}
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	disk.Fill()
	testx.Eventually(t, "it stores nothing", harness.Within, func() bool { return say() != nil })
	h.fails(p, health, 5)
	disk.Empty()
	if say() == nil {
		t.Fatal("it stores again by itself: then nothing has to start it")
	}
	h.fails(p, health, 1)
	p.Exited(t, harness.Within)

	h.started()
	p, url, health = natsOn(t, store)
	testx.Eventually(t, "it is well again", harness.Within, func() bool { return h.well(p.Pid(), health) })
	if js, err = jetstream.New(testx.Connect(t, url), jetstream.WithDefaultTimeout(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := say(); err != nil {
		t.Errorf("it was started again: %v", err)
	}
	s, err := js.Stream(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != uint64(stored) {
		t.Errorf("%d messages, %d were stored", n, stored)
	}
}

// TestComposeNatsIsGivenTime: a server that has not been well yet may catch up for as long as 24 checks take; then it has 6.
func TestComposeNatsIsGivenTime(t *testing.T) {
	h := newNatsHealth(t)
	p, _, _ := natsOn(t, t.TempDir())
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(ill.Close)
	h.fails(p, ill.URL, 24)
	p.Exited(t, harness.Within)

	h.started()
	p, _, health := natsOn(t, t.TempDir())
	h.fails(p, ill.URL, 23)
	if !h.well(p.Pid(), health) {
		t.Fatal("it is not well")
	}
	h.fails(p, ill.URL, 5) // from the beginning, and fewer than before its first success
	if !h.well(p.Pid(), health) {
		t.Fatal("it is not well")
	}
}

// TestComposeNatsIsEndedInTheHardWay: SIGTERM did nothing for six checks.
func TestComposeNatsIsEndedInTheHardWay(t *testing.T) {
	h := newNatsHealth(t)
	stuck := exec.CommandContext(t.Context(), "sh", "-c", `trap "" TERM; echo; exec sleep 600`)
	said, err := stuck.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := said.Read(make([]byte, 1)); err != nil { // it takes no SIGTERM now
		t.Fatal(err)
	}
	if err := os.WriteFile(h.failed, []byte("11\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if h.well(stuck.Process.Pid, "http://127.0.0.1:1/") {
		t.Fatal("it is well")
	}
	_ = stuck.Wait() // its state tells
	if got := stuck.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGQUIT {
		t.Errorf("ended by %s", got)
	}
}
