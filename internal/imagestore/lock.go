//go:build linux

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Lock waits for the right to build or remove the image of a digest, or to change names, among all goroutines and processes of the host. The kernel ends it with the
// process. microvm.ErrBusy when ctx ends first.
func (d Dir) Lock(ctx context.Context, what string) (unlock func(), err error) {
	f, err := LockFile(ctx, d.join("locks", hex(what)))
	if err != nil {
		return nil, err
	}
	return release(f), nil
}

// TryLock is Lock for who doesn't wait: microvm.ErrBusy when somebody else has the lock.
func (d Dir) TryLock(what string) (unlock func(), err error) {
	f, err := tryLock(d.join("locks", hex(what)))
	if err != nil {
		return nil, err
	}
	return release(f), nil
}

// release ends a lock and leaves no file: who waits for this one notices, see tryLock.
func release(f *os.File) func() {
	return func() {
		os.Remove(f.Name())
		f.Close()
	}
}

// LockFile opens the file at path, or makes it, and waits for the right to change it. It polls: a blocking flock in a thread could not be left when ctx ends.
func LockFile(ctx context.Context, path string) (*os.File, error) {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		f, err := tryLock(path)
		if !errors.Is(err, microvm.ErrBusy) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", microvm.ErrBusy, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// tryLock makes sure that the file it has locked still is the one at path.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil && same(f, path):
		return f, nil
	case err == nil, errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EINTR):
		err = microvm.ErrBusy
	}
	f.Close()
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

func same(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(held, there)
}
