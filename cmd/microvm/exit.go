//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const (
	exitUsage    = 2
	exitFailed   = 125 // as docker and podman
	exitSignaled = 128 // and the signal's number, as shells do
)

// status is a verb that worked and has a status of the guest's to exit with.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a wrong command line.
type usageError struct{ error }

// interrupted is the end of a context by a signal.
type interrupted struct{ os.Signal }

func (i interrupted) Error() string { return "ended by signal: " + i.String() }

// Is makes it what a context's end is to everybody else.
func (i interrupted) Is(target error) bool { return target == context.Canceled }

// untilSignal returns a context that ends with the first of the signals, which is its cause.
func untilSignal(ctx context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	got := make(chan os.Signal, 1)
	signal.Notify(got, signals...)
	go func() {
		select {
		case s := <-got:
			cancel(interrupted{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		cancel(nil)
	}
}

// exitCode returns the status to exit with, and prints what went wrong: all but the guest's own status.
func exitCode(ctx context.Context, err error) int {
	if words := besideStatus(err); words != nil {
		fmt.Fprintln(os.Stderr, "microvm:", words)
	}
	guest, wrong, by := status(0), usageError{}, interrupted{}
	switch {
	case err == nil:
		return 0
	case errors.As(err, &guest):
		return int(guest)
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(context.Cause(ctx), &by):
		if number, ok := by.Signal.(syscall.Signal); ok {
			return exitSignaled + int(number)
		}
	}
	return exitFailed
}

// besideStatus returns what an error says beside a guest's status: nil where that is all.
func besideStatus(err error) error {
	if _, ok := err.(status); ok {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if guest := status(0); !ok || !errors.As(err, &guest) {
		return err
	}
	var rest []error
	for _, one := range joined.Unwrap() {
		rest = append(rest, besideStatus(one))
	}
	return errors.Join(rest...)
}
