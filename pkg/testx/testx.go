// Package testx starts the real servers that tests run against. A server that cannot be
// started fails the test with a sentence that says what to install; nothing is skipped.
package testx

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TB is what this package needs of a test; benchmarks of a program bring their own.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Main runs the tests of a package and fails when a goroutine outlives them. Use it as TestMain's only line.
func Main(m *testing.M, ignore ...goleak.Option) { MainThen(m, func() {}, ignore...) }

// SideBySide lets n tests of a package that say t.Parallel run at a time, unless -parallel says otherwise: tests that start servers wait most of the time,
// and the default is the number of cores. Call it first in TestMain.
func SideBySide(n int) {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := p.Value.Set(strconv.Itoa(n)); err != nil {
			panic(err) // a number
		}
	}
}

// MainThen is Main with something to clear away after the tests.
func MainThen(m *testing.M, clear func(), ignore ...goleak.Option) {
	code := m.Run()
	stopShared()
	clear()
	if code == 0 {
		if err := goleak.Find(ignore...); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines outlive the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Logger writes to the test's log.
func Logger(t TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Quiet drops everything.
func Quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

type logWriter struct{ t TB }

func (w logWriter) Write(b []byte) (n int, err error) {
	// A goroutine that logs after the end of its test makes t.Log panic; its leak is goleak's to report.
	defer func() {
		if recover() != nil {
			n, err = len(b), nil
		}
	}()
	w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// Eventually waits for cond, polling; it is for states that have no event to wait for.
func Eventually(t TB, what string, within time.Duration, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond) // polling interval
	}
}

// FreePort is a port of 127.0.0.1 that was free a moment ago, for servers that cannot listen on port 0.
func FreePort(t TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// program finds an executable, also where Debian hides it.
func program(t TB, name, pkg string, globs ...string) string {
	t.Helper()
	for _, g := range globs {
		if m, _ := filepath.Glob(g); len(m) > 0 {
			sort.Strings(m)
			return m[len(m)-1]
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	t.Fatalf("%s is missing: apt-get install %s (make test-deps does it)", name, pkg)
	return ""
}
