//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestExitCode(t *testing.T) {
	broken := errors.New("destroy one: it is broken")
	for name, row := range map[string]struct {
		err    error
		signal os.Signal
		code   int
		says   string
	}{
		"none":                    {nil, nil, 0, ""},
		"none after a signal":     {nil, os.Interrupt, 0, ""},
		"a guest's status":        {status(7), nil, 7, ""},
		"after a signal":          {status(137), os.Interrupt, 137, ""},
		"a status and a failure":  {errors.Join(status(7), broken), nil, 7, "microvm: destroy one: it is broken\n"},
		"a status and success":    {errors.Join(status(7), nil), nil, 7, ""},
		"deeper":                  {errors.Join(broken, errors.Join(status(7), io.EOF)), nil, 7, "microvm: destroy one: it is broken\nEOF\n"},
		"a failure":               {broken, nil, 125, "microvm: destroy one: it is broken\n"},
		"two failures":            {errors.Join(broken, io.EOF), nil, 125, "microvm: destroy one: it is broken\nEOF\n"},
		"a wrong command line":    {usageError{io.EOF}, nil, 2, "microvm: EOF\n"},
		"a failure after SIGINT":  {fmt.Errorf("wait: %w", context.Canceled), os.Interrupt, 130, "microvm: wait: context canceled\n"},
		"a failure after SIGTERM": {fmt.Errorf("wait: %w", interrupted{syscall.SIGTERM}), syscall.SIGTERM, 143, "microvm: wait: ended by signal: terminated\n"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if row.signal != nil {
			cancel(interrupted{row.signal})
		}
		var code int
		if said := stderr(t, func() { code = exitCode(ctx, row.err) }); code != row.code || said != row.says {
			t.Errorf("%s: %d and %q, want %d and %q", name, code, said, row.code, row.says)
		}
		cancel(nil)
	}
}

// stderr returns what a call writes to standard error.
func stderr(t *testing.T, call func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mine := os.Stderr
	os.Stderr = w
	call()
	os.Stderr = mine
	w.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestUntilSignal: what ends by a signal is ended like any context, and says by which.
func TestUntilSignal(t *testing.T) {
	ctx, stop := untilSignal(t.Context(), syscall.SIGUSR1)
	defer stop()
	if err := ctx.Err(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	cause := context.Cause(ctx)
	if by := (interrupted{}); !errors.As(cause, &by) || by.Signal != syscall.SIGUSR1 || !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
	if !strings.Contains(cause.Error(), "user defined signal 1") {
		t.Errorf("the cause says %q", cause)
	}
}
