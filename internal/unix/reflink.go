//go:build linux

package unix

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Reflink makes dst share all blocks of src (ioctl_ficlone(2)). An error means that the file system can't.
func Reflink(dst, src *os.File) error {
	return os.NewSyscallError("ficlone", unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())))
}

// ProbeReflink says whether files of a directory can share blocks, by trying it with two that have no name.
func ProbeReflink(dir string) (bool, error) {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EOPNOTSUPP) { // nor have the file systems that can't make such
			return false, nil
		}
		if err != nil {
			return false, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		files[i] = os.NewFile(uintptr(fd), dir)
		defer files[i].Close()
	}
	if _, err := files[0].Write(make([]byte, os.Getpagesize())); err != nil {
		return false, err
	}
	return Reflink(files[1], files[0]) == nil, nil
}

// NextData returns the first offset at or after from that holds data, or syscall.ENXIO when there is none (lseek(2), SEEK_DATA).
func NextData(f *os.File, from int64) (int64, error) {
	return unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
}

// NextHole returns the first offset at or after from that begins a hole, the end of the file at the latest (lseek(2), SEEK_HOLE).
func NextHole(f *os.File, from int64) (int64, error) {
	return unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
}

// StartWriting lets the kernel begin to write a range of a file to its disk, and does not wait for that (sync_file_range(2)).
func StartWriting(f *os.File, at, length int64) error {
	return os.NewSyscallError("sync_file_range", unix.SyncFileRange(int(f.Fd()), at, length, unix.SYNC_FILE_RANGE_WRITE))
}

// PunchHole makes a range of a file a hole, which reads as zeros and takes no blocks (fallocate(2)). The file's size stays.
func PunchHole(f *os.File, at, length int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length))
}
