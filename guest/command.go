package guest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Cmd is one command, like exec.Cmd. It is used once.
type Cmd struct {
	Args []string // The program, looked for in the guest's PATH, and its arguments.
	Env  []string // NAME=VALUE, over the agent's defaults: PATH, HOME, USER, LOGNAME, TERM. Optional.
	Dir  string   // Optional: the user's home, else "/".
	User string   // NAME, UID, or either with :GROUP or :GID. Optional: root.

	Stdin  io.Reader // Optional: empty.
	Stdout io.Writer // Optional: dropped.
	Stderr io.Writer // Optional: dropped.

	// Timeout kills the command, with all of its session, after so long; parts of a millisecond are rounded up. The guest keeps it, so it holds also when this process is gone. Optional: none.
	Timeout time.Duration

	dialer   Dialer
	patience time.Duration // 0 is reconnectPatience
	stream   *stream
	closes   []io.Closer // our ends of pipes, closed when the command has ended
	ctx      context.Context
	waited   bool
}

// Command returns a Cmd that executes name in the machine.
func Command(d Dialer, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), dialer: d}
}

// ExitError is a command that ended otherwise than with status 0.
type ExitError struct {
	Code     int    // The exit status, when Signal is 0.
	Signal   int    // The signal that ended it.
	TimedOut bool   // Cmd.Timeout was over.
	Stderr   []byte // The end of standard error, from [Cmd.Output] only.
}

// Error returns "exit status 3" or "signal: killed".
func (e *ExitError) Error() string {
	switch {
	case e.TimedOut && e.Signal == 0:
		return "timed out: exit status " + strconv.Itoa(e.Code)
	case e.TimedOut:
		return "timed out: " + syscall.Signal(e.Signal).String()
	case e.Signal != 0:
		return "signal: " + syscall.Signal(e.Signal).String()
	}
	return "exit status " + strconv.Itoa(e.Code)
}

// Run starts the command and waits for its end: nil for status 0, *[ExitError] for any other end, ErrNotFound for a program that is not there.
func (c *Cmd) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output.
func (c *Cmd) Output(ctx context.Context) ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("guest: Stdout is already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	var last *lastBytes
	if c.Stderr == nil {
		last = &lastBytes{}
		c.Stderr = last
	}
	err := c.Run(ctx)
	if exit := (*ExitError)(nil); errors.As(err, &exit) && last != nil {
		exit.Stderr = last.kept
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns its standard output and standard error, in the order of their arrival.
func (c *Cmd) CombinedOutput(ctx context.Context) ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("guest: Stdout or Stderr is already set")
	}
	both := &syncBuffer{}
	c.Stdout, c.Stderr = both, both
	err := c.Run(ctx)
	return both.b.Bytes(), err
}

// Start starts the command. When ctx ends it is killed, and Wait returns ctx's cause.
func (c *Cmd) Start(ctx context.Context) error {
	if c.stream != nil {
		return errors.New("guest: already started")
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	c.ctx = ctx
	c.stream = newStream(c.dialer, wire.Exec{
		ID: rand.Text(), Argv: c.Args, Env: c.Env, Dir: c.Dir, User: c.User, Stdin: c.Stdin != nil, Timeout: milliseconds(c.Timeout),
	})
	c.stream.patience = cmp.Or(c.patience, reconnectPatience)
	if err := c.stream.open(ctx, c.Stdin, c.Stdout, c.Stderr); err != nil {
		c.closeAll()
		return fmt.Errorf("exec %q: %w", c.Args[0], err)
	}
	return nil
}

// Wait waits for the end of a started command, and for all of its output.
func (c *Cmd) Wait() error {
	if c.stream == nil {
		return errors.New("guest: not started")
	}
	if c.waited {
		return errors.New("guest: Wait was already called")
	}
	c.waited = true
	exit, err := c.stream.wait(c.ctx)
	c.closeAll()
	if err != nil {
		return fmt.Errorf("exec %q: %w", c.Args[0], err)
	}
	if exit.Code != 0 || exit.Signal != 0 || exit.TimedOut {
		return &ExitError{Code: exit.Code, Signal: exit.Signal, TimedOut: exit.TimedOut}
	}
	return nil
}

// Signal signals the command's process group: the command and what it has started, but for jobs that a shell put into groups of their own. SIGKILL kills all of the
// command's session, whatever groups are in it, and returns when none of it is left. A process that made a session of its own (setsid(2)) is in neither.
func (c *Cmd) Signal(ctx context.Context, signal syscall.Signal) error {
	if c.stream == nil {
		return errors.New("guest: not started")
	}
	return c.stream.signal(ctx, int(signal))
}

// StdinPipe returns a writer to the command's standard input. Closing it is the input's end.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.stream != nil {
		return nil, errors.New("guest: Stdin is already set, or the command is started")
	}
	r, w := io.Pipe()
	c.Stdin = r
	c.closes = append(c.closes, r)
	return w, nil
}

// StdoutPipe returns a reader of the command's standard output, which ends with it. Read it to its end before Wait.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stdout) }

// StderrPipe returns a reader of the command's standard error, which ends with it. Read it to its end before Wait.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stderr) }

func (c *Cmd) outputPipe(to *io.Writer) (io.ReadCloser, error) {
	if *to != nil || c.stream != nil {
		return nil, errors.New("guest: the stream is already set, or the command is started")
	}
	r, w := io.Pipe()
	*to = outputPipe{w}
	return r, nil
}

// outputPipe is a writer that is ours to close.
type outputPipe struct{ *io.PipeWriter }

func (c *Cmd) closeAll() {
	for _, closer := range c.closes {
		closer.Close()
	}
	for _, w := range []io.Writer{c.Stdout, c.Stderr} {
		if pipe, ok := w.(outputPipe); ok {
			pipe.Close()
		}
	}
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct{ kept []byte }

func (l *lastBytes) Write(p []byte) (int, error) {
	const most = 32 << 10
	l.kept = append(l.kept, p...)
	if len(l.kept) > most {
		l.kept = append(l.kept[:0:0], l.kept[len(l.kept)-most:]...)
	}
	return len(p), nil
}

// syncBuffer is written by both streams.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
