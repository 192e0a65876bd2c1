//go:build linux

package vmm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Command says how to start a process. It gets no signals of ours: it is the leader of a session of its own. It leaves no core dump, in which a guest's memory would be; where this process has
// no CAP_SYS_RESOURCE and the child changes its user at once, only this process's own limit keeps it from that.
type Command struct {
	Path           string
	Name           string   // What the program is told that it is called (argv[0]). Optional: Path.
	Args           []string // Without the program's name.
	Dir            string   // Working directory. Optional: this process's.
	Env            []string // Optional: empty, so that nothing of ours gets in.
	Stdout, Stderr *os.File // Optional: /dev/null.
	Cgroup         *cgroup.Leaf
	Network        *netns.Namespace // It is born in this network namespace. Optional: in this process's.
	PIDNamespace   bool             // Make it the init of a new PID namespace (pid_namespaces(7)): when it ends, all in it ends.
}

// Start starts the process in its leaf.
//
// On some kernels nothing can be born in a leaf by clone3(2): the child is killed by nobody before its first instruction. A child that has ended by SIGKILL
// before Start returns is therefore started once more outside, and moved.
func Start(c Command) (*Process, error) {
	p, err := c.start(c.Cgroup != nil)
	if err != nil || c.Cgroup == nil {
		return p, err
	}
	if !stillborn(p) {
		return p, nil
	}
	p.Close()
	return c.startAndMove()
}

func (c Command) start(inCgroup bool) (*Process, error) {
	var pidfd int
	cmd := &exec.Cmd{Path: c.Path, Args: append([]string{cmp.Or(c.Name, c.Path)}, c.Args...), Dir: c.Dir, Env: c.Env}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	if c.Stdout != nil { // a nil *os.File in an io.Writer is not nil
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if c.PIDNamespace {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	path := ""
	if c.Cgroup != nil {
		path = c.Cgroup.Path()
	}
	if inCgroup {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, c.Cgroup.FD()
	}
	begin := cmd.Start
	if c.Network != nil {
		begin = func() error { return c.Network.Do(cmd.Start) }
	}
	if err := begin(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	pid := cmd.Process.Pid
	noCoreDump := unix.NoCoreDump(pid) // at once: the jailer is about to become another user
	identity, err := identify(pid, path)
	if err == nil && !errors.Is(noCoreDump, syscall.EPERM) && !errors.Is(noCoreDump, syscall.ESRCH) {
		err = noCoreDump
	}
	if err != nil { // a child of ours that is not reaped is there
		cmd.Process.Kill()
		cmd.Wait() // its error is the signal
		return nil, errors.Join(err, syscall.Close(pidfd))
	}
	p, err := newProcess(identity, pidfd, true)
	if err != nil { // nobody could ever wait for it
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	cmd.Process.Release()
	return p, nil
}

// stillborn says whether a child was killed before its first instruction. One that executes has an executable; one that has ended has none, and it
// is reaped at once.
func stillborn(p *Process) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.identity.PID))
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // one that may not be looked at lives
		return false
	}
	<-p.done
	return p.status.Signal == int(syscall.SIGKILL)
}

// startAndMove starts the process outside of its leaf and moves it there. It may run some instructions before.
func (c Command) startAndMove() (*Process, error) {
	p, err := c.start(false)
	if err != nil {
		return nil, err
	}
	if err := c.Cgroup.Add(p.identity.PID); err != nil {
		err = fmt.Errorf("move into leaf: %w", err)
		if killed := p.Kill(); killed != nil {
			return nil, errors.Join(err, killed, p.Close())
		}
		<-p.done // reaped: no zombie stays behind
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}
