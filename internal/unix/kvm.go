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

// Release returns the kernel's release (uname(2)).
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
