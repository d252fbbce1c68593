package harness

import (
	"context"
	"net"
	"syscall"
)

// smallBuffer dials with a small receive buffer, so that a client that does not read is noticed after kilobytes instead of megabytes.
func smallBuffer(bytes int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes) }); cerr != nil {
			return cerr
		}
		return err
	}}
	return d.DialContext
}
