package allinone

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// errInUse: another process has the data folder.
var errInUse = errors.New("is in use by another parley")

// closeToOthers takes what an earlier version, or a copy, left open to other users of the machine. The folder itself may be somebody's who
// means it so; ours are the files.
func closeToOthers(dir string) error {
	for _, name := range []string{"lock", "token.key", "parley.db", "parley.db-wal", "parley.db-shm", "nats"} {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := os.Lstat(path)
			if err != nil || !st.IsDir() && !st.Mode().IsRegular() || st.Mode().Perm()&0o077 == 0 {
				return err
			}
			return os.Chmod(path, st.Mode().Perm()&^0o077)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("close the data folder to others: %w", err)
		}
	}
	return nil
}

// open says which others may look into the data folder, "" when nobody may.
func open(dir string) string {
	if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&0o077 != 0 {
		return st.Mode().Perm().String()
	}
	return ""
}

// lockFolder makes dir if need be and takes it for this process. The lock ends with the process, however that dies.
func lockFolder(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the data folder: %w", err)
		}
		who, _ := io.ReadAll(io.LimitReader(f, 32)) // only to help
		return nil, fmt.Errorf("the data folder %s %w (process %s)", dir, errInUse, strings.TrimSpace(string(who)))
	}
	if err := closeToOthers(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_ = f.Truncate(0) // the number is only to help
	_, _ = fmt.Fprintln(f, os.Getpid())
	return func() { _ = f.Close() }, nil
}
