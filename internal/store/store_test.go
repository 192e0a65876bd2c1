//go:build linux

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// TestImport: the same file is kept once, read-only and apart from the original; a changed one is another.
func TestImport(t *testing.T) {
	s, path := newStore(t), filepath.Join(t.TempDir(), "kernel")
	write(t, path, "one")
	first, err := s.Import(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Import(t.Context(), path)
	if err != nil || again != first {
		t.Errorf("again: %+v, %v; want %+v", again, err, first)
	}
	write(t, path, "two")
	second, err := s.Import(t.Context(), path)
	if err != nil || second.Key == first.Key {
		t.Errorf("changed: %+v, %v", second, err)
	}
	for file, want := range map[File]string{first: "one", second: "two"} {
		info, err := os.Lstat(file.Path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file.Path)
		if err != nil || string(text) != want || file.Size != int64(len(want)) || info.Mode() != 0o444 || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%q, %v, %v; want %q", text, info.Mode(), err, want)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	write(t, filepath.Join(dir, "empty"), "")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), dir, filepath.Join(dir, "empty"), filepath.Join(dir, "fifo"), "/dev/zero"} {
		if _, err := s.Import(t.Context(), path); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", path, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, "files")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestMakeOnce: of many that ask at once one makes it, and a failure leaves nothing and is no one's answer later.
func TestMakeOnce(t *testing.T) {
	s := newStore(t)
	boom := errors.New("boom")
	half := func(temp string) error { return errors.Join(os.WriteFile(temp, []byte("half"), 0o600), boom) }
	if _, err := s.Make(t.Context(), "key", half); !errors.Is(err, boom) {
		t.Errorf("make: %v", err)
	}
	var made atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			file, err := s.Make(t.Context(), "key", func(temp string) error {
				made.Add(1)
				return os.WriteFile(temp, []byte("whole"), 0o600)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if text, err := os.ReadFile(file.Path); err != nil || string(text) != "whole" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("it was made %d times", made.Load())
	}
}

// TestMakeCanBeLeft while another makes the same. Who wants another file need not wait.
func TestMakeCanBeLeft(t *testing.T) {
	s := newStore(t)
	empty := func(temp string) error { return os.WriteFile(temp, nil, 0o600) }
	_, err := s.Make(t.Context(), "slow", func(temp string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Make(ctx, "other", empty); err != nil {
			t.Errorf("another file: %v", err)
		}
		cancel()
		if _, err := s.Make(ctx, "slow", empty); !errors.Is(err, context.Canceled) {
			t.Errorf("the same file: %v, want context.Canceled", err)
		}
		return empty(temp)
	})
	if err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, "making")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
