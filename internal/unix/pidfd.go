//go:build linux

package unix

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// PidfdOpen returns a descriptor of a process (pidfd_open(2)). It is non-blocking and so can be polled.
func PidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// PidfdSendSignal signals the process of a descriptor (pidfd_send_signal(2)); syscall.ESRCH when it has been reaped.
func PidfdSendSignal(fd int, signal syscall.Signal) error {
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, signal, nil, 0))
}

// PidfdGetfd returns a copy of a descriptor of the process, closed on exec (pidfd_getfd(2), Linux 5.6). syscall.EPERM where this process may not trace that one.
func PidfdGetfd(pidfd, target int) (int, error) {
	fd, err := unix.PidfdGetfd(pidfd, target, 0)
	return fd, os.NewSyscallError("pidfd_getfd", err)
}

// PidfdPoll waits until the process of pidfd has ended, and returns true, or until other is readable or hung up, and returns false.
func PidfdPoll(pidfd, other int) (ended bool, err error) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(other), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			return fds[0].Revents != 0, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return false, os.NewSyscallError("poll", err)
		}
	}
}

// PidfdEnded says whether the process of a descriptor has ended, without waiting.
func PidfdEnded(pidfd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, syscall.EINTR) {
			return n > 0, os.NewSyscallError("poll", err)
		}
	}
}

// PidfdWait reaps the child of a descriptor, which must have ended (waitid(2) with P_PIDFD). syscall.ECHILD when it is no child of this process.
func PidfdWait(pidfd int) (exited bool, code, signal int, err error) {
	return pidfdWait(pidfd, 0)
}

// PidfdPeek says what PidfdWait would, and leaves the child to be reaped.
func PidfdPeek(pidfd int) (exited bool, code, signal int, err error) {
	return pidfdWait(pidfd, unix.WNOWAIT)
}

// PidfdExit says how the process of a descriptor ended once its parent has reaped it, whoever that was (ioctl_pidfd(2), PIDFD_INFO_EXIT, Linux 6.15).
// The descriptor must have been opened before. An error where that is not known: yet, or ever.
func PidfdExit(pidfd int) (exited bool, code, signal int, err error) {
	const infoExit = 1 << 3 // include/uapi/linux/pidfd.h
	info := unix.PidfdInfo{Mask: infoExit}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil {
		return false, 0, 0, os.NewSyscallError("ioctl PIDFD_GET_INFO", err)
	}
	if info.Mask&infoExit == 0 {
		return false, 0, 0, os.NewSyscallError("ioctl PIDFD_GET_INFO", syscall.ENODATA)
	}
	status := syscall.WaitStatus(info.Exit_code)
	if status.Signaled() {
		return true, 0, int(status.Signal()), nil
	}
	return status.Exited(), status.ExitStatus(), 0, nil
}

func pidfdWait(pidfd, options int) (exited bool, code, signal int, err error) {
	var info unix.Siginfo
	for {
		err = unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG|options, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return false, 0, 0, os.NewSyscallError("waitid", err)
	}
	return childStatus(&info)
}
