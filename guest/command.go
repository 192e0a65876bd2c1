package guest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Cmd is one command, like exec.Cmd. It is used once.
type Cmd struct {
	// ID is the command's name in the machine, by which [Attach] and [List] know it: 1 to 64 of a–z, A–Z, 0–9. Optional: Start makes a random one.
	ID string

	Args []string // The program, looked for in the guest's PATH, and its arguments.
	Env  []string // NAME=VALUE, over the agent's defaults: PATH, HOME, USER, LOGNAME, TERM. Optional.
	Dir  string   // Optional: the user's home, else "/".
	User string   // NAME, UID, or either with :GROUP or :GID. Optional: root.

	Stdin  io.Reader // Optional: empty.
	Stdout io.Writer // Optional: dropped.
	Stderr io.Writer // Optional: dropped.

	// Timeout kills the command, with all of its session, after so long; parts of a millisecond are rounded up. The guest keeps it, so it holds also when this process
	// is gone. Optional: none.
	Timeout time.Duration

	// TTY gives the command a terminal with a window of that size, which controls its session: what it says comes to Stdout, and Stderr gets nothing. The end of
	// Stdin is not told to it: send what ends input on a terminal, byte 4. Optional: none.
	TTY *TTY

	// Detached has Start only start the command, which nothing but its own end, Timeout or Signal ends: not the end of the context or of this process. Its streams
	// are left to whoever calls Attach: Stdin, Stdout and Stderr must be nil. The agent keeps the first 256 KiB of each output; a command that writes more waits until
	// somebody attaches. When it has ended it is kept until somebody has waited for it, or the agent has no room. Its standard input is
	// empty, but for that of a terminal, which whoever attaches may go on with.
	Detached bool

	// From is where the output of a command that was attached to begins. Optional: see [Attach]. Start sets it.
	From *Offsets

	// Exit is how the command ended: set by Wait.
	Exit *Exit

	dialer   Dialer
	attach   bool          // by Attach
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

// Run starts the command and waits for its end: nil for status 0, *[ExitError] for any other end, ErrNotFound for a program that is not there.
func (c *Cmd) Run(ctx context.Context) error {
	if c.left() {
		return errDetached
	}
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

// Start starts the command. When ctx ends it is killed, and Wait returns ctx's cause; one that is detached is left alone. ErrExists when another has the ID.
func (c *Cmd) Start(ctx context.Context) error {
	if c.stream != nil {
		return errors.New("guest: already started")
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	c.ctx = ctx
	if err := c.start(ctx); err != nil {
		c.closeAll()
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

func (c *Cmd) start(ctx context.Context) error {
	request, features := c.attachRequest(), []string{wire.FeatureAttach}
	if !c.attach {
		request, features = c.execRequest()
	}
	c.ID = request.ID
	c.stream = newStream(c.dialer, request)
	c.stream.patience = cmp.Or(c.patience, reconnectPatience)
	c.stream.detached = c.Detached
	if len(features) > 0 {
		if err := c.require(ctx, features...); err != nil {
			return err
		}
	}
	if c.left() {
		return c.leave(ctx)
	}
	if err := c.stream.open(ctx, c.Stdin, c.Stdout, c.Stderr); err != nil {
		return err
	}
	c.From = &Offsets{c.stream.stdout.begin, c.stream.stderr.begin}
	return nil
}

// execRequest is what Start asks for to start the command, and what the agent must have for it.
func (c *Cmd) execRequest() (request wire.Exec, features []string) {
	if c.ID != "" {
		features = append(features, wire.FeatureNonce)
	}
	if c.Detached {
		features = append(features, wire.FeatureDetached)
	}
	request = wire.Exec{
		ID: cmp.Or(c.ID, rand.Text()), Nonce: rand.Text(), Argv: c.Args, Env: c.Env, Dir: c.Dir, User: c.User, Stdin: c.Stdin != nil, Timeout: milliseconds(c.Timeout),
	}
	if c.TTY != nil {
		request.TTY = c.TTY.wire()
		features = append(features, wire.FeatureTTY)
	}
	return request, features
}

// left says that the command is started, and its streams are left to whoever attaches.
func (c *Cmd) left() bool { return c.Detached && !c.attach }

// String returns `exec "name"`, or "attach id".
func (c *Cmd) String() string {
	switch {
	case c.attach:
		return "attach " + c.ID
	case len(c.Args) > 0:
		return fmt.Sprintf("exec %q", c.Args[0])
	}
	return "exec"
}

// Wait waits for the end of a started command, and for all of its output. Then Exit is set, and the agent forgets the command.
func (c *Cmd) Wait() error {
	switch {
	case c.stream == nil:
		return errors.New("guest: not started")
	case c.left():
		return errDetached
	case c.waited:
		return errors.New("guest: Wait was already called")
	}
	c.waited = true
	exit, err := c.stream.wait(c.ctx)
	c.closeAll()
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	c.Exit = exitOf(exit)
	if !c.Exit.Success() {
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
