package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

// binary is the real program, built once with the race detector.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-test-")
	if err == nil {
		binary = filepath.Join(dir, "parley")
		build := exec.Command("go", "build", "-race", "-o", binary, ".")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build parley:", err)
		os.Exit(1)
	}
	testx.MainThen(m, func() { _ = os.RemoveAll(dir) }) // a temporary folder
}

// server is a running parley serve.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	notes  *buffer
	stdout *buffer
	done   chan struct{} // closed when it has ended
}

// buffer collects what a process prints.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs parley serve with its demo users until it is ready.
func start(t *testing.T, data string, args ...string) *server {
	t.Helper()
	if len(args) == 0 {
		args = []string{"--http", "127.0.0.1:0"}
	}
	s := launch(t, append(args, "--demo", "--data", data)...)
	testx.Eventually(t, "parley is ready", time.Minute, func() bool {
		select {
		case <-s.done:
			t.Fatalf("parley ended: %s", s.notes)
		default:
		}
		line, ok := strings.CutPrefix(s.stdout.String(), "ready ")
		s.url = strings.TrimSuffix(line, "\n")
		return ok && strings.HasSuffix(line, "\n")
	})
	return s
}

// launch runs parley serve.
func launch(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, notes: &buffer{}, stdout: &buffer{}, done: make(chan struct{})}
	s.cmd = exec.Command(binary, append([]string{"serve"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.stdout, s.notes
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }() // its state tells
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.done
		if strings.Contains(s.notes.String(), "DATA RACE") {
			t.Errorf("data race in parley:\n%s", s.notes)
		}
		if t.Failed() {
			t.Logf("parley printed:\n%s", s.notes)
		}
	})
	return s
}

// stop sends a signal and waits for the end.
func (s *server) stop(sig syscall.Signal) (status int) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("parley did not end within 30 s of %s", sig)
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *server) login(user, password string) *client.Session {
	s.t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	api, err := client.New(s.url, hc)
	if err != nil {
		s.t.Fatal(err)
	}
	me, err := api.Login(s.t.Context(), user, password)
	if err != nil {
		s.t.Fatalf("log in as %s: %v", user, err)
	}
	return me
}

func (s *server) dial(me *client.Session) *client.Conn {
	s.t.Helper()
	c, err := client.Dial(s.t.Context(), client.Options{Session: me})
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// next waits for an event of type T and skips others.
func next[T client.Event](t *testing.T, c *client.Conn) T {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case ev, ok := <-c.Events():
			if !ok {
				t.Fatalf("the connection ended: %v", c.Err())
			}
			if want, ok := ev.(T); ok {
				return want
			}
		case <-deadline:
			var want T
			t.Fatalf("no %T within 20 s", want)
		}
	}
}

func send(t *testing.T, c *client.Conn, content string) client.Accepted {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	acc, err := c.Send(ctx, "Avi&Lisa", content)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	return acc
}

func TestServe(t *testing.T) {
	s := start(t, t.TempDir())
	lisa, avi := s.dial(s.login("lisa", "TestMe")), s.dial(s.login("Avi", "MoreMoreMore"))
	next[client.CaughtUp](t, lisa)
	next[client.CaughtUp](t, avi)
	acc := send(t, lisa, "hello")
	if m := next[client.Message](t, avi); m.Content != "hello" || m.Sender != "Lisa" || m.Seq != acc.Seq {
		t.Errorf("avi got %+v", m)
	}
	send(t, avi, "hello yourself")
	if m := next[client.Message](t, lisa); m.Content != "hello yourself" || m.Prev == nil || *m.Prev != acc.Seq {
		t.Errorf("lisa got %+v", m)
	}
	if got := s.stdout.String(); got != "ready "+s.url+"\n" {
		t.Errorf("standard output is %q", got)
	}
	for _, want := range []string{s.url + "/openapi.yaml", "ws" + strings.TrimPrefix(s.url, "http") + "/v1/ws", "TestMe", "parley chat --url " + s.url} {
		if !strings.Contains(s.notes.String(), want) {
			t.Errorf("%q is not in the notes:\n%s", want, s.notes)
		}
	}
	if status := s.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("SIGTERM ended it with status %d", status)
	}
}

// Nobody has a password that everybody knows unless that was asked for; and if it was once, the log says so.
func TestServeDemoUsersOnlyWhenAskedFor(t *testing.T) {
	data := t.TempDir()
	serve := func(args ...string) *server {
		s := launch(t, append(args, "--http", "127.0.0.1:0", "--data", data)...)
		testx.Eventually(t, "parley is ready", time.Minute, func() bool { return strings.HasSuffix(s.stdout.String(), "\n") })
		s.url = strings.TrimSpace(strings.TrimPrefix(s.stdout.String(), "ready "))
		return s
	}
	s := serve()
	for user, password := range map[string]string{"Lisa": "TestMe", "Admin": "AdminPassword"} {
		s.refuses(user, password, wire.Unauthenticated)
	}
	if strings.Contains(s.notes.String(), "TestMe") {
		t.Errorf("it prints passwords:\n%s", s.notes)
	}
	s.stop(syscall.SIGTERM)
	s = serve("--demo")
	s.login("Lisa", "TestMe")
	s.stop(syscall.SIGTERM)
	s = serve("--demo=false")
	s.login("Lisa", "TestMe") // they are users like others
	testx.Eventually(t, "the log names them", time.Minute, func() bool {
		return strings.Contains(s.notes.String(), "the passwords of these demo users are public") && strings.Contains(s.notes.String(), "Lisa, Avi, Era, Tsahi, Admin")
	})
}

// Other users of the machine read nothing that is kept, also where an earlier version left it open. What the process makes, the socket of
// the administration above all, is never open, not even for a moment.
func TestServeDataFolderIsPrivate(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := start(t, data)
	s.dial(s.login("Lisa", "TestMe"))
	s.stop(syscall.SIGKILL) // the files beside the database stay
	walk := func(f func(path string, st os.FileInfo)) {
		t.Helper()
		if err := filepath.Walk(data, func(path string, st os.FileInfo, err error) error {
			if err == nil {
				f(path, st)
			}
			return nil // NATS' files come and go
		}); err != nil {
			t.Fatal(err)
		}
	}
	walk(func(path string, st os.FileInfo) {
		if st.IsDir() || st.Mode().IsRegular() {
			if err := os.Chmod(path, st.Mode().Perm()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	})
	s = start(t, data)
	n := 0
	walk(func(path string, st os.FileInfo) {
		n++
		if path != data && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %s", path, st.Mode())
		}
	})
	if n < 10 || !strings.Contains(s.notes.String(), "other users of this machine may look into the data folder") {
		t.Errorf("%d files; the log does not say that the folder is open:\n%s", n, s.notes)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Umask:\t0077") {
		t.Errorf("what the process makes may be open to others (%v)", err)
	}
}

// What was accepted is there after the worst end, once.
func TestServeKillAfterAccepted(t *testing.T) {
	data := t.TempDir()
	s := start(t, data)
	lisa := s.dial(s.login("Lisa", "TestMe"))
	next[client.CaughtUp](t, lisa)
	var want []string
	for i := range 5 {
		content := fmt.Sprintf("message %d", i)
		want = append(want, content)
		send(t, lisa, content)
		s.stop(syscall.SIGKILL)
		_ = lisa.Close()
		s = start(t, data)
		lisa = s.dial(s.login("Lisa", "TestMe"))
	}
	avi := s.dial(s.login("Avi", "MoreMoreMore"))
	var got []string
	for ev := range avi.Events() {
		if m, ok := ev.(client.Message); ok {
			got = append(got, m.Content)
		}
		if _, ok := ev.(client.CaughtUp); ok {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("avi got %q, want %q", got, want)
	}
	page, err := s.login("Avi", "MoreMoreMore").Messages(t.Context(), "Avi&Lisa", client.MessagesQuery{})
	if err != nil || len(page.Messages) != len(want) {
		t.Errorf("history has %d messages, %v", len(page.Messages), err)
	}
}

// The server dies and comes back under two connected clients: they come back too, and what one sends meanwhile is
// accepted after all and arrives once.
func TestServeRestartUnderClients(t *testing.T) {
	data, addr := t.TempDir(), fmt.Sprint("127.0.0.1:", testx.FreePort(t))
	s := start(t, data, "--http", addr)
	lisa, avi := s.dial(s.login("Lisa", "TestMe")), s.dial(s.login("Avi", "MoreMoreMore"))
	next[client.CaughtUp](t, lisa)
	next[client.CaughtUp](t, avi)
	send(t, lisa, "before")
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s.stop(sig)
		next[client.Disconnected](t, lisa)
		sent := make(chan error, 1)
		go func() {
			_, err := lisa.Send(t.Context(), "Avi&Lisa", fmt.Sprint("meanwhile ", i))
			sent <- err
		}()
		s = start(t, data, "--http", addr)
		select {
		case err := <-sent:
			if err != nil {
				t.Fatalf("send through a restart: %v", err)
			}
		case <-time.After(60 * time.Second):
			t.Fatal("a send through a restart has no outcome after 60 s")
		}
		next[client.Reconnected](t, lisa)
	}
	send(t, lisa, "after")
	var got []string
	for len(got) < 4 {
		got = append(got, next[client.Message](t, avi).Content)
	}
	if want := "[before meanwhile 0 meanwhile 1 after]"; fmt.Sprint(got) != want {
		t.Errorf("avi got %q, want %s", got, want)
	}
}

func TestServeFailsClearly(t *testing.T) {
	data := t.TempDir()
	s := start(t, data)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name string
		want string
		args []string
	}{
		{"folder in use", "in use by another parley (process " + fmt.Sprint(s.cmd.Process.Pid), []string{"--http", "127.0.0.1:0", "--data", data}},
		{"port taken", "address already in use", []string{"--http", taken.Addr().String(), "--data", t.TempDir()}},
		{"folder is a file", "data folder", []string{"--data", binary}},
		{"demo users for everybody", "demo: the passwords of the demo users are public, and others can reach --http :0", []string{"--demo", "--http", ":0", "--data", t.TempDir()}},
		{"demo users on a name", "leave --demo out, or listen on 127.0.0.1", []string{"--demo", "--http", "parley.example:8080", "--data", t.TempDir()}},
		{"unknown flag", "unknown flag --htpt", []string{"--htpt", ":1"}},
		{"fixed setting", "unknown flag --nats-url", []string{"--nats-url", "nats://x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := launch(t, tc.args...)
			select {
			case <-p.done:
			case <-time.After(30 * time.Second):
				t.Fatal("it does not end")
			}
			if p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(p.notes.String(), tc.want) || p.stdout.String() != "" {
				t.Errorf("status %d, printed %q and %q", p.cmd.ProcessState.ExitCode(), p.notes, p.stdout)
			}
		})
	}
}

func TestServeTerminateWhileStarting(t *testing.T) {
	s := launch(t, "--http", "127.0.0.1:0", "--data", t.TempDir(), "--log-level", "debug")
	testx.Eventually(t, "it starts", 20*time.Second, func() bool { return s.notes.String() != "" })
	if status := s.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestCommands(t *testing.T) {
	for _, tc := range []struct {
		args string
		ok   bool
		want []string
	}{
		{"", true, []string{"serve", "chat", "config"}},
		{"help", true, []string{"serve", "chat", "user", "config"}},
		{"user --help", true, []string{"passwd", "--sql-url", "Exit status"}},
		{"version", true, []string{"parley, "}},
		{"serve --help", true, []string{"--http", "PARLEY_DATA", "--heartbeat"}},
		{"chat --help", true, []string{"--with", "PARLEY_PASSWORD", "/quit"}},
		{"config", true, []string{"serve (", "gateway (", "auth (", "presence (", "history (", "--redis-url"}},
		{"health --help", true, []string{"--timeout", "Exit status"}},
		{"health http://127.0.0.1:1", false, []string{"http://127.0.0.1:1", "refused"}},
		{"config auth", true, []string{"auth (", "--token-key"}},
		{"config nothing", false, []string{`no program "nothing"`}},
		{"bogus", false, []string{`no command "bogus"`}},
		{"chat", false, []string{"user:", "password:"}},
	} {
		out, err := exec.Command(binary, strings.Fields(tc.args)...).CombinedOutput()
		if (err == nil) != tc.ok {
			t.Errorf("parley %s: %v", tc.args, err)
		}
		for _, want := range tc.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("parley %s does not print %q:\n%s", tc.args, want, out)
			}
		}
	}
}

// Two people in two terminals.
func TestChatPipe(t *testing.T) {
	s := start(t, t.TempDir())
	avi := s.chat("Avi", "MoreMoreMore")
	avi.waitFor("* you are Avi")
	avi.waitFor("* with Lisa")
	lisa := s.chat("Lisa", "TestMe")
	avi.waitFor("* online: Lisa")
	lisa.waitFor("* online: Avi")
	lisa.say("how are you?")
	avi.waitFor("Lisa: how are you?")
	avi.say("/with nobody")
	avi.waitFor("! nobody you may chat with is called nobody")
	avi.say("fine \x1b[31m")
	lisa.waitFor("Avi: fine ·[31m")
	lisa.say("/quit")
	lisa.end()
	avi.waitFor("* offline: Lisa")
	again := s.chat("Lisa", "TestMe")
	again.waitFor("Lisa: how are you?") // what was said before
	again.in.Close()
	again.end()
	avi.in.Close()
	avi.end()
}

// terminal is a running parley chat.
type terminal struct {
	t   *testing.T
	in  io.WriteCloser
	out *buffer
	cmd *exec.Cmd
}

func (s *server) chat(user, password string) *terminal {
	s.t.Helper()
	peer := map[string]string{"Lisa": "avi", "Avi": "LISA"}[user]
	p := &terminal{t: s.t, out: &buffer{}, cmd: exec.Command(binary, "chat", "--url", s.url, "--user", strings.ToLower(user), "--with", peer)}
	p.cmd.Env = append(os.Environ(), "PARLEY_PASSWORD="+password)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // the test failed before its end
			_ = p.cmd.Wait()
		}
	})
	return p
}

func (p *terminal) say(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
}

func (p *terminal) waitFor(text string) {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(p.out.String(), text) {
		if time.Now().After(deadline) {
			p.t.Fatalf("no %q in 20 s:\n%s", text, p.out)
		}
		time.Sleep(5 * time.Millisecond) // polling interval
	}
}

func (p *terminal) end() {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("chat ended with %v:\n%s", err, p.out)
	}
}
