//go:build linux

package vmm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// EndStrays kills the processes whose command line has option and value, such as --id and a machine's uid, one after the other, and waits for their end. It is for a
// process whose identity nobody wrote down and that is in no leaf: its starter was killed at that moment.
func EndStrays(option, value string) error {
	pids, err := Strays(option, value)
	for _, pid := range pids {
		err = errors.Join(err, endStray(pid, option, value))
	}
	return err
}

// Strays returns the processes whose command line has option and value, as far as they are seen from this process's PID namespace.
func Strays(option, value string) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, notPID := strconv.Atoi(entry.Name()); notPID == nil && has(pid, option, value) {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

func has(pid int, option, value string) bool {
	args := strings.Split(commandLine(pid), "\x00")
	at := slices.Index(args, option)
	return at > 0 && at+1 < len(args) && args[at+1] == value
}

// execPatience is how long a process is waited for that is about to become another program, as the jailer becomes the VMM.
const execPatience = 100 * time.Millisecond

// commandLine returns a process's arguments. While execve(2) replaces the program there are none, as kernel threads and zombies, which have no program, never have any.
func commandLine(pid int) string {
	for begin := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(text) > 0 || time.Since(begin) > execPatience {
			return string(text)
		}
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
			return ""
		}
	}
}

func endStray(pid int, option, value string) error {
	fd, err := unix.PidfdOpen(pid)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if !has(pid, option, value) { // the number was another's before the descriptor was open
		return nil
	}
	if err := unix.PidfdSendSignal(fd, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if _, err := unix.PidfdPoll(fd, -1); err != nil {
		return err
	}
	unix.PidfdWait(fd) // one that is a child of this program is reaped
	return nil
}
