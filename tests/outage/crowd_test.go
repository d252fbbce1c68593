package outage

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// crowdEnv has the crowd that this process is to be instead of running tests: it needs descriptors of its own.
const crowdEnv = "OUTAGE_CROWD"

// crowd is a number of connections that never log in. Half of them say nothing, half ask for /healthz once and then keep the connection.
type crowd struct {
	Target string
	From   []string // addresses of this machine
	N      int
}

const (
	crowdProcess = 8000             // connections of one process
	crowdPause   = 10 * time.Second // before one that was closed is opened again
)

// start opens the crowd, in processes of their own, and returns when each of its connections has been tried once. stop ends it at once.
func (c crowd) start(t *testing.T) (stop func()) {
	t.Helper()
	var stops []func()
	for left := c.N; left > 0; left -= crowdProcess {
		part := crowd{c.Target, c.From, min(left, crowdProcess)}
		spec, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crowdEnv+"="+string(spec))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stops = append(stops, func() {
			_ = in.Close() // it ends then
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
		})
		defer func() {
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Errorf("the crowd did not come: %q %v", line, err)
			}
		}()
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			for _, s := range stops {
				s()
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// crowdMain is such a process. It ends with its standard input.
func crowdMain() {
	var c crowd
	if err := json.Unmarshal([]byte(os.Getenv(crowdEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, "read the crowd:", err)
		os.Exit(1)
	}
	var tried sync.WaitGroup
	tried.Add(c.N)
	gate := make(chan struct{}, 64) // dials at a time: the listener's backlog is not what is tested
	for i := range c.N {
		go func() {
			first := sync.OnceFunc(tried.Done)
			for {
				gate <- struct{}{}
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.From[i%len(c.From)])}, Timeout: 10 * time.Second}
				conn, err := d.Dial("tcp", c.Target)
				<-gate
				first()
				if err == nil {
					if i%2 == 0 {
						_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: crowd\r\n\r\n") // closed already: so be it
					}
					_, _ = io.Copy(io.Discard, conn) // until the server closes it
					_ = conn.Close()
				}
				time.Sleep(crowdPause) // a crowd, not a flood
			}
		}()
	}
	tried.Wait()
	fmt.Println("here")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends it
}
