package harness

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is one running program. It ends with the test at the latest.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  *processLog
	done chan struct{} // closed when it has ended
}

// OpenFiles is a setting of Start that is none of the program's: how many file descriptors it may have.
const OpenFiles = "open-files"

// Start runs a program with settings on top of an environment that has none of Parley's.
func Start(t testing.TB, name, program string, settings map[string]string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, cmd: exec.Command(Program(t, program), args...), log: newProcessLog(), done: make(chan struct{})}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PARLEY_") {
			p.cmd.Env = append(p.cmd.Env, kv)
		}
	}
	for k, v := range settings {
		if k == OpenFiles { // the hard limit as well, or Go raises it again
			p.cmd.Args = append([]string{"sh", "-c", `ulimit -n "$0" && exec "$@"`, v, p.cmd.Path}, args...)
			p.cmd.Path = "/bin/sh"
			continue
		}
		p.cmd.Env = append(p.cmd.Env, "PARLEY_"+strings.ToUpper(strings.ReplaceAll(k, "-", "_"))+"="+v)
	}
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	// A group of its own, so that a terminal's ^C leaves the order of stopping to the test; and no orphans if the test is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // tests kill most of them
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if p.log.has("WARNING: DATA RACE") || p.log.has("\npanic: ") || p.log.has("fatal error: ") {
			t.Errorf("%s has a data race or a panic", name)
		}
		if p.log.has("ermissions Violation") {
			t.Errorf("%s did what NATS does not allow it: %s", name, p.log.line("ermissions Violation"))
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", name, p.log.tail(40))
		}
	})
	return p
}

// Kill ends it with SIGKILL and waits. Safe to repeat.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when it has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Process) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Exited waits for its end and gives the exit status.
func (p *Process) Exited(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("%s has not ended within %s", p.Name, within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// LogValue waits for a log line with key=value and gives the value.
func (p *Process) LogValue(t testing.TB, key string) string {
	t.Helper()
	return p.LogMatch(t, regexp.MustCompile(`(?m)\b`+key+`=(\S+)`))
}

// LogMatch waits for text in the log and gives its first group.
func (p *Process) LogMatch(t testing.TB, re *regexp.Regexp) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		val, more := p.log.find(re)
		if val != "" {
			return val
		}
		select {
		case <-more:
		case <-p.done:
			if val, _ := p.log.find(re); val != "" {
				return val
			}
			t.Fatalf("%s ended at the start:\n%s", p.Name, p.log.tail(40))
		case <-timeout:
			t.Fatalf("%s has logged nothing like %s within 30 s", p.Name, re)
		}
	}
}

// processLog keeps what a program writes.
type processLog struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed by the next write
}

// maxLog is kept of one process; a test that makes more logs too much.
const maxLog = 16 << 20

func newProcessLog() *processLog { return &processLog{more: make(chan struct{})} }

func (l *processLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < maxLog {
		l.buf.Write(b)
	}
	close(l.more)
	l.more = make(chan struct{})
	return len(b), nil
}

func (l *processLog) find(re *regexp.Regexp) (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Whole lines only: a value may have been written in part.
	whole := l.buf.Bytes()[:bytes.LastIndexByte(l.buf.Bytes(), '\n')+1]
	if m := re.FindSubmatch(whole); m != nil {
		return string(m[1]), l.more
	}
	return "", l.more
}

func (l *processLog) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf.Bytes(), []byte(s))
}

// line is the first line with s in it.
func (l *processLog) line(s string) string {
	for _, line := range strings.Split(l.tail(maxLog), "\n") {
		if strings.Contains(line, s) {
			return line
		}
	}
	return ""
}

func (l *processLog) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimRight(l.buf.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
