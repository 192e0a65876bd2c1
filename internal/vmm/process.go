//go:build linux

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Status is how a process ended.
type Status struct {
	Known  bool // False for an adopted process: the rest says nothing then.
	Code   int  // The exit status, when Signal is 0.
	Signal int  // The signal that ended it; 0 when it exited.
}

// Process is a process that runs, or has run.
type Process struct {
	identity Identity
	child    bool
	pidfd    *os.File
	done     chan struct{}
	quit     *os.File // closing it ends the goroutine that waits
	waiting  sync.WaitGroup

	mu     sync.Mutex
	status Status
	closed bool
}

// Open adopts the process of an identity, or answers ErrGone.
func Open(identity Identity) (*Process, error) {
	fd, err := unix.PidfdOpen(identity.PID)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	if err := identity.verify(); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	p, err := newProcess(identity, fd, false)
	if err != nil {
		return nil, err
	}
	if ended, err := unix.PidfdEnded(fd); ended && err == nil { // nobody has reaped it: it must not pass for one that runs
		<-p.done
	}
	return p, nil
}

// newProcess takes the pidfd over.
func newProcess(identity Identity, pidfd int, child bool) (*Process, error) {
	p := &Process{identity: identity, child: child, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), done: make(chan struct{})}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, p.pidfd.Close())
	}
	p.quit = writer
	p.waiting.Go(func() {
		p.await(pidfd, reader)
		reader.Close()
	})
	return p, nil
}

// await reaps the process when it ends. The descriptors are used by number: closing them waits for this goroutine.
func (p *Process) await(pidfd int, quit *os.File) {
	ended, err := unix.PidfdPoll(pidfd, int(quit.Fd()))
	if !ended || err != nil {
		return
	}
	p.reap(pidfd)
	close(p.done)
}

// reap learns how the process ended. One that was adopted may be a child all the same, of another Process of this program: that one reaps it.
func (p *Process) reap(pidfd int) {
	wait := unix.PidfdPeek
	if p.child {
		wait = unix.PidfdWait
	}
	exited, code, signal, err := wait(pidfd)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = Status{Known: err == nil && exited, Code: code, Signal: signal}
}

// Identity returns what is to be written down of the process.
func (p *Process) Identity() Identity { return p.identity }

// Done is closed when the process has ended, and a child has been reaped. It stays open when Close comes first.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end. Any number of callers get the same status.
func (p *Process) Wait(ctx context.Context) (Status, error) {
	select {
	case <-p.done:
	default:
		select {
		case <-p.done:
		case <-ctx.Done():
			return Status{}, context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, nil
}

// Kill sends SIGKILL. It does not wait; a process that has ended is no error.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("kill process %d: %w", p.identity.PID, os.ErrClosed)
	}
	err := unix.PidfdSendSignal(int(p.pidfd.Fd()), syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Close releases the descriptors and the goroutine. The process goes on. It may be called more than once.
func (p *Process) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	err := p.quit.Close()
	p.waiting.Wait()
	if !p.child { // the Process that it was started by may be closed
		unix.PidfdWait(int(p.pidfd.Fd()))
	}
	return errors.Join(err, p.pidfd.Close())
}
