//go:build linux

package unix

import (
	"os"

	"golang.org/x/sys/unix"
)

// NsfsMagic is the file system type of an open namespace, and of a file that one is mounted on (statfs(2)).
const NsfsMagic = unix.NSFS_MAGIC

// NewNetworkNamespace moves the calling thread alone into a network namespace that it makes (unshare(2)). The goroutine must be locked to its thread.
func NewNetworkNamespace() error {
	return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
}

// EnterNetworkNamespace moves the calling thread alone into the network namespace of a descriptor (setns(2)). The goroutine must be locked to its thread.
func EnterNetworkNamespace(fd int) error {
	return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
}

// IsNetworkNamespace says whether a descriptor is one of a network namespace (ioctl_ns(2)).
func IsNetworkNamespace(fd int) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(fd, &s); err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	if s.Type != NsfsMagic {
		return false, nil
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	return kind == unix.CLONE_NEWNET, os.NewSyscallError("NS_GET_NSTYPE", err)
}

// BindMount makes a file or directory appear at another path too (mount(2), MS_BIND).
func BindMount(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return &os.LinkError{Op: "mount", Old: from, New: to, Err: err}
	}
	return nil
}

// Unmount takes the uppermost mount off a path, also when it is in use (umount2(2), MNT_DETACH). syscall.EINVAL when nothing is mounted there.
func Unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "umount2", Path: path, Err: err}
	}
	return nil
}
