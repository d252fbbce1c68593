package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
)

// piped runs parley chat without a terminal.
func piped(t *testing.T, url, user, password, stdin string, args ...string) (status int, out, problems string) {
	t.Helper()
	cmd := exec.Command(binary, append(append([]string{"chat"}, args...), "--url", url)...)
	cmd.Env = append(os.Environ(), "PARLEY_USER="+user, "PARLEY_PASSWORD="+password)
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	_ = cmd.Run() // its state tells
	if strings.Contains(e.String(), "DATA RACE") {
		t.Errorf("data race:\n%s", &e)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

func TestChatSendAndTail(t *testing.T) {
	s := start(t, t.TempDir())
	lisa := s.dial(s.login("Lisa", "TestMe"))

	if status, out, e := piped(t, s.url, "avi", "MoreMoreMore", "hi\n", "send", "lisa"); status != 0 || out != "" {
		t.Errorf("send ended with %d, printed %q, %q", status, out, e)
	}
	if m := next[client.Message](t, lisa); m.Content != "hi" || m.Sender != "Avi" {
		t.Errorf("lisa got %+v", m)
	}
	if status, _, e := piped(t, s.url, "avi", "MoreMoreMore", "one\ntwo\n", "send", "LISA"); status != 0 {
		t.Errorf("send ended with %d, %q", status, e)
	}
	if m := next[client.Message](t, lisa); m.Content != "one\ntwo" {
		t.Errorf("lisa got %+v", m)
	}
	if status, _, e := piped(t, s.url, "avi", "MoreMoreMore", "one\n\ntwo\n", "send", "lisa", "--lines"); status != 0 {
		t.Errorf("send ended with %d, %q", status, e)
	}
	for _, want := range []string{"one", "two"} {
		if m := next[client.Message](t, lisa); m.Content != want {
			t.Errorf("lisa got %+v, want %q", m, want)
		}
	}

	for _, tc := range []struct {
		name   string
		status int
		user   string
		pw     string
		stdin  string
		args   string
		want   string
	}{
		{"nobody", 3, "avi", "MoreMoreMore", "x", "send somebody", "nobody you may chat with"},
		{"wrong password", 4, "avi", "wrong", "x", "send lisa", "wrong user name or password"},
		{"too long", 4, "avi", "MoreMoreMore", strings.Repeat("x", 20_000), "send lisa", "limits.content_bytes"},
		{"nothing", 2, "avi", "MoreMoreMore", "\n", "send lisa", "nothing to send"},
		{"no name", 2, "avi", "MoreMoreMore", "x", "send", "takes a NAME"},
		{"no such verb", 2, "avi", "MoreMoreMore", "x", "shout lisa", `no "shout"`},
		{"nobody's tail", 3, "avi", "MoreMoreMore", "", "tail somebody", "nobody you may chat with"},
		{"line mode with nobody", 3, "avi", "MoreMoreMore", "", "--with somebody", "nobody you may chat with"},
	} {
		status, out, e := piped(t, s.url, tc.user, tc.pw, tc.stdin, strings.Fields(tc.args)...)
		if status != tc.status || !strings.Contains(e, tc.want) || tc.name != "line mode with nobody" && out != "" {
			t.Errorf("%s: status %d, want %d with %q: %q, %q", tc.name, status, tc.status, tc.want, out, e)
		}
	}
	if status, _, e := piped(t, "http://127.0.0.1:1", "avi", "x", "x", "send", "lisa"); status != 5 {
		t.Errorf("a server that is not there: status %d, %q", status, e)
	}

	// Avi has received nothing yet: it comes first.
	say(t, lisa, aviLisa, "while you were away \x1b[31m")
	status, out, e := piped(t, s.url, "avi", "MoreMoreMore", "", "tail", "--count", "1")
	if status != 0 || !strings.HasSuffix(out, "Lisa → Avi: while you were away ·[31m\n") || strings.Count(out, "\n") != 1 {
		t.Errorf("tail ended with %d, printed %q, %q", status, out, e)
	}
	// It prints until somebody ends it.
	cmd := exec.Command(binary, "chat", "tail", "lisa", "--json", "--url", s.url)
	cmd.Env = append(os.Environ(), "PARLEY_USER=avi", "PARLEY_PASSWORD=MoreMoreMore")
	var got buffer
	cmd.Stdout, cmd.Stderr = &got, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	say(t, lisa, aviLisa, "live")
	testx.Eventually(t, "tail prints it", 30*time.Second, func() bool { return strings.Contains(got.String(), `"live"`) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("tail ended with %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(got.String()), "\n") {
		var m wire.Message
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Sender != "Lisa" {
			t.Errorf("printed %q (%v)", line, err)
		}
	}
}
