//go:build linux

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

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

// Open adopts the process of an identity, or answers ErrGone, ErrMoved or ErrForeign.
func Open(identity Identity) (*Process, error) {
	fd, err := identity.open()
	if err != nil {
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

// Find returns nil for the identity of a process that runs now, ErrGone for one that has ended, also when it is not reaped, and else why that can't be told.
func Find(identity Identity) error {
	fd, err := identity.open()
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	ended, err := unix.PidfdEnded(fd)
	if ended && err == nil {
		return ErrGone
	}
	return err
}

// Runs says whether the process of an identity runs now. It says yes where that can't be told.
func Runs(identity Identity) bool { return !errors.Is(Find(identity), ErrGone) }

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
	if errors.Is(err, syscall.ECHILD) {
		exited, code, signal, err = exitOf(pidfd)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = Status{Known: err == nil && exited, Code: code, Signal: signal}
}

// exitPatience is how long the parent of another's child may take to reap it.
const exitPatience = 20 * time.Millisecond

// exitOf asks the kernel, which knows how another's child ended once that is reaped.
func exitOf(pidfd int) (exited bool, code, signal int, err error) {
	for begin := time.Now(); ; time.Sleep(200 * time.Microsecond) {
		exited, code, signal, err = unix.PidfdExit(pidfd)
		if !errors.Is(err, syscall.ENODATA) || time.Since(begin) > exitPatience {
			return exited, code, signal, err
		}
	}
}

// Identity returns what is to be written down of the process.
func (p *Process) Identity() Identity { return p.identity }

// Done is closed when the process has ended, and a child has been reaped. It stays open when Close comes before that end.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end. Any number of callers get the same status, but that of another's child may become known only later.
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
	if !p.status.Known && !p.closed { // its parent may have reaped it meanwhile
		if exited, code, signal, err := unix.PidfdExit(int(p.pidfd.Fd())); err == nil && exited {
			p.status = Status{Known: true, Code: code, Signal: signal}
		}
	}
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

// Take returns a copy of a descriptor of the process. The copy shares what the process has of it, such as its offset and O_NONBLOCK.
func (p *Process) Take(fd int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return -1, fmt.Errorf("take a descriptor of process %d: %w", p.identity.PID, os.ErrClosed)
	}
	return unix.PidfdGetfd(int(p.pidfd.Fd()), fd)
}

// closeDone tells an end that came just before Close, and that the goroutine has not seen.
func (p *Process) closeDone() {
	select {
	case <-p.done:
		return
	default:
	}
	if ended, err := unix.PidfdEnded(int(p.pidfd.Fd())); ended && err == nil {
		p.reap(int(p.pidfd.Fd()))
		close(p.done)
	}
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
	p.closeDone()
	if !p.child { // the Process that it was started by may be closed
		unix.PidfdWait(int(p.pidfd.Fd()))
	}
	return errors.Join(err, p.pidfd.Close())
}
