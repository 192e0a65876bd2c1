//go:build linux

// Package flock waits for locks on files, which keep apart all goroutines and processes of the host (flock(2)).
//
// There are only three locks: [Lock] for one holder, [Share] for many that keep a Lock out, and [Dir], a Lock on a directory itself. Each returns the locked file, and closing
// it gives the lock back; the kernel does that for a process that ends. [Current] is how they know that they have the right file.
//
// # Caveats
//
// Waiters are not served in the order that they came. They poll: a thread that waits in the kernel could not be left when a context ends.
//
// A path may come to mean another file while it is waited for: a lock is returned only on the file that the path leads to at that time. So a file may be removed by who
// holds its lock.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// A waiter looks again after a pause that doubles from the one to the other: most locks are held for microseconds, some while gigabytes are copied.
const (
	firstPause   = 100 * time.Microsecond
	longestPause = 20 * time.Millisecond
)

// Lock waits for the lock of the file at path, which it makes when it is missing. What is written to the file is appended. When ctx ends it answers microvm.ErrBusy with the cause.
func Lock(ctx context.Context, path string) (*os.File, error) {
	return wait(ctx, path, os.O_RDWR|os.O_APPEND|os.O_CREATE, syscall.LOCK_EX)
}

// Share is Lock for holders that don't mind each other.
func Share(ctx context.Context, path string) (*os.File, error) {
	return wait(ctx, path, os.O_RDWR|os.O_APPEND|os.O_CREATE, syscall.LOCK_SH)
}

// Dir is Lock for a directory, which must be there.
func Dir(ctx context.Context, path string) (*os.File, error) {
	return wait(ctx, path, os.O_RDONLY|syscall.O_DIRECTORY, syscall.LOCK_EX)
}

func wait(ctx context.Context, path string, flags, how int) (*os.File, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		f, err := try(path, flags, how)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: lock %s: %w", microvm.ErrBusy, path, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// try returns nil and nil when another holds the lock, or the path has come to mean another file.
func try(path string, flags, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if err == nil && Current(f, path) {
		return f, nil
	}
	f.Close()
	if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, nil
}

// Current says whether path leads to the open file, and not to nothing or to a successor.
func Current(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}
