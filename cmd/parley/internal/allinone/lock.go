package allinone

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// errInUse: another process has the data folder.
var errInUse = errors.New("is in use by another parley")

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
	_ = f.Truncate(0) // the number is only to help
	_, _ = fmt.Fprintln(f, os.Getpid())
	return func() { _ = f.Close() }, nil
}
