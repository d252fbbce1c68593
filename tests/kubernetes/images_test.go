//go:build kubernetes

package kubernetes

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Two versions of Parley. The programs are the same; that they are two images is what a roll is about.
var versions = [2]string{"v1", "v2"}

const postgresBin = "/usr/lib/postgresql/15/bin"

// up starts the cluster and brings the images there.
func (s *suite) up(t *testing.T) {
	t.Helper()
	if s.lab.Running(s.ctx) {
		if !*keep {
			t.Fatal("a cluster runs already: K8S_LAB_STATE names another place, -keep uses it as it is")
		}
		s.say("the cluster that runs is used")
	} else {
		must(t, s.lab.Up(s.ctx))
	}
	if !*keep || !*built {
		s.images(t)
	}
}

func (s *suite) images(t *testing.T) {
	t.Helper()
	s.say("programs are built")
	bin := filepath.Join(s.dir, "bin")
	s.goBuild(t, bin+"/", "./cmd/parley", "./services/auth/cmd/auth", "./services/gateway/cmd/gateway", "./services/history/cmd/history", "./services/presence/cmd/presence")
	s.goBuild(t, filepath.Join(s.dir, "entrypoint"), "./tests/kubernetes/postgres")
	s.goBuild(t, filepath.Join(s.dir, "adapter"), "./tests/kubernetes/adapter")
	for _, v := range versions {
		args := []string{"image", "parley:" + v, "/usr/local/bin/parley", "--user", "65532", "--env", "PARLEY_IMAGE=" + v}
		for _, p := range []string{"parley", "auth", "gateway", "history", "presence"} {
			args = append(args, filepath.Join(bin, p)+":/usr/local/bin/"+p)
		}
		s.image(t, args...)
	}
	nats, err := s.lab.Bin(s.ctx, "nats-server")
	must(t, err)
	s.image(t, "image", "nats:2", "/usr/local/bin/nats-server", "--user", "65532", nats+":/usr/local/bin/nats-server")
	redis, err := filepath.EvalSymlinks("/usr/bin/redis-server")
	must(t, err)
	cli, err := filepath.EvalSymlinks("/usr/bin/redis-cli")
	must(t, err)
	s.image(t, "image", "redis:7", "/usr/local/bin/redis-server", "--user", "65532", "--libs", redis+":/usr/local/bin/redis-server", cli+":/usr/local/bin/redis-cli")
	s.postgresImage(t)
}

func (s *suite) image(t *testing.T, args ...string) {
	t.Helper()
	s.say("image %s", args[1])
	_, err := s.lab.Run(s.ctx, args...)
	must(t, err)
}

func (s *suite) goBuild(t *testing.T, out string, packages ...string) {
	t.Helper()
	cmd := exec.CommandContext(s.ctx, "go", append([]string{"build", "-o", out}, packages...)...)
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, b)
	}
}

// postgresImage has Debian's PostgreSQL and a database folder as initdb makes it, since the image has no shell for initdb.
func (s *suite) postgresImage(t *testing.T) {
	t.Helper()
	home, err := os.MkdirTemp("", "pg") // short, and the user postgres may get there
	must(t, err)
	defer os.RemoveAll(home)
	cmd := exec.CommandContext(s.ctx, postgresBin+"/initdb", "-D", filepath.Join(home, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "TZ=UTC")
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		must(t, err)
		uid, _ := strconv.Atoi(u.Uid) // the system's own
		gid, _ := strconv.Atoi(u.Gid)
		must(t, os.Chown(home, uid, gid))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	archive := filepath.Join(s.dir, "template.tar")
	must(t, pack(filepath.Join(home, "data"), archive))
	passwd := filepath.Join(s.dir, "passwd")
	var lines string
	for _, uid := range []int{70, 999, 1000, 1001, 10001, 65532} {
		lines += fmt.Sprintf("postgres%d:x:%d:%d::/:/none\n", uid, uid, uid)
	}
	must(t, os.WriteFile(passwd, []byte(lines), 0o644))
	args := []string{"image", "postgresql:15", "/usr/local/bin/entrypoint", "--user", "65532", "--env", "TZ=UTC", "--libs",
		filepath.Join(s.dir, "entrypoint") + ":/usr/local/bin/entrypoint", archive + ":/template.tar", passwd + ":/etc/passwd",
		"/usr/share/zoneinfo/Etc/UTC:/usr/share/zoneinfo/Etc/UTC", "/usr/share/zoneinfo/Etc/UTC:/usr/share/zoneinfo/UTC",
		"/usr/share/postgresql/15:/usr/share/postgresql/15"}
	for _, p := range []string{"postgres", "pg_isready", "pg_dump", "pg_restore", "psql", "dropdb", "createdb"} {
		args = append(args, postgresBin+"/"+p+":"+postgresBin+"/"+p)
		if p != "postgres" {
			args = append(args, postgresBin+"/"+p+":/usr/local/bin/"+p)
		}
	}
	for _, lib := range []string{"plpgsql.so", "dict_snowball.so"} {
		args = append(args, "/usr/lib/postgresql/15/lib/"+lib+":/usr/lib/postgresql/15/lib/"+lib)
	}
	s.image(t, args...)
}

// pack writes a folder into an archive, with its empty folders.
func pack(dir, archive string) error {
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}
