//go:build linux

package unix

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ioctl numbers of /dev/kvm (Documentation/virt/kvm/api.rst).
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12
)

// ProbeKVM makes a VM with /dev/kvm, and closes it again. Nil says that it worked.
func ProbeKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return os.NewSyscallError("KVM_GET_API_VERSION", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("KVM has API version %d, not %d", version, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return os.NewSyscallError("KVM_CREATE_VM", err)
	}
	return unix.Close(vm)
}

// FileSystem is what statfs(2) says, as far as it matters here.
type FileSystem struct {
	Type        int64 // Magic number.
	FreeBytes   uint64
	NoDev       bool
	NoExec      bool
	FileDevices uint64 // st_dev, of the directory itself.
}

// StatFS says what file system a directory is on.
func StatFS(path string) (FileSystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return FileSystem{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return FileSystem{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return FileSystem{
		Type: int64(s.Type), FreeBytes: s.Bavail * uint64(s.Bsize), FileDevices: uint64(st.Dev),
		NoDev: s.Flags&unix.ST_NODEV != 0, NoExec: s.Flags&unix.ST_NOEXEC != 0,
	}, nil
}

// Release returns the kernel's release (uname(2)).
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
