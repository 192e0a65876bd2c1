//go:build linux

package unix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BootID returns the random id of the host's present boot (random(4)).
func BootID() (string, error) { return bootID() }

// bootID is read once: no process outlives its host's boot.
var bootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// BootTime returns when the host was booted, as its present clock sees it: btime of /proc/stat (proc_stat(5)).
func BootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(text)) {
		if seconds, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat: no btime")
}

// hostPIDNamespace is the inode of the first PID namespace (PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h).
const hostPIDNamespace = 0xeffffffc

// PIDNamespace returns the inode of this process's PID namespace (namespaces(7)), and whether it is the host's own, in which every process is seen.
func PIDNamespace() (inode uint64, host bool, err error) {
	inode, err = pidNamespace()
	return inode, inode == hostPIDNamespace, err
}

// pidNamespace is read once: a process stays in the PID namespace that it was born in.
var pidNamespace = sync.OnceValues(func() (uint64, error) {
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
})

// StartTime returns when a process started, in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
// With the boot id it tells a process from a later one with the same pid.
func StartTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	end := bytes.LastIndexByte(text, ')') // the name may hold spaces and parentheses
	if end < 0 {
		return 0, fmt.Errorf("/proc/%d/stat: no name in it", pid)
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// NoCoreDump keeps a process and what it becomes from leaving its memory in a file, or with a program that collects such, when it crashes: a limit of 1 byte says both,
// one of 0 only the first (prlimit(2), core(5)). syscall.EPERM when the process has become another user's, and this one has no CAP_SYS_RESOURCE.
func NoCoreDump(pid int) error {
	const none = 1
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &limit); err != nil {
		return os.NewSyscallError("prlimit", err)
	}
	limit.Cur, limit.Max = min(none, limit.Max), min(none, limit.Max)
	return os.NewSyscallError("prlimit", unix.Prlimit(pid, unix.RLIMIT_CORE, &limit, nil))
}

// CgroupV2 returns the process's path in the cgroup v2 hierarchy, from its root, "" when it has none (cgroups(7)).
func CgroupV2(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return strings.TrimSuffix(path, " (deleted)"), nil
		}
	}
	return "", nil
}
