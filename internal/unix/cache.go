//go:build linux

package unix

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadAhead has the kernel begin to read a range of a file into its cache (posix_fadvise(2), POSIX_FADV_WILLNEED).
func ReadAhead(f *os.File, offset, length int64) error {
	return os.NewSyscallError("fadvise64", unix.Fadvise(int(f.Fd()), offset, length, unix.FADV_WILLNEED))
}

// DropCache has the kernel forget what it has cached of a file, but for what is mapped or not written to the disk yet (posix_fadvise(2), POSIX_FADV_DONTNEED).
func DropCache(f *os.File) error {
	return os.NewSyscallError("fadvise64", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// Cached returns how many pages of a range of a file the kernel has in its cache (mincore(2)). The range is of whole pages, not empty, and within the file.
func Cached(f *os.File, offset, length int64) (pages int, err error) {
	memory, err := unix.Mmap(int(f.Fd()), offset, int(length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(memory)
	return resident(memory)
}

func resident(memory []byte) (pages int, err error) {
	states := make([]byte, (len(memory)-1)/os.Getpagesize()+1)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)), uintptr(unsafe.Pointer(&states[0])))
	if errno != 0 {
		return 0, os.NewSyscallError("mincore", errno)
	}
	for _, state := range states {
		pages += int(state & 1)
	}
	return pages, nil
}
