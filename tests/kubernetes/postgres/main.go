// Command postgres is the entrypoint of the PostgreSQL image that the cluster tests use. That image has no shell, which initdb needs: so
// initdb runs when the image is made, and its result lies in the image as an archive. It takes the same variables as the usual image:
// POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB (each also as NAME_FILE) and PGDATA.
package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	bin      = "/usr/lib/postgresql/15/bin/postgres"
	template = "/template.tar"
	done     = "parley-initialised" // the last thing that initialising writes
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "postgres entrypoint:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	data := os.Getenv("PGDATA")
	if data == "" {
		data = "/var/lib/postgresql/data"
	}
	if len(args) > 0 && args[0] == "postgres" {
		args = args[1:]
	}
	if _, err := os.Stat(filepath.Join(data, done)); errors.Is(err, os.ErrNotExist) {
		if err := initialise(data); err != nil {
			return fmt.Errorf("initialise %s: %w", data, err)
		}
	} else if err != nil {
		return err
	}
	return serve(append([]string{"-D", data, "-c", "listen_addresses=*", "-c", "unix_socket_directories=" + socketDir()}, args...))
}

// serve runs PostgreSQL and has it stop as the usual image does, whose STOPSIGNAL is SIGINT: at once, with its clients' transactions rolled
// back. SIGTERM would have it wait for the clients, which never leave, and be killed when its grace period is over.
func serve(args []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", bin, err)
	}
	go func() {
		for range stop {
			_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended already
		}
	}()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s ended: %w", bin, err)
	}
	return nil
}

// socketDir is where a socket can be written, if anywhere: the root is read-only.
func socketDir() string {
	for _, dir := range []string{"/var/run/postgresql", "/tmp"} {
		if f, err := os.CreateTemp(dir, ".try"); err == nil {
			f.Close()
			_ = os.Remove(f.Name()) // it was only a try
			return dir
		}
	}
	return ""
}

// setting is a variable or what the file that NAME_FILE names has.
func setting(name, otherwise string) (string, error) {
	if path := os.Getenv(name + "_FILE"); path != "" {
		b, err := os.ReadFile(path)
		return strings.TrimRight(string(b), "\n"), err
	}
	if v := os.Getenv(name); v != "" {
		return v, nil
	}
	return otherwise, nil
}

func initialise(data string) error {
	user, err := setting("POSTGRES_USER", "postgres")
	if err != nil {
		return err
	}
	password, err := setting("POSTGRES_PASSWORD", "")
	if err != nil {
		return err
	}
	db, err := setting("POSTGRES_DB", user)
	if err != nil {
		return err
	}
	if password == "" {
		return errors.New("POSTGRES_PASSWORD is not set")
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	old, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range old { // of an attempt that was cut short
		if e.Name() == "lost+found" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
			return err
		}
	}
	if err := unpack(template, data); err != nil {
		return err
	}
	hba := "local all all trust\nhost all all all scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return err
	}
	// Single-user mode takes one statement a line, and needs no shell and no connection.
	var sql strings.Builder
	if user == "postgres" {
		fmt.Fprintf(&sql, "ALTER ROLE postgres PASSWORD %s\n", quote(password))
	} else {
		fmt.Fprintf(&sql, "CREATE ROLE %s SUPERUSER LOGIN PASSWORD %s\n", ident(user), quote(password))
	}
	if db != "postgres" {
		fmt.Fprintf(&sql, "CREATE DATABASE %s OWNER %s\n", ident(db), ident(user))
	}
	cmd := exec.Command(bin, "--single", "-D", data, "postgres")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(sql.String()), os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the user and the database: %w", err)
	}
	return os.WriteFile(filepath.Join(data, done), nil, 0o600)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// unpack writes the archive below dir; folders and files are the caller's own.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("%s leads out of the archive", h.Name)
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeReg:
			err = write(path, r)
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
