//go:build linux

package unix

import (
	"os"

	"golang.org/x/sys/unix"
)

// ProbeUserfault makes a descriptor that faults of memory are handled with, and closes it again (userfaultfd(2)). Nil says that it worked.
func ProbeUserfault() error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("userfaultfd", errno)
	}
	return unix.Close(int(fd))
}
