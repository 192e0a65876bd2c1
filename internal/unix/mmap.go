//go:build linux

package unix

import (
	"os"

	"golang.org/x/sys/unix"
)

// Allocate makes a file at least so long, with space for all of it (fallocate(2)).
func Allocate(f *os.File, length int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, length))
}

// MapShared maps the begin of a file for reading and writing (mmap(2)). What is written there outlives the process. The mapping outlives the descriptor.
func MapShared(f *os.File, length int) ([]byte, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return memory, os.NewSyscallError("mmap", err)
}

// Unmap ends a mapping (munmap(2)).
func Unmap(memory []byte) error { return os.NewSyscallError("munmap", unix.Munmap(memory)) }
