//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// mostCPUs is how many a unix.CPUSet can name.
const mostCPUs = 1024

// startPinned starts a program that stays on one CPU with all its threads: of those that this process may use the last.
//
// QEMU needs it. Its emulation of VMRUN (7.2, target/i386/tcg/sysemu/svm_helper.c, and none newer that is known does otherwise) notes a virtual interrupt in the word of
// pending interrupts with a plain OR, while the thread of the timers and devices notes theirs there, under a lock that VMRUN doesn't take. One of the two is lost. It is a
// timer's interrupt, and the host or the guest waits for ever; or QEMU delivers once more the interrupt that VMRUN had injected, wherever the guest or the host is by then.
// On one CPU a single instruction can't be torn.
func startPinned(cmd *exec.Cmd) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("which CPUs there are: %w", err)
	}
	last := 0
	for cpu := range mostCPUs {
		if all.IsSet(cpu) {
			last = cpu
		}
	}
	one.Set(last)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on CPU %d: %w", last, err)
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &all)) }()
	return cmd.Start()
}
