//go:build linux

package unix

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of a userfaultfd (ioctl_userfaultfd(2)): what golang.org/x/sys/unix lacks.
const (
	userfaultWake = 0x8010aa02 // _IOR(0xAA, 2, struct uffdio_range)
	userfaultCopy = 0xc028aa03 // _IOWR(0xAA, 3, struct uffdio_copy)
	userfaultZero = 0xc020aa04 // _IOWR(0xAA, 4, struct uffdio_zeropage)
)

// UserfaultLink is what a descriptor of a userfaultfd is called in /proc/PID/fd.
const UserfaultLink = "anon_inode:[userfaultfd]"

// Events of a userfaultfd.
const (
	UserfaultPage   = 0x12 // Arg: flags, address.
	UserfaultFork   = 0x13 // Arg: a descriptor, which reading has opened in this process.
	UserfaultRemove = 0x15 // Arg: begin, end.
)

// UserfaultMessage is struct uffd_msg.
type UserfaultMessage struct {
	Event uint8
	_     [7]byte
	Arg   [3]uint64
}

// ProbeUserfault makes a descriptor that faults of memory are handled with, and closes it again (userfaultfd(2)). Nil says that it worked.
func ProbeUserfault() error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("userfaultfd", errno)
	}
	return unix.Close(int(fd))
}

// UserfaultRead reads one event; syscall.EAGAIN where there is none and the descriptor does not block.
func UserfaultRead(fd int, message *UserfaultMessage) error {
	n, err := unix.Read(fd, unsafe.Slice((*byte)(unsafe.Pointer(message)), unsafe.Sizeof(*message)))
	if err == nil && n != int(unsafe.Sizeof(*message)) {
		err = syscall.EIO
	}
	return os.NewSyscallError("read userfaultfd", err)
}

// UserfaultCopy fills memory that is missing at an address of another process, and wakes who waits for it (UFFDIO_COPY). It returns how many bytes were filled, and an error unless that is all
// of them: syscall.EAGAIN when the memory's layout changes at this moment, so that events must be read first, or when less was filled; EEXIST when the first page is there already; ESRCH when
// the process is ending.
func UserfaultCopy(fd int, address uint64, data []byte) (int, error) {
	argument := struct {
		to           uint64
		from         unsafe.Pointer // as one, so that it stays valid; 64 bits wide where machines run
		length, mode uint64
		copied       int64
	}{to: address, from: unsafe.Pointer(unsafe.SliceData(data)), length: uint64(len(data))}
	err := userfaultIoctl(fd, userfaultCopy, unsafe.Pointer(&argument))
	return int(max(argument.copied, 0)), os.NewSyscallError("ioctl UFFDIO_COPY", err)
}

// UserfaultZero is UserfaultCopy of zeros (UFFDIO_ZEROPAGE). Not for huge pages.
func UserfaultZero(fd int, address, length uint64) error {
	argument := struct {
		start, length, mode uint64
		zeroed              int64
	}{start: address, length: length}
	return os.NewSyscallError("ioctl UFFDIO_ZEROPAGE", userfaultIoctl(fd, userfaultZero, unsafe.Pointer(&argument)))
}

// UserfaultWake wakes who waits for memory: it faults again where that is missing still (UFFDIO_WAKE).
func UserfaultWake(fd int, address, length uint64) error {
	argument := struct{ start, length uint64 }{address, length}
	return os.NewSyscallError("ioctl UFFDIO_WAKE", userfaultIoctl(fd, userfaultWake, unsafe.Pointer(&argument)))
}

func userfaultIoctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// PollEither waits until one of two descriptors is readable or hung up, at most so many milliseconds; -1 is for ever.
func PollEither(a, b, milliseconds int) (aReady, bReady bool, err error) {
	fds := []unix.PollFd{{Fd: int32(a), Events: unix.POLLIN}, {Fd: int32(b), Events: unix.POLLIN}}
	_, err = unix.Poll(fds, milliseconds)
	if errors.Is(err, syscall.EINTR) {
		return false, false, nil
	}
	return fds[0].Revents != 0, fds[1].Revents != 0, os.NewSyscallError("poll", err)
}
