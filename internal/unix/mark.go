//go:build linux

package unix

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SetMark gives what a socket sends a mark (SO_MARK, socket(7)).
func SetMark(conn syscall.RawConn, mark int) error {
	var err error
	failed := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
	if failed != nil {
		return failed
	}
	return err
}
