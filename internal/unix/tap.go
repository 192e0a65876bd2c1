//go:build linux

package unix

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ProbeTAP makes a TAP device in a network namespace that nobody else sees, and closes both again (TUNSETIFF, Documentation/networking/tuntap.rst). Nil says that it worked.
// It needs root.
func ProbeTAP() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespace with the thread
		done <- tapInNamespace()
	}()
	return <-done
}

func tapInNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	fd, err := attachTAP("tap0")
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// attachTAP opens a TAP of the calling thread's network namespace, as Firecracker does, and makes it when it is missing.
func attachTAP(name string) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	}
	if err == nil && request.Name() != name {
		err = fmt.Errorf("TUNSETIFF made %q", request.Name())
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// OpenTAP opens a TAP of the calling thread's network namespace, and makes one that lives as long as it is open when there is none. What is read and written are frames, each
// behind a virtio_net_hdr of TAPHeader bytes. syscall.EBUSY when it is open.
func OpenTAP(name string) (*os.File, error) {
	fd, err := attachTAP(name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// TAPHeader is the size of what is before each frame, in bytes.
const TAPHeader = 10

// MakeTAP makes a TAP in the calling thread's network namespace that outlives this process, and that a user and group may open.
func MakeTAP(name string, uid, gid int) error {
	fd, err := attachTAP(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, set := range []struct {
		name     string
		request  uint
		argument int
	}{{"TUNSETOWNER", unix.TUNSETOWNER, uid}, {"TUNSETGROUP", unix.TUNSETGROUP, gid}, {"TUNSETPERSIST", unix.TUNSETPERSIST, 1}} {
		if err := unix.IoctlSetInt(fd, set.request, set.argument); err != nil {
			return os.NewSyscallError(set.name, err)
		}
	}
	return nil
}

// ResetTAP undoes what who had a TAP of the calling thread's network namespace open can have set on it, and what netlink doesn't show: filters, header's form, offloads, buffer, carrier.
// syscall.EBUSY when it is still open.
func ResetTAP(name string) error {
	fd, err := attachTAP(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var noPrograms int32 = -1
	var noAddresses struct{ flags, count uint16 }
	var header, order, sendBuffer, carrier int32 = TAPHeader, 0, math.MaxInt32, 1
	for _, set := range []struct {
		name     string
		request  uint
		argument unsafe.Pointer
	}{
		{"TUNDETACHFILTER", unix.TUNDETACHFILTER, nil},
		{"TUNSETSTEERINGEBPF", unix.TUNSETSTEERINGEBPF, unsafe.Pointer(&noPrograms)},
		{"TUNSETFILTEREBPF", unix.TUNSETFILTEREBPF, unsafe.Pointer(&noPrograms)},
		{"TUNSETTXFILTER", unix.TUNSETTXFILTER, unsafe.Pointer(&noAddresses)},
		{"TUNSETVNETHDRSZ", unix.TUNSETVNETHDRSZ, unsafe.Pointer(&header)},
		{"TUNSETVNETLE", unix.TUNSETVNETLE, unsafe.Pointer(&order)},
		{"TUNSETOFFLOAD", unix.TUNSETOFFLOAD, nil},
		{"TUNSETSNDBUF", unix.TUNSETSNDBUF, unsafe.Pointer(&sendBuffer)},
		{"TUNSETCARRIER", unix.TUNSETCARRIER, unsafe.Pointer(&carrier)},
	} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(set.request), uintptr(set.argument)); errno != 0 {
			return os.NewSyscallError(set.name, errno)
		}
	}
	return nil
}
