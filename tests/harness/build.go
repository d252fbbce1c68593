// Package harness runs Parley as its operators do: the real programs as processes of their own, in front of real NATS, Redis and
// SQL servers, with as many gateways as a test wants. Tests talk to it over HTTP and WebSocket only.
package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"parley.example/pkg/testx"
)

// programs are the processes of a deployment and the all-in-one, with their folders.
var programs = map[string]string{
	"auth": "services/auth/cmd/auth", "presence": "services/presence/cmd/presence", "history": "services/history/cmd/history",
	"gateway": "services/gateway/cmd/gateway", "parley": "cmd/parley",
}

// NatsServer is a program as well, the one whose module is required anyway. It is not ours to look for races in.
const NatsServer = "nats-server"

// built are the programs of this test process: they are the same for all its tests, and linking them takes seconds.
var built struct {
	sync.Mutex
	dir  string
	done map[string]error
}

// Main runs a package's tests; it is TestMain's only line.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the programs:", err)
		os.Exit(1)
	}
	built.dir = dir
	testx.MainThen(m, func() { _ = os.RemoveAll(dir) }) // a temporary folder
}

// Program is the path of a program under test, built with the race detector if the test is.
func Program(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		t.Fatal("TestMain does not call harness.Main")
	}
	path := filepath.Join(built.dir, name)
	err, tried := built.done[name]
	if !tried {
		cmd := exec.Command("go", "build", fmt.Sprintf("-race=%t", race), "-o", path, "./"+programs[name])
		cmd.Dir = root(t)
		if name == NatsServer {
			cmd = exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2")
			cmd.Dir = filepath.Join(root(t), "tests", "chaos") // the module that has it as a tool
		}
		if out, berr := cmd.CombinedOutput(); berr != nil {
			err = fmt.Errorf("build %s: %w\n%s", name, berr, out)
		}
		if built.done == nil {
			built.done = map[string]error{}
		}
		built.done[name] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// root is the folder of go.work.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.work"))
		if err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			t.Fatalf("no go.work above the tests: %v", err)
		}
		dir = up
	}
}
