package target

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"parley.example/tests/bench/internal/proc"
)

// startRedis starts redis-server without persistence and returns its URL.
func startRedis(g *proc.Group, o Options) (string, error) {
	bin, err := proc.Find("redis-server", "redis-server")
	if err != nil {
		return "", err
	}
	port, err := proc.FreePort()
	if err != nil {
		return "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := g.Start(proc.Spec{Name: "redis", Path: bin, Args: []string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", o.Work}})
	if err != nil {
		return "", err
	}
	return "redis://" + addr + "/0", p.Wait("redis-server listens", startTimeout, func() error { return proc.Answers(addr) })
}

// startPostgres starts PostgreSQL as Debian configures it (fsync and synchronous commits on) in a folder of its own, and
// returns the URL of its database and what removes the folder.
func startPostgres(g *proc.Group) (string, func(), error) {
	initdb, err := proc.Find("initdb", "postgresql", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", nil, err
	}
	// A short path: a Unix socket's has at most 107 bytes.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return "", nil, fmt.Errorf("make a folder: %w", err)
	}
	remove := func() { _ = os.RemoveAll(dir) } // a temporary folder
	var cred *syscall.Credential
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		if cred, err = postgresUser(dir); err != nil {
			remove()
			return "", nil, err
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.Command(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	bin := filepath.Dir(initdb)
	p, err := g.Start(proc.Spec{Name: "postgres", Path: filepath.Join(bin, "postgres"), Dir: dir, Cred: cred, Stop: syscall.SIGINT, Args: []string{
		"-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "logging_collector=off"}})
	if err != nil {
		remove()
		return "", nil, err
	}
	err = p.Wait("PostgreSQL answers", startTimeout, func() error {
		return exec.Command(filepath.Join(bin, "pg_isready"), "-h", dir, "-U", "postgres", "-t", "1").Run()
	})
	return "postgres://postgres@/postgres?host=" + url.QueryEscape(dir), remove, err
}

func postgresUser(dir string) (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("find the user postgres: %w", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, fmt.Errorf("hand a folder over: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
