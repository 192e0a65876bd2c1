//go:build linux

// Package vmm starts, finds, signals and awaits the processes that run machines.
//
// There are only four types. A [Command] says how to start one. A [Process] is one that runs: a child of ours, or one that another process
// started and that we adopt. An [Identity] is what is written down of it, so that no other process is ever taken for it. A [Status] is how it ended.
//
// # Caveats
//
// A process is signalled through its pidfd only, never by number.
//
// A child that still runs when its Process is closed goes on; when it ends before this program does, and nobody adopts it, it stays a zombie until then.
//
// The status of an adopted process is known where it is a child of this program, and, from Linux 6.15, once its parent has reaped it.
package vmm

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

var (
	// ErrGone is returned when no process fits an identity any more.
	ErrGone = errors.New("the process is gone")
	// ErrMoved is returned for a process that lives in another cgroup than it was started in.
	ErrMoved = errors.New("the process was moved to another cgroup")
	// ErrForeign is returned for an identity of another PID namespace: its process can't be seen from here, so nothing is known of it.
	ErrForeign = errors.New("the process is another PID namespace's")
)

// Identity tells one process from all others, also from later ones with the same pid.
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // Clock ticks since boot: field 22 of /proc/PID/stat.
	BootID    string `json:"boot_id"`
	Cgroup    string `json:"cgroup,omitempty"` // Path of the v2 leaf from the hierarchy's root. Empty where it has none.
	// PIDNamespace is the inode of the PID namespace in which PID means the process. 0 in identities of before it was kept.
	PIDNamespace uint64 `json:"pid_namespace,omitempty"`
}

// Self returns the identity of this process, which is in no leaf of ours.
func Self() (Identity, error) { return identify(os.Getpid(), "") }

func identify(pid int, cgroup string) (Identity, error) {
	start, err := unix.StartTime(pid)
	if err != nil {
		return Identity{}, err
	}
	boot, err := unix.BootID()
	if err != nil {
		return Identity{}, err
	}
	namespace, _, err := unix.PIDNamespace()
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, StartTime: start, BootID: boot, Cgroup: cgroup, PIDNamespace: namespace}, nil
}

// SeesAll says whether this process sees all processes of the host.
func SeesAll() bool {
	_, host, err := unix.PIDNamespace()
	return host && err == nil
}

// open returns a pidfd of the process of the identity, which may have ended.
func (i Identity) open() (pidfd int, err error) {
	if err := i.local(); err != nil {
		return -1, err
	}
	pidfd, err = unix.PidfdOpen(i.PID)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, err
	}
	if err := i.verify(pidfd); err != nil {
		return -1, errors.Join(err, syscall.Close(pidfd))
	}
	return pidfd, nil
}

// local says whether the identity's number means something here.
func (i Identity) local() error {
	boot, err := unix.BootID()
	if err != nil {
		return err
	}
	if boot != i.BootID {
		return fmt.Errorf("%w: the host was booted since", ErrGone)
	}
	namespace, _, err := unix.PIDNamespace()
	if err == nil && i.PIDNamespace != 0 && i.PIDNamespace != namespace {
		err = fmt.Errorf("%w: it is process %d of namespace %d, this one is in %d", ErrForeign, i.PID, i.PIDNamespace, namespace)
	}
	return err
}

// verify says whether the process that has the identity's pid now is the one. Its pidfd is open, so the pid can't change hands meanwhile. Only its number, start and boot say that it is not.
func (i Identity) verify(pidfd int) error {
	now, err := identify(i.PID, i.Cgroup)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	if i.PIDNamespace == 0 {
		now.PIDNamespace = 0
	}
	if now != i {
		return fmt.Errorf("%w: process %d is another one now", ErrGone, i.PID)
	}
	return i.verifyCgroup(pidfd)
}

// verifyCgroup says whether the process is where it was put. One that is not is the one all the same: somebody has moved it.
func (i Identity) verifyCgroup(pidfd int) error {
	if i.Cgroup == "" {
		return nil
	}
	path, err := unix.CgroupV2(i.PID)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return ErrGone
	}
	if err != nil || path == i.Cgroup {
		return err
	}
	if ended, err := unix.PidfdEnded(pidfd); ended || err != nil { // it is on its way out of everywhere
		return err
	}
	if in, err := cgroup.Holds(i.Cgroup, i.PID); in && err == nil { // the leaf has another path where this process's cgroup namespace, or its mount, begins elsewhere
		return nil
	}
	return fmt.Errorf("%w: process %d is in cgroup %s, not in %s", ErrMoved, i.PID, path, i.Cgroup)
}
