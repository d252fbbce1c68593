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
	"sync"
	"syscall"
	"testing"

	"parley/client"
	"parley/pkg/testx"
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

func TestMain(m *testing.M) { testx.MainThen(m, demo.stop) }

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
