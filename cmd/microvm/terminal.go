//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/tangle-network/microvm-runtime/guest"
)

// A window that nobody sees.
const defaultRows, defaultCols = 24, 80

// onTerminal runs a command that has a terminal. Where standard input is one too, and is passed on, it is the guest's: every key, also Ctrl-C, goes there.
func (f *execFlags) onTerminal(ctx context.Context, c *guest.Cmd) (err error) {
	c.Stderr = nil
	c.TTY = &guest.TTY{Rows: defaultRows, Cols: defaultCols}
	fd := int(os.Stdin.Fd())
	if !f.stdin || !term.IsTerminal(fd) {
		return result(passSignals(ctx, c, nil))
	}
	if cols, rows, err := term.GetSize(fd); err == nil && rows > 0 && cols > 0 {
		c.TTY = &guest.TTY{Rows: rows, Cols: cols}
	}
	if kind := os.Getenv("TERM"); kind != "" {
		c.Env = append([]string{"TERM=" + kind}, c.Env...)
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, term.Restore(fd, before)) }()
	return result(passSignals(ctx, c, func(ctx context.Context) func() { return followSize(ctx, c, fd) }))
}

// followSize tells the guest of each new size of the window.
func followSize(ctx context.Context, c *guest.Cmd, fd int) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-changed:
				if cols, rows, err := term.GetSize(fd); err == nil {
					c.Resize(ctx, rows, cols) // the next one tells it too
				}
			case <-over:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(over)
		<-done
	}
}
