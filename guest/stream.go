package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	// reconnectPatience is how long a broken stream is tried again before it is given up.
	reconnectPatience = 30 * time.Second
	killPatience      = 5 * time.Second
)

// stream is the host's end of a process: what it has of each direction, over any number of connections.
type stream struct {
	dialer  Dialer
	request wire.Exec

	input  *wire.Buffer // standard input that the agent has not yet taken
	stdout *outlet
	stderr *outlet

	mu   sync.Mutex
	conn net.Conn // the present one
	out  *bufio.Writer

	result chan result
}

type result struct {
	exit wire.Exit
	err  error
}

// outlet hands one direction to the caller's writer. What has come and is not yet written is bounded by the window that the agent keeps.
type outlet struct {
	buffer *wire.Buffer
	got    uint64        // bytes that have come
	passed atomic.Uint64 // bytes that the caller's writer has
	ack    wire.Kind
	done   chan struct{} // all is written
}

func newOutlet(ack wire.Kind) *outlet {
	return &outlet{buffer: wire.NewBuffer(), ack: ack, done: make(chan struct{})}
}

func newStream(d Dialer, request wire.Exec) *stream {
	return &stream{dialer: d, request: request, input: wire.NewBuffer(), stdout: newOutlet(wire.AckStdout), stderr: newOutlet(wire.AckStderr), result: make(chan result, 1)}
}

// open starts the process and the goroutines that serve its streams. They end with the process, or with ctx.
func (s *stream) open(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	in, taken, err := s.connect(ctx)
	for errors.Is(err, errBroken) { // the agent may have started it: the same id finds it again
		if err = s.again(ctx, err); err == nil {
			in, taken, err = s.connect(ctx)
		}
	}
	if err != nil {
		return err
	}
	s.request.Attach = true
	go s.write(ctx, s.stdout, stdout)
	go s.write(ctx, s.stderr, stderr)
	if stdin != nil {
		go func() {
			io.Copy(struct{ io.Writer }{s.input}, stdin)
			s.input.End()
		}()
	}
	go s.serve(ctx, in, taken)
	return nil
}

// errBroken is a connection that ended before its answer.
var errBroken = errors.New("the connection broke")

// connect makes a connection, and attaches from where each stream is.
func (s *stream) connect(ctx context.Context) (*bufio.Reader, uint64, error) {
	s.request.Stdout, s.request.Stderr = s.stdout.got, s.stderr.got
	conn, in, response, err := request(ctx, s.dialer, "POST", wire.PathExec, &s.request, wire.Upgrade)
	if err != nil {
		if ctx.Err() == nil && !final(err) {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		return nil, 0, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(response.Body, wire.MaxBody))
		conn.Close()
		return nil, 0, refused(response.StatusCode, text)
	}
	taken, err := strconv.ParseUint(response.Header.Get(wire.HeaderStdin), 10, 64)
	if err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("%w: %w", ErrAgent, err)
	}
	s.mu.Lock()
	s.conn, s.out = conn, bufio.NewWriterSize(conn, 64<<10)
	s.mu.Unlock()
	return in, taken, nil
}

// final says that trying again is of no use: the machine is gone, or was never there.
func final(err error) bool {
	for _, sentinel := range []error{microvm.ErrExited, microvm.ErrState, microvm.ErrNotFound, microvm.ErrClosed, microvm.ErrUnsupported, ErrAgent} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// serve reads frames until the process has ended, connecting again whenever the connection breaks.
func (s *stream) serve(ctx context.Context, in *bufio.Reader, taken uint64) {
	stop := context.AfterFunc(ctx, func() { s.current().Close() })
	defer stop()
	exit, err := s.attached(ctx, in, taken)
	for broken := time.Now(); errors.Is(err, errBroken) && ctx.Err() == nil; {
		if time.Since(broken) > reconnectPatience {
			break
		}
		if s.again(ctx, err) != nil {
			break
		}
		in, taken, err = s.connect(ctx)
		if err == nil {
			exit, err = s.attached(ctx, in, taken)
			broken = time.Now()
		}
	}
	s.stdout.buffer.End()
	s.stderr.buffer.End()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		s.input.Close()
	}
	s.result <- result{exit, err}
}

// again waits before the next attempt; it is not worth one when ctx has ended.
func (s *stream) again(ctx context.Context, err error) error {
	const pause = 20 * time.Millisecond
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

func (s *stream) current() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// attached serves one connection.
func (s *stream) attached(ctx context.Context, in *bufio.Reader, taken uint64) (wire.Exit, error) {
	conn := s.current()
	broken := make(chan struct{})
	for _, o := range []*outlet{s.stdout, s.stderr} { // what was said on the connection before may not have come
		s.frame(conn, wire.AppendAck(nil, o.ack, o.passed.Load()))
	}
	var sending sync.WaitGroup
	sending.Go(func() { s.send(conn, taken, broken) })
	exit, err := s.receive(in)
	close(broken)
	if err == nil {
		err = s.written(ctx) // acknowledge all before Done
		s.frame(conn, wire.Append(nil, wire.Done, nil))
	}
	conn.Close()
	s.input.Wake()
	sending.Wait()
	return exit, err
}

// send sends standard input from an offset on.
func (s *stream) send(conn net.Conn, offset uint64, broken <-chan struct{}) {
	stop := func() bool {
		select {
		case <-broken:
			return true
		default:
			return false
		}
	}
	if !s.request.Stdin {
		return
	}
	part := make([]byte, 32<<10)
	for {
		n, err := s.input.ReadAt(part, offset, stop)
		if err == io.EOF {
			s.frame(conn, wire.Append(nil, wire.StdinEnd, nil))
		}
		if errors.Is(err, wire.ErrOffset) { // no agent asks for what it has, or for what was never sent
			conn.Close()
		}
		if err != nil || s.frame(conn, wire.Append(nil, wire.Stdin, part[:n])) != nil {
			return
		}
		offset += uint64(n)
	}
}

// frame writes to a connection, if it is still the present one.
func (s *stream) frame(conn net.Conn, frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn != nil && conn != s.conn {
		return errBroken
	}
	if _, err := s.out.Write(frame); err != nil {
		return err
	}
	return s.out.Flush()
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
		default:
			err = wire.ErrFrame
		}
		if err != nil {
			return wire.Exit{}, fmt.Errorf("%w: %w", ErrAgent, err)
		}
	}
}

// take takes what came. An agent that sends more than the window is none.
func (o *outlet) take(data []byte) error {
	if !o.buffer.Fits(len(data)) {
		return errors.New("more than the window was sent")
	}
	n, err := o.buffer.Write(data)
	o.got += uint64(n)
	return err
}

// write hands one direction to the caller's writer, and tells the agent how far it has come. A writer that fails gets no more, and the process is not held up by it.
func (s *stream) write(ctx context.Context, o *outlet, to io.Writer) {
	defer close(o.done)
	if pipe, ok := to.(outputPipe); ok {
		defer pipe.Close()
	}
	if to == nil {
		to = io.Discard
	}
	part := make([]byte, 64<<10)
	for offset := uint64(0); ; {
		n, err := o.buffer.ReadAt(part, offset, nil)
		if err != nil {
			return
		}
		if _, err := to.Write(part[:n]); err != nil {
			to = io.Discard
		}
		offset += uint64(n)
		o.buffer.Ack(offset)
		o.passed.Store(offset)
		s.frame(nil, wire.AppendAck(nil, o.ack, offset))
	}
}

// wait waits for the end, and for all output to be written. When ctx ends the process is killed.
func (s *stream) wait(ctx context.Context) (wire.Exit, error) {
	r := <-s.result
	if context.Cause(ctx) != nil && r.err != nil {
		s.kill(ctx)
		return r.exit, r.err
	}
	return r.exit, errors.Join(r.err, s.written(ctx))
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

// kill ends a process whose caller has gone.
func (s *stream) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	s.signal(ctx, 9)
}

func (s *stream) signal(ctx context.Context, signal int) error {
	return call(ctx, s.dialer, "POST", wire.PathSignal, wire.Signal{ID: s.request.ID, Signal: signal}, nil)
}
