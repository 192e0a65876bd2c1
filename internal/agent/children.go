//go:build linux

package agent

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children starts processes and tells when they have ended. As the first process of a system it is the parent of every orphan too, which it reaps.
type children struct {
	reaper   bool // what has ended is told by reap, which is called after every SIGCHLD
	workload *workload

	mu    sync.Mutex
	known map[int]*child
}

// child is a process that was started here. After its end it stays, a zombie, until it is reaped: so long its pid is nobody else's, nor the numbers of its session and
// process group.
type child struct {
	pid   int
	ended chan struct{} // closed when it has ended
}

func newChildren(reaper bool, w *workload) *children {
	return &children{reaper: reaper, workload: w, known: map[int]*child{}}
}

// start starts a command in the workload as the leader of a session of its own, whose terminal its standard input may be. The caller has entered the workload.
func (c *children) start(command *command, files []*os.File, terminal bool) (*child, error) {
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: terminal, Credential: command.credential}
	c.workload.attr(sys)
	return c.launch(command, files, sys)
}

// startOutside starts a command that is no part of the workload.
func (c *children) startOutside(command *command, files []*os.File) (*child, error) {
	return c.launch(command, files, &syscall.SysProcAttr{Setsid: true})
}

func (c *children) launch(command *command, files []*os.File, sys *syscall.SysProcAttr) (*child, error) {
	c.mu.Lock() // the reaper must not meet a child that is not known yet
	defer c.mu.Unlock()
	attr := &syscall.ProcAttr{Dir: command.dir, Env: command.env, Sys: sys}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(command.path, command.argv, attr)
	if err != nil {
		return nil, err
	}
	started := &child{pid: pid, ended: make(chan struct{})}
	c.known[pid] = started
	if !c.reaper {
		go started.await()
	}
	return started, nil
}

// await waits for the end of a child that it kills, with its session, when it is late, and reaps it.
func (c *children) await(child *child, patience time.Duration) (status syscall.WaitStatus, late bool) {
	select {
	case <-child.ended:
	case <-time.After(patience):
		late = true
		killSession(child.pid)
		<-child.ended
	}
	status, _ = c.collect(child)
	return status, late
}

// await waits for the end of a child, and leaves it to be reaped.
func (c *child) await() {
	for errors.Is(unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	close(c.ended)
}

// collect reaps a child that has ended, once. Its pid may be another's from here on.
func (c *children) collect(ended *child) (status syscall.WaitStatus, usage syscall.Rusage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, ended.pid)
	for {
		if _, err := syscall.Wait4(ended.pid, &status, 0, &usage); !errors.Is(err, syscall.EINTR) {
			return status, usage
		}
	}
}

// reap tells of known children that have ended, and reaps all others. It is called after every SIGCHLD, which may stand for many.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		pid := endedChild()
		if pid == 0 {
			return
		}
		if c.known[pid] != nil { // it stays, and hides others from waitid
			c.reapEach()
			return
		}
		syscall.Wait4(pid, nil, 0, nil)
	}
}

// reapEach does the work of reap for each child on its own.
func (c *children) reapEach() {
	for pid, s := range processes() {
		if s.parent != os.Getpid() || !s.zombie {
			continue
		}
		if known := c.known[pid]; known != nil {
			known.tell()
		} else {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // not yet, while other threads of it run
		}
	}
}

// tell is called with the lock of children.
func (c *child) tell() {
	var info unix.Siginfo
	if unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) != nil || pidOf(&info) == 0 {
		return // its first thread alone has ended
	}
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
}

// endedChild returns the pid of one child that has ended, which stays; 0 when there is none.
func endedChild() int {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0
		}
		return pidOf(&info)
	}
}

// pidOf returns whom waitid(2) told of: siginfo_t of 64-bit kernels.
func pidOf(info *unix.Siginfo) int {
	child := (*struct {
		signo, errno, code, _ int32
		pid                   int32
	})(unsafe.Pointer(info))
	return int(child.pid)
}
