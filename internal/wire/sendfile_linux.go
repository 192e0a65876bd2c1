package wire

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// sendFile moves the next n bytes of a file to a connection within the kernel, where the connection shows its socket. It may stop before: the rest is the caller's to move.
func sendFile(w io.Writer, f *os.File, n int) (sent int, err error) {
	shows, ok := w.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	socket, err := shows.SyscallConn()
	if err != nil {
		return 0, nil
	}
	file, err := f.SyscallConn()
	if err != nil {
		return 0, nil
	}
	for sent < n {
		var moved int
		var failed error
		control := file.Control(func(from uintptr) {
			err = socket.Write(func(to uintptr) bool {
				moved, failed = syscall.Sendfile(int(to), int(from), nil, n-sent)
				return !errors.Is(failed, syscall.EAGAIN)
			})
		})
		switch {
		case control != nil || err != nil:
			return sent, errors.Join(control, err)
		case errors.Is(failed, syscall.EINTR):
		case failed != nil || moved == 0:
			return sent, nil // the file's end, or a file or a socket that can't: an error of the connection comes again
		default:
			sent += moved
		}
	}
	return sent, nil
}
