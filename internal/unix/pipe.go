//go:build linux

package unix

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mkfifo makes a FIFO (mkfifo(3)).
func Mkfifo(path string, mode uint32) error {
	if err := syscall.Mkfifo(path, mode); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return nil
}

// SetPipeSize asks for a pipe's capacity in bytes and returns the one that it got (fcntl(2), F_SETPIPE_SZ).
func SetPipeSize(f *os.File, size int) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var got int
	var failed error
	err = raw.Control(func(fd uintptr) { got, failed = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
	if err == nil {
		err = failed
	}
	return got, os.NewSyscallError("fcntl", err)
}

// PipeFill returns a pipe's capacity and how much is in it, in bytes (F_GETPIPE_SZ, FIONREAD).
func PipeFill(f *os.File) (size, fill int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if size, failed = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); failed == nil {
			fill, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		}
	})
	if err == nil {
		err = failed
	}
	return size, fill, os.NewSyscallError("pipe", err)
}
