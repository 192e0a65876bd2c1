package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	// reconnectPatience is how long the agent is asked again before it is given up.
	reconnectPatience = 30 * time.Second
	killPatience      = 5 * time.Second
	donePatience      = 5 * time.Second
)

// stream is the host's end of a process: what it has of each direction, over any number of connections.
type stream struct {
	dialer   Dialer
	request  wire.Exec
	patience time.Duration
	detached bool // the end of the context leaves the process alone
	terminal bool // the process has one
	asked    bool // the agent may have the request, and has not refused it

	input  *wire.Buffer // standard input that the agent has not yet taken
	stdout *outlet
	stderr *outlet

	mu   sync.Mutex // for what follows: nobody waits for the agent with it
	link *link      // the present one
	size *wire.TTY  // nil when it was never told

	result chan result
}

type result struct {
	exit wire.Exit
	err  error
}

func newStream(d Dialer, request wire.Exec) *stream {
	return &stream{
		dialer: d, request: request, terminal: request.TTY != nil, size: request.TTY,
		input: wire.NewBuffer(0), stdout: newOutlet(wire.AckStdout, request.Stdout), stderr: newOutlet(wire.AckStderr, request.Stderr), result: make(chan result, 1),
	}
}

// open starts the process and the goroutines that serve its streams. They end with the process, or with ctx.
func (s *stream) open(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	l, err := s.connect(ctx)
	if err != nil {
		if ctx.Err() != nil && s.asked && !s.detached {
			s.abandon(ctx)
		}
		return err
	}
	if s.request.Attach {
		if err := s.begin(l); err != nil {
			l.conn.Close()
			return err
		}
	}
	s.request.Attach, s.request.Kept = true, false
	tell := func(frame []byte) error { return s.current().frame(frame) }
	go s.stdout.write(stdout, tell)
	go s.stderr.write(stderr, tell)
	if stdin != nil {
		go copyInput(s.input, stdin)
	}
	go s.serve(ctx, l)
	return nil
}

// serve reads frames until the process has ended, connecting again whenever the connection breaks. When ctx ends the process is killed, unless it is detached.
func (s *stream) serve(ctx context.Context, l *link) {
	exit, err := s.attached(ctx, l)
	for errors.Is(err, errBroken) && pause(ctx) == nil {
		if l, err = s.connect(ctx); err == nil {
			exit, err = s.attached(ctx, l)
		} else if errors.Is(err, errBroken) {
			break // patience is over
		}
	}
	s.input.Close()
	s.stdout.buffer.End()
	s.stderr.buffer.End()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		if !s.detached && !errors.Is(err, ErrReplaced) {
			s.kill(ctx)
		}
		err = cause
	}
	s.result <- result{exit, err}
}

func (s *stream) current() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// attached serves one connection. The end of ctx ends it, also while the agent does not read.
func (s *stream) attached(ctx context.Context, l *link) (wire.Exit, error) {
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	broken := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { s.send(l, broken) })
	exit, err := s.receive(l.in)
	close(broken)
	if err == nil {
		err = s.written(ctx)
	}
	if err == nil { // all is written, and acknowledged
		l.conn.SetWriteDeadline(time.Now().Add(donePatience))
		l.frame(wire.Append(nil, wire.Done, nil))
	}
	l.conn.Close()
	s.input.Wake()
	sending.Wait()
	return exit, err
}

// send repeats the acknowledgements and the size, as those on the connection before may not have come, and sends standard input from where the agent is.
func (s *stream) send(l *link, broken <-chan struct{}) {
	for _, o := range []*outlet{s.stdout, s.stderr} {
		if passed := o.passed.Load(); passed > 0 {
			l.frame(wire.AppendAck(nil, o.ack, passed))
		}
	}
	s.sendSize(l)
	if !s.request.Stdin {
		return
	}
	stop := func() bool {
		select {
		case <-broken:
			return true
		default:
			return false
		}
	}
	var part []byte
	n := 0
	for offset := l.taken; ; {
		part = wire.NextPart(part, n, 32<<10)
		var err error
		n, err = s.input.ReadAt(part, offset, stop)
		if err == io.EOF && !s.terminal {
			l.frame(wire.Append(nil, wire.StdinEnd, nil))
		}
		if errors.Is(err, wire.ErrOffset) { // no agent asks for what it has, or for what was never sent
			l.conn.Close()
		}
		if err != nil || l.frame(wire.Append(nil, wire.Stdin, part[:n])) != nil {
			return
		}
		offset += uint64(n)
	}
}

// receive takes frames until the process has ended.
func (s *stream) receive(in *bufio.Reader) (wire.Exit, error) {
	frames := wire.NewReader(in)
	for {
		f, err := frames.Read()
		if errors.Is(err, wire.ErrFrame) {
			return wire.Exit{}, fmt.Errorf("%w: %w", ErrAgent, err)
		}
		if err != nil {
			return wire.Exit{}, fmt.Errorf("%w: %w", errBroken, err)
		}
		switch f.Kind {
		case wire.Stdout:
			err = s.stdout.take(f.Payload)
		case wire.Stderr:
			err = s.stderr.take(f.Payload)
		case wire.StdoutEnd:
			s.stdout.buffer.End()
		case wire.StderrEnd:
			s.stderr.buffer.End()
		case wire.AckStdin:
			var offset uint64
			if offset, err = f.Ack(); err == nil {
				err = s.input.Ack(offset)
			}
		case wire.Exited:
			var exit wire.Exit
			if err := json.Unmarshal(f.Payload, &exit); err != nil {
				return exit, fmt.Errorf("%w: %w", ErrAgent, err)
			}
			return exit, nil
		case wire.Replaced:
			return wire.Exit{}, ErrReplaced
		default:
			err = wire.ErrFrame
		}
		if err != nil {
			return wire.Exit{}, fmt.Errorf("%w: %w", ErrAgent, err)
		}
	}
}

// wait waits for the end, and for all output to be written.
func (s *stream) wait(ctx context.Context) (wire.Exit, error) {
	r := <-s.result
	if r.err != nil {
		return r.exit, r.err
	}
	return r.exit, s.written(ctx)
}

// written waits until the caller's writers have all. Nobody can end a Write of theirs; ctx ends the wait for it.
func (s *stream) written(ctx context.Context) error {
	for _, o := range []*outlet{s.stdout, s.stderr} {
		select {
		case <-o.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// kill ends a process whose caller has gone, and has it forgotten, where the agent is not too old for that.
func (s *stream) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	call(ctx, s.dialer, "POST", wire.PathSignal, wire.Signal{ID: s.request.ID, Signal: 9, Forget: s.request.Nonce}, nil)
}

// abandon ends a process that the agent may have started, or may yet start. An agent that is too old to tell it from another of the same ID is not asked.
func (s *stream) abandon(ctx context.Context) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	if require(asking, s.dialer, wire.FeatureForget) == nil {
		s.kill(asking)
	}
}

func (s *stream) signal(ctx context.Context, signal int) error {
	return call(ctx, s.dialer, "POST", wire.PathSignal, wire.Signal{ID: s.request.ID, Signal: signal}, nil)
}
