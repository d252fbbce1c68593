package testx

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Pg is a real PostgreSQL server of the test's own, on a Unix socket in a folder of its own.
type Pg struct {
	dir  string
	bin  string
	cred *syscall.Credential
	cmd  *exec.Cmd
	n    atomic.Int64
}

var shared struct {
	sync.Mutex
	pg *Pg
}

// Postgres gives a fresh, empty database on a server that all tests of the process share, as a URL.
func Postgres(t TB) string {
	t.Helper()
	shared.Lock()
	if shared.pg == nil {
		shared.pg = newPg(t)
		shared.pg.Start(t)
	}
	pg := shared.pg
	shared.Unlock()
	return pg.Database(t)
}

// PostgresServer is a server of this test's own, which it may stop and start.
func PostgresServer(t TB) *Pg {
	t.Helper()
	pg := newPg(t)
	pg.Start(t)
	t.Cleanup(pg.remove)
	return pg
}

func stopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.pg != nil {
		shared.pg.remove()
		shared.pg = nil
	}
}

func newPg(t TB) *Pg {
	t.Helper()
	initdb := program(t, "initdb", "postgresql", "/usr/lib/postgresql/*/bin/initdb")
	// A short path: a Unix socket's has at most 107 bytes.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatalf("make a folder: %v", err)
	}
	pg := &Pg{dir: dir, bin: filepath.Dir(initdb)}
	if os.Getuid() == 0 {
		// PostgreSQL refuses to run as root.
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatalf("the user postgres is missing: apt-get install postgresql")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		pg.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatalf("hand a folder over: %v", err)
		}
	}
	cmd := pg.command("initdb", "-D", pg.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	return pg
}

func (p *Pg) data() string { return filepath.Join(p.dir, "data") }

func (p *Pg) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	return cmd
}

// Start starts it (again) and waits until it answers.
func (p *Pg) Start(t TB) {
	t.Helper()
	p.cmd = p.command("postgres", "-D", p.data(), "-k", p.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200", "-c", "logging_collector=off")
	log := &strings.Builder{}
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start postgres: %v", err)
	}
	Eventually(t, "postgres answers", 3*time.Minute, func() bool {
		return p.command("pg_isready", "-h", p.dir, "-U", "postgres", "-t", "1").Run() == nil
	})
}

// Socket is the path of the Unix socket that it listens on.
func (p *Pg) Socket() string { return filepath.Join(p.dir, ".s.PGSQL.5432") }

// Stop ends it at once; connections break. Safe to repeat.
func (p *Pg) Stop() { stopProcess(p.cmd, syscall.SIGQUIT) }

func (p *Pg) remove() {
	p.Stop()
	_ = os.RemoveAll(p.dir) // a temporary folder
}

// Database makes an empty database and returns its URL.
func (p *Pg) Database(t TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", p.n.Add(1))
	if out, err := p.command("createdb", "-h", p.dir, "-U", "postgres", name).CombinedOutput(); err != nil {
		t.Fatalf("createdb: %v\n%s", err, out)
	}
	return "postgres://postgres@/" + name + "?host=" + url.QueryEscape(p.dir)
}

// ReadOnly makes a database of Database refuse writes, as one that became a standby does, or take them again. Its connections are ended.
func (p *Pg) ReadOnly(t TB, databaseURL string, on bool) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatalf("read the URL: %v", err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	for _, q := range []string{
		fmt.Sprintf(`ALTER DATABASE "%s" SET default_transaction_read_only = %t`, name, on),
		fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'`, name),
	} {
		if out, err := p.command("psql", "-h", p.dir, "-U", "postgres", "-qc", q, "postgres").CombinedOutput(); err != nil {
			t.Fatalf("psql: %v\n%s", err, out)
		}
	}
}
