//go:build linux

package unix

import (
	"fmt"
	"os"
	"runtime"

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
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("tap0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	if name := request.Name(); name != "tap0" {
		return fmt.Errorf("TUNSETIFF made %q", name)
	}
	return nil
}
