//go:build linux

package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// refused says that a lock can't be had now.
func refused(t *testing.T, lock func(context.Context, string) (*os.File, error), path string) {
	t.Helper()
	cause := errors.New("no patience")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, cause)
	defer cancel()
	if f, err := lock(ctx, path); !errors.Is(err, microvm.ErrBusy) || !errors.Is(err, cause) {
		t.Errorf("a lock that others hold: %v, want ErrBusy with the context's cause", err)
		if f != nil {
			f.Close()
		}
	}
}

func had(t *testing.T, lock func(context.Context, string) (*os.File, error), path string) *os.File {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f, err := lock(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestWhoKeepsWhomOut: a Lock keeps all out, sharers only a Lock.
func TestWhoKeepsWhomOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f := had(t, Lock, path)
	refused(t, Lock, path)
	refused(t, Share, path)
	f.Close()
	one, two := had(t, Share, path), had(t, Share, path)
	refused(t, Lock, path)
	one.Close()
	refused(t, Lock, path)
	two.Close()
	had(t, Lock, path).Close()

	dir := t.TempDir()
	f = had(t, Dir, dir)
	refused(t, Dir, dir)
	f.Close()
	had(t, Dir, dir)
	if _, err := Dir(t.Context(), filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// crowd lets many take a lock many times, and fails the test when two are in it at once. Leave gives it back.
func crowd(t *testing.T, path string, leave func(f *os.File) error) {
	t.Helper()
	var all sync.WaitGroup
	var inside, times atomic.Int32
	for range 8 {
		all.Go(func() {
			for range 20 {
				f, err := Lock(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have it", n)
				}
				runtime.Gosched()
				inside.Add(-1)
				times.Add(1)
				if err := leave(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if times.Load() != 160 {
		t.Errorf("it was had %d times", times.Load())
	}
}

// TestOneAfterTheOther: each waiter has it, and alone, also where each holder removes the file that the others wait for.
func TestOneAfterTheOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	crowd(t, path, (*os.File).Close)
	crowd(t, path, func(f *os.File) error { return errors.Join(os.Remove(path), f.Close()) })
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
}

// TestLinkIsNotFollowed: who can put one there can't choose what is locked.
func TestLinkIsNotFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.Symlink(path+".other", path); err != nil {
		t.Fatal(err)
	}
	if f, err := Lock(t.Context(), path); err == nil {
		f.Close()
		t.Error("a link was followed")
	}
}
