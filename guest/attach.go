package guest

import (
	"context"
	"errors"
	"fmt"
	"io"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Offsets say how far a command's output was read, in bytes since the command began.
type Offsets struct {
	Stdout, Stderr uint64
}

// Attach returns a Cmd for the command in the machine whose Cmd.ID was id: it runs, or has ended and nobody has waited for it. Any process may have started it, also one
// that is no more.
//
// Set Stdout, Stderr and Stdin, and call Start, Run, Output or Wait as for a new command; what says how to start one is ignored. Stdin goes on behind what has come
// already. TTY, where the command has a terminal, is the size of the caller's. Output begins at From: without it with the oldest that no earlier caller's writers had, of which at most 256 KiB are kept. Whoever was attached before gets
// ErrReplaced. Detached is set, so the end of the context leaves the command alone; when Wait returns its end, the agent forgets it.
//
// Start returns ErrNotFound when there is no such command, and [ErrGone] when what From asks for is not kept any more.
func Attach(d Dialer, id string) *Cmd {
	return &Cmd{ID: id, Detached: true, dialer: d, attach: true}
}

// Offsets returns how much of its output the writers of a started command have, counted from the command's beginning. A caller who notes them can go on from there
// after a crash, by Attach and From, without a byte lost or doubled.
func (c *Cmd) Offsets() Offsets {
	switch {
	case c.stream != nil:
		return Offsets{c.stream.stdout.passed.Load(), c.stream.stderr.passed.Load()}
	case c.From != nil:
		return *c.From
	}
	return Offsets{}
}

// attachRequest is what Start asks for to attach.
func (c *Cmd) attachRequest() wire.Exec {
	request := wire.Exec{ID: c.ID, Attach: true, Stdin: c.Stdin != nil, Kept: c.From == nil}
	if c.TTY != nil {
		request.TTY = c.TTY.wire()
	}
	if c.From != nil {
		request.Stdout, request.Stderr = c.From.Stdout, c.From.Stderr
	}
	return request
}

// begin makes the streams begin where the agent says, after the first connection to a process of somebody else's.
func (s *stream) begin(l *link) error {
	if l.told == nil {
		return fmt.Errorf("%w: no header %s", ErrAgent, wire.HeaderAttached)
	}
	if s.request.Stdin && !l.told.StdinOpen {
		return fmt.Errorf("%w: the command has no standard input, or its end has come", microvm.ErrInvalid)
	}
	s.terminal = l.told.TTY
	s.input = wire.NewBuffer(l.taken)
	s.stdout, s.stderr = newOutlet(wire.AckStdout, l.told.Stdout), newOutlet(wire.AckStderr, l.told.Stderr)
	return nil
}

// leave starts a detached command.
func (c *Cmd) leave(ctx context.Context) error {
	c.stream.request.Detached = true
	_, err := persist(ctx, c.stream.patience, func() (wire.Started, error) {
		var started wire.Started
		err := call(ctx, c.dialer, "POST", wire.PathExec, &c.stream.request, &started)
		return started, err
	})
	return err
}

// errDetached is what the methods of a command say whose streams nobody has.
var errDetached = errors.New("guest: the command is detached (use Attach)")

// unattached refuses streams of a command that is only started.
func (c *Cmd) unattached() error {
	for field, set := range map[string]bool{"Cmd.Stdin": c.Stdin != nil, "Cmd.Stdout": c.Stdout != nil, "Cmd.Stderr": c.Stderr != nil} {
		if set {
			return &microvm.FieldError{Field: field, Value: "", Reason: "must be nil where Detached is set (use Attach)"}
		}
	}
	return nil
}

// require returns ErrUnsupported when the agent lacks one of the features.
func (c *Cmd) require(ctx context.Context, features ...string) error {
	_, err := persist(ctx, c.stream.patience, func() (struct{}, error) {
		return struct{}{}, require(ctx, c.dialer, features...)
	})
	return err
}

// copyInput moves the caller's input into the window, until its end or the command's.
func copyInput(window *wire.Buffer, stdin io.Reader) {
	io.Copy(struct{ io.Writer }{window}, stdin)
	window.End()
}
