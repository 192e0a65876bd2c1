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

// usableCPUs are those that this process may use, in order.
func usableCPUs() ([]int, error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("which CPUs there are: %w", err)
	}
	var cpus []int
	for cpu := range mostCPUs {
		if all.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// startPinned starts a program that stays on one CPU with all its threads.
//
// QEMU needs it. Its emulation of VMRUN (7.2, helper_vmrun) notes a virtual interrupt in the word of pending interrupts with a plain OR, while the thread of the timers and
// devices notes theirs there, under a lock that VMRUN doesn't take. One of the two can be lost: a timer's, and the host waits for ever. And what then ends the run of
// the vCPU makes QEMU deliver once more the interrupt that VMRUN had injected, where none may come. On one CPU a single instruction can't be torn. It is what is
// measured (docs/contributing.md); that the OR is the whole cause is inferred.
func startPinned(cmd *exec.Cmd, cpu int) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("which CPUs there are: %w", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on CPU %d: %w", cpu, err)
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &all)) }()
	return cmd.Start()
}
