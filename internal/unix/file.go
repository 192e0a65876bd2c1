//go:build linux

package unix

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// RenameNoReplace renames a file unless the new name is taken, which is fs.ErrExist (renameat2(2)).
func RenameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// OpenBeneath opens name below the directory dir: no symbolic link, no magic link and no ".." leads out of it (openat2(2), Linux 5.6).
// The descriptor is closed on exec.
func OpenBeneath(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(int(dir.Fd()), name, how)
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: dir.Name() + "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

// MountLacks says what the mount that path is on does not let be used: device nodes, and programs (statvfs(3)).
func MountLacks(path string) (devices, programs bool, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return s.Flags&unix.ST_NODEV != 0, s.Flags&unix.ST_NOEXEC != 0, nil
}

// LinkFile makes path a name of what f is, whatever happened to the name that f was opened by (linkat(2)). f may have been opened with O_PATH.
func LinkFile(f *os.File, path string) error {
	old := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := unix.Linkat(unix.AT_FDCWD, old, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "linkat", Old: f.Name(), New: path, Err: err}
	}
	return nil
}

// O_PATH opens a file only to be named by (open(2)).
const O_PATH = unix.O_PATH

// NobodyWrites returns an error when a process has the file open for writing, or mapped so, or makes a lease on it: EAGAIN (fcntl(2), F_SETLEASE). The file must be open for reading only, and
// belong to this process's user.
func NobodyWrites(f *os.File) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return os.NewSyscallError("fcntl F_SETLEASE", err)
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return os.NewSyscallError("fcntl F_SETLEASE", err)
}
