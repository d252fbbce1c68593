package testx

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Redis is a real redis-server of the test's own.
type Redis struct {
	Addr string
	port int
	bin  string
	file string
	args []string
	dir  string
	cmd  *exec.Cmd
	t    TB
}

// RedisServer starts redis-server on a free port without persistence. More arguments go to its command line.
func RedisServer(t TB, args ...string) *Redis {
	t.Helper()
	return redisWith(t, "", args...)
}

// redisWith starts redis-server with a file of settings, "" for none.
func redisWith(t TB, file string, args ...string) *Redis {
	t.Helper()
	port := FreePort(t)
	r := &Redis{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), port: port, dir: t.TempDir(), file: file, args: args, t: t,
		bin: program(t, "redis-server", "redis-server"),
	}
	r.Start()
	t.Cleanup(r.Stop)
	return r
}

// Start starts it (again) on the same port.
func (r *Redis) Start() {
	r.t.Helper()
	args := []string{"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir}
	if r.file != "" {
		args = append([]string{r.file}, args...)
	} else {
		args = append(args, "--save", "", "--appendonly", "no")
	}
	args = append(args, r.args...)
	r.cmd = exec.Command(r.bin, args...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatalf("start redis-server: %v", err)
	}
	Eventually(r.t, "redis-server answers", 10*time.Second, func() bool {
		c, err := net.DialTimeout("tcp", r.Addr, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second)) // a TCP connection takes deadlines
		if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
			return false
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		return line == "+PONG\r\n"
	})
}

// Pid is its process, for signals.
func (r *Redis) Pid() int { return r.cmd.Process.Pid }

// Stop kills it; safe to repeat.
func (r *Redis) Stop() { stopProcess(r.cmd, syscall.SIGKILL) }

func stopProcess(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd == nil || cmd.Process == nil || cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-done
	}
}
