//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// openTerminal makes a pseudo-terminal of a size, whose slave is the owner's (pty(7)). Linux 4.13.
func openTerminal(size wire.TTY, owner *syscall.Credential) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	var fd uintptr
	err = control(master, func(own int) error {
		if err := unix.IoctlSetPointerInt(own, unix.TIOCSPTLCK, 0); err != nil { // it is made locked
			return err
		}
		var failed syscall.Errno
		fd, _, failed = unix.Syscall(unix.SYS_IOCTL, uintptr(own), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if failed != 0 {
			return failed
		}
		return nil
	})
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	slave = os.NewFile(fd, "terminal")
	if owner != nil {
		err = slave.Chown(int(owner.Uid), -1)
	}
	if err = errors.Join(err, resize(master, size)); err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return master, slave, nil
}

// resize tells the terminal how large its window is; its foreground process group gets SIGWINCH when that is news.
func resize(master *os.File, size wire.TTY) error {
	return control(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
}

// control calls f with the descriptor, which stays what the runtime's poller made of it.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
