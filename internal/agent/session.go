//go:build linux

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience is how long the processes of a session may take to end after SIGKILL.
const killPatience = 3 * time.Second

// killSession kills every process of a session, also what they start meanwhile, and returns when none is left. The caller holds the session's number: its leader
// must not have been reaped. Each process is signalled by a descriptor, so a pid that comes to mean another is no danger.
func killSession(session int) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		left, err := killMembers(session)
		if err != nil || left == 0 {
			return err
		}
		if time.Since(begin) > killPatience {
			return fmt.Errorf("%d processes of session %d live %v after SIGKILL", left, session, killPatience)
		}
	}
}

// killMembers goes through all processes once and returns how many of the session lived. The leader is first: it must not see the others' ends.
func killMembers(session int) (left int, err error) {
	pids := []int{session}
	for pid, s := range processes() {
		if s.session == session && pid != session {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		lived, failed := killMember(pid, session)
		if lived {
			left++
		}
		err = errors.Join(err, failed)
	}
	return left, err
}

func killMember(pid, session int) (lived bool, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, gone(err)
	}
	defer unix.Close(fd)
	// Only now, as the pid may have been another's before. If it is another's after, the descriptor's signal fails.
	if s, ok := readStat(pid); !ok || s.session != session {
		return false, nil
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
		return false, nil // ended, and not reaped
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return false, gone(err)
	}
	return true, nil
}

// gone passes every error on but that of a process that is no more.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("kill: %w", err)
}

// stat is what is needed of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	zombie          bool
	parent, session int
}

// processes returns all processes that there are.
func processes() map[int]stat {
	all := map[int]stat{}
	proc, err := os.Open("/proc")
	if err != nil {
		return all
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok {
			all[pid] = s
		}
	}
	return all
}

func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(text)
}

func parseStat(text []byte) (s stat, ok bool) {
	name := bytes.LastIndexByte(text, ')') // it may hold spaces and parentheses
	fields := bytes.Fields(text[name+1:])
	if name < 0 || len(fields) < 4 {
		return stat{}, false
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	session, err2 := strconv.Atoi(string(fields[3]))
	return stat{zombie: string(fields[0]) == "Z", parent: parent, session: session}, err1 == nil && err2 == nil
}
