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
	command, err := resolve(request)
	if err != nil {
		return nil, err
	}
	files, own, err := pipes(request.Stdin)
	if err != nil {
		return nil, err
	}
	started, err := s.children.start(command, files)
	closeAll(files)
	if err != nil {
		closeAll(own)
		return nil, startError(command.path, err)
	}
	p := newProcess(request)
	p.child, p.stdin = started, own[0]
	collectors := []*collector{{pipe: own[1], buffer: p.stdout}, {pipe: own[2], buffer: p.stderr}}
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

// pipes returns the child's three files and our ends of them; our first is nil without standard input.
func pipes(stdin bool) (child, own []*os.File, err error) {
	child, own = make([]*os.File, 3), make([]*os.File, 3)
	defer func() {
		if err != nil {
			closeAll(child)
			closeAll(own)
		}
	}()
	if stdin {
		child[0], own[0], err = os.Pipe()
	} else {
		child[0], err = os.Open(os.DevNull)
	}
	for i := 1; i < 3 && err == nil; i++ {
		own[i], child[i], err = os.Pipe()
	}
	return child, own, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// collector moves a pipe into a buffer. A descendant may hold the pipe open after the process's end; that is part of the stream.
type collector struct {
	pipe   *os.File
	buffer *wire.Buffer
	idle   atomic.Int64 // since when it waits for the pipe, in Unix nanoseconds; 0 while it waits for the host
}

func (c *collector) run() {
	defer c.buffer.End()
	defer c.pipe.Close()
	part := make([]byte, 32<<10)
	for {
		c.idle.Store(time.Now().UnixNano())
		n, err := c.pipe.Read(part)
		c.idle.Store(0)
		if _, dropped := c.buffer.Write(part[:n]); err != nil || dropped != nil {
			return
		}
	}
}

// linger is how long after the process's end a silent descendant may hold its output open.
const linger = 2 * time.Second

// finish waits for the rest of the output, but not for descendants that stay and say nothing.
func finish(collectors []*collector, reading *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { reading.Wait(); close(done) }()
	exited := time.Now()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-look.C:
			for _, c := range collectors {
				idle := c.idle.Load()
				if idle != 0 && now.Sub(exited) > linger && now.UnixNano()-idle > int64(linger) {
					c.pipe.Close()
				}
			}
		}
	}
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
		p.inputEnded = true
		p.input.End()
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
	part := make([]byte, 32<<10)
	for at, broken := uint64(0), false; ; {
		n, err := p.input.ReadAt(part, at, nil)
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
		if a != nil {
			a.frame(wire.AppendAck(nil, wire.AckStdin, at))
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
