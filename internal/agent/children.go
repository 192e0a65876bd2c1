//go:build linux

package agent

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// children starts processes and waits for them. As the first process of a system it is the parent of every orphan too: then one goroutine reaps all, and tells
// each waiter of its own.
type children struct {
	reaper bool // one goroutine reaps all: see reap

	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

// start returns the pid, and a function that waits for the process's end and must be called once.
func (c *children) start(command *command, files []*os.File) (pid int, wait func() syscall.WaitStatus, err error) {
	c.mu.Lock() // the reaper must not meet a child that nobody waits for yet
	defer c.mu.Unlock()
	attr := &syscall.ProcAttr{Dir: command.dir, Env: command.env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: command.credential}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err = syscall.ForkExec(command.path, command.argv, attr)
	if err != nil {
		return 0, nil, err
	}
	if !c.reaper {
		return pid, func() syscall.WaitStatus { return waitFor(pid) }, nil
	}
	ended := make(chan syscall.WaitStatus, 1)
	c.waiting[pid] = ended
	return pid, func() syscall.WaitStatus { return <-ended }, nil
}

func waitFor(pid int) syscall.WaitStatus {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return status
		}
	}
}

// reap reaps all that have ended. It is called after every SIGCHLD, which may stand for many.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 {
			return
		}
		if ended := c.waiting[pid]; ended != nil {
			delete(c.waiting, pid)
			ended <- status
		}
	}
}
