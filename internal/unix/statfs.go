//go:build linux

package unix

import (
	"os"

	"golang.org/x/sys/unix"
)

// FileSystem is what statfs(2) and statx(2) say of the one that a directory is on, as far as it matters here.
type FileSystem struct {
	Type                    int64 // Magic number.
	FreeBytes               uint64
	ReadOnly, NoDev, NoExec bool
	Mount                   Mount
}

// Mount tells what a file can be linked into: another mount of the same device is another one.
type Mount struct {
	Device uint64
	ID     uint64 // 0 before Linux 5.8.
}

// TmpfsMagic is the Type of a file system in memory.
const TmpfsMagic = unix.TMPFS_MAGIC

// StatFS says what file system a directory is on.
func StatFS(path string) (FileSystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return FileSystem{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return FileSystem{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	mount := Mount{Device: unix.Mkdev(st.Dev_major, st.Dev_minor)}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		mount.ID = st.Mnt_id
	}
	return FileSystem{
		Type: int64(s.Type), FreeBytes: s.Bavail * uint64(s.Bsize), Mount: mount,
		ReadOnly: s.Flags&unix.ST_RDONLY != 0, NoDev: s.Flags&unix.ST_NODEV != 0, NoExec: s.Flags&unix.ST_NOEXEC != 0,
	}, nil
}
