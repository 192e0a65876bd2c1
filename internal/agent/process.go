//go:build linux

package agent

import (
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// process is one command, from its start until the host has all of it.
type process struct {
	id, nonce      string
	detached       bool
	argv           []string // what is told of it
	argvCut        bool
	started        time.Duration // on the boot clock
	child          *child
	stdout, stderr *wire.Buffer
	input          *wire.Buffer // standard input that the process has not read yet
	stdin          *os.File     // nil when it has none
	terminal       bool         // stdin is our side of a terminal: it is output too, and has no end

	mu         sync.Mutex
	received   uint64 // bytes of standard input that have come
	inputEnded bool
	read       uint64 // bytes of standard input that the process has read, or that were dropped
	attached   *attachment
	exit       wire.Exit
	ended      time.Time
	exited     chan struct{} // closed when exit is there

	abandoned bool // guarded by the server: forgotten when it has ended

	life     sync.RWMutex // held while a signal is sent: so long the child is not reaped
	reaped   bool
	timedOut atomic.Bool
}

// start starts a command. Its output is collected from then on, whether or not anybody is attached.
func (s *Server) start(request *wire.Exec) (*process, error) {
	command, err := resolve(request, s.env.list())
	if err != nil {
		return nil, err
	}
	f, err := openFiles(request, command.credential)
	if err != nil {
		return nil, err
	}
	started, err := s.children.start(command, f.theirs[:], f.terminal)
	if err != nil {
		f.close()
		return nil, startError(command.path, err)
	}
	f.started(started)
	p := newProcess(request)
	p.child, p.stdin, p.terminal = started, f.stdin, f.terminal
	collectors := []*collector{newCollector(f.stdout, f.terminal, p.stdout)}
	if f.stderr != nil {
		collectors = append(collectors, newCollector(f.stderr, false, p.stderr))
	} else {
		p.stderr.End()
	}
	var reading sync.WaitGroup
	for _, c := range collectors {
		reading.Go(c.run)
	}
	if p.stdin != nil {
		s.work.Go(p.feed)
	}
	s.work.Go(func() { s.await(p, collectors, &reading) })
	if request.Timeout > 0 {
		const longest = math.MaxInt64 / int64(time.Millisecond)
		timer := time.AfterFunc(time.Duration(min(request.Timeout, longest))*time.Millisecond, p.timeout)
		s.work.Go(func() { <-p.exited; timer.Stop() })
	}
	return p, nil
}

func newProcess(request *wire.Exec) *process {
	p := &process{
		id: request.ID, nonce: request.Nonce, detached: request.Detached, started: bootClock(), exited: make(chan struct{}),
		stdout: wire.NewBuffer(0), stderr: wire.NewBuffer(0), input: wire.NewBuffer(0),
	}
	p.argv, p.argvCut = cutArgv(request.Argv)
	return p
}

// await waits for the process, then for its output.
func (s *Server) await(p *process, collectors []*collector, reading *sync.WaitGroup) {
	<-p.child.ended
	finish(collectors, reading)
	p.life.Lock()
	status, usage := s.children.collect(p.child)
	p.reaped = true
	p.life.Unlock()
	p.mu.Lock()
	p.exit = wire.Exit{TimedOut: p.timedOut.Load(), Usage: usageOf(&usage)}
	if status.Signaled() {
		p.exit.Signal = int(status.Signal())
	} else {
		p.exit.Code = status.ExitStatus()
	}
	p.ended = time.Now()
	p.mu.Unlock()
	close(p.exited)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.abandoned {
		delete(s.processes, p.id)
	}
}

// timeout kills the session. A process that ended before, and whose descendants alone go on, has not timed out.
func (p *process) timeout() {
	select {
	case <-p.child.ended:
	default:
		p.timedOut.Store(true)
	}
	p.signal(syscall.SIGKILL)
}

// signal signals the process group that the process leads; SIGKILL goes to its whole session, whatever groups are in it. Both numbers are its own until it is reaped,
// which is when it and all of its output have ended: then there is nothing to signal.
func (p *process) signal(signal syscall.Signal) error {
	p.life.RLock()
	defer p.life.RUnlock()
	if p.reaped {
		return nil
	}
	if signal == syscall.SIGKILL {
		return killSession(p.child.pid)
	}
	if err := syscall.Kill(-p.child.pid, signal); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// attachedTo says whether a is the process's connection, and no newer one.
func (p *process) attachedTo(a *attachment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attached == a
}

// left is called when an attachment has ended.
func (p *process) left(a *attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attached == a {
		p.attached = nil
	}
}

// take takes a frame from the connection that is attached, and from no older one. It never waits: a host that sends more than the window is cut off.
func (p *process) take(from *attachment, f wire.Frame) (good bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attached != from {
		return false
	}
	switch f.Kind {
	case wire.Stdin:
		if p.stdin == nil || p.inputEnded || !p.input.Fits(len(f.Payload)) {
			return false
		}
		p.input.Write(f.Payload)
		p.received += uint64(len(f.Payload))
		return true
	case wire.StdinEnd:
		if !p.terminal { // of which another host may go on with the input
			p.inputEnded = true
			p.input.End()
		}
		return true
	case wire.Resize:
		size, err := f.Size()
		if err != nil || !p.terminal {
			return false
		}
		resize(p.stdin, size) // to no effect when the process has ended: a host that connects again repeats the size
		return true
	case wire.AckStdout:
		return ack(p.stdout, f) == nil
	case wire.AckStderr:
		return ack(p.stderr, f) == nil
	}
	return false
}

func ack(buffer *wire.Buffer, f wire.Frame) error {
	offset, err := f.Ack()
	if err != nil {
		return err
	}
	return buffer.Ack(offset)
}

// feed moves standard input to the process, as fast as it reads, and tells the host how far it has come.
func (p *process) feed() {
	defer p.stdin.Close()
	var part []byte
	n, broken := 0, false
	for at, told := uint64(0), uint64(0); ; {
		part = wire.NextPart(part, n, maxPart)
		var err error
		n, err = p.input.ReadAt(part, at, nil)
		if err != nil {
			return
		}
		if !broken { // when nobody reads any more the rest is dropped, as a shell's pipe would
			_, err = p.stdin.Write(part[:n])
			broken = err != nil
		}
		at += uint64(n)
		p.input.Ack(at)
		p.mu.Lock()
		a := p.attached
		p.read = at
		p.mu.Unlock()
		if a != nil && at-told >= wire.Window/4 { // long before the host waits for it; who types need not hear of each key
			a.frame(wire.AppendAck(nil, wire.AckStdin, at))
			told = at
		}
	}
}

// release lets everything of the process go: what it still writes is dropped.
func (p *process) release() {
	p.input.Close()
	if p.stdin != nil {
		p.stdin.Close() // ends a write that waits
	}
	p.stdout.Close()
	p.stderr.Close()
}
