package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
)

// demo is a `parley serve --demo` with its demo users, which the examples talk to. It starts with the first one that asks for it and ends after
// the tests.
var demo demoServer

type demoServer struct {
	once sync.Once
	cmd  *exec.Cmd
	dir  string
	base string
	log  bytes.Buffer
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	demo.stop()
	if left := leaked(5 * time.Second); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leaked gives the stacks of the goroutines that still run code of this module after so long. Test libraries would do this; this module's
// requirements are those of whoever imports it.
func leaked(patience time.Duration) string {
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // polling interval
		buf := make([]byte, 1<<20)
		var left []string
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")[1:] { // the first one is this
			if strings.Contains(g, reflect.TypeFor[client.Conn]().PkgPath()) {
				left = append(left, g)
			}
		}
		if left == nil || time.Now().After(until) {
			return strings.Join(left, "\n\n")
		}
	}
}

// eventually waits for a state that has no event to wait for.
func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	for until := time.Now().Add(within); !cond(); time.Sleep(5 * time.Millisecond) { // polling interval
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// demoURL is its address, http://127.0.0.1:PORT.
func demoURL() string {
	demo.once.Do(func() { demo.err = demo.start() })
	if demo.err != nil {
		panic(fmt.Sprintf("%v\n%s", demo.err, &demo.log)) // examples have no testing.T
	}
	return demo.base
}

func (d *demoServer) start() (err error) {
	if d.dir, err = os.MkdirTemp("", "parley-demo-"); err != nil {
		return err
	}
	program := filepath.Join(d.dir, "parley")
	if out, err := exec.Command("go", "build", "-C", "../cmd/parley", "-o", program, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("build parley: %w\n%s", err, out)
	}
	d.cmd = exec.Command(program, "serve", "--demo", "--http", "127.0.0.1:0", "--data", filepath.Join(d.dir, "data"), "--login-tries-address", "1000")
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no orphan if the tests are killed
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	// The one line that it prints comes when it serves; should it end before, the pipe ends too.
	if _, err := fmt.Fscanf(out, "ready %s\n", &d.base); err != nil {
		return errors.New("parley serve did not start")
	}
	return nil
}

func (d *demoServer) stop() {
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Kill() // it keeps nothing
		_ = d.cmd.Wait()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir) // a temporary folder
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// demoLogin is a login of a demo user.
func demoLogin(ctx context.Context, user, password string) *client.Session {
	api, err := client.New(demoURL(), nil)
	if err != nil {
		panic(err)
	}
	me, err := api.Login(ctx, user, password)
	if err != nil {
		panic(err)
	}
	return me
}
