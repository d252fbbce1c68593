// Package proc starts the processes that are measured and reads what they cost from /proc.
package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is one started server.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// Spec says what to start.
type Spec struct {
	Name string // unique within a run: names the log file
	Path string
	Args []string
	Env  []string            // beside that of this process
	Dir  string              // working folder
	Cred *syscall.Credential // nil: as this process
	Stop syscall.Signal      // how it is asked to end; 0: SIGTERM
}

// Start starts it; its output goes to a log file in logs.
func Start(s Spec, logs string) (*Process, error) {
	f, err := os.Create(filepath.Join(logs, s.Name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make a log file: %w", err)
	}
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Dir = s.Dir
	cmd.Stdout, cmd.Stderr = f, f
	// A group of its own: a ^C in the terminal is for this program, which then stops the servers in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.Cred, Setpgid: true}
	if err := cmd.Start(); err != nil {
		f.Close()
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p := &Process{Name: s.Name, cmd: cmd, log: f, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		f.Close()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Stop sends sig and waits; after ten seconds it kills. Children that are left are killed.
func (p *Process) Stop(sig syscall.Signal) {
	defer func() { _ = syscall.Kill(-p.Pid(), syscall.SIGKILL) }() // the group; most have nobody left in it
	_ = p.cmd.Process.Signal(sig)                                  // it may have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Kill is SIGKILL.
func (p *Process) Kill() { p.Stop(syscall.SIGKILL) }

// LogTail is the end of its output, for error messages.
func (p *Process) LogTail() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Group is the processes of one system, in the order in which they were started.
type Group struct {
	list []*Process
	stop map[*Process]syscall.Signal
	logs string
}

// NewGroup writes logs into the folder.
func NewGroup(logs string) *Group { return &Group{stop: map[*Process]syscall.Signal{}, logs: logs} }

// Start starts one more.
func (g *Group) Start(s Spec) (*Process, error) {
	p, err := Start(s, g.logs)
	if err != nil {
		return nil, err
	}
	g.list = append(g.list, p)
	g.stop[p] = s.Stop
	if s.Stop == 0 {
		g.stop[p] = syscall.SIGTERM
	}
	return p, nil
}

// Stop ends them all, the last one first.
func (g *Group) Stop() {
	for i := len(g.list) - 1; i >= 0; i-- {
		g.list[i].Stop(g.stop[g.list[i]])
	}
	g.list = nil
}

// Pids are the processes that were started, without their children.
func (g *Group) Pids() []int {
	var out []int
	for _, p := range g.list {
		out = append(out, p.Pid())
	}
	return out
}

// Usage is what the group has used since its start.
func (g *Group) Usage() (Usage, error) { return Read(g.Pids()...) }

// ByName is the CPU time of each process of the group, children included.
func (g *Group) ByName() (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for _, p := range g.list {
		u, err := Read(p.Pid())
		if err != nil {
			return nil, err
		}
		out[p.Name] += u.CPU
	}
	return out, nil
}

// RSS is the resident size of one of them.
func (g *Group) RSS(name string) (int64, error) {
	for _, p := range g.list {
		if p.Name == name {
			u, err := Read(p.Pid())
			return u.RSS, err
		}
	}
	return 0, errors.New("there is no process " + name)
}

// Wait polls until f is nil. It gives up when the process ends or the time is over.
func (p *Process) Wait(what string, within time.Duration, f func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended before: %s\n%s", p.Name, what, p.LogTail())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s: %w\n%s", within, what, err, p.LogTail())
		}
	}
}

// FreePort is a port of 127.0.0.1 that was free a moment ago, for servers that cannot tell which one they took.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Answers reports whether something accepts connections at addr.
func Answers(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Find is a program in PATH, or where Debian hides it; pkg is the Debian package that has it.
func Find(name, pkg string, globs ...string) (string, error) {
	for _, g := range globs {
		if m, _ := filepath.Glob(g); len(m) > 0 {
			return m[len(m)-1], nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New(name + " is missing: apt-get install " + pkg)
	}
	return path, nil
}
