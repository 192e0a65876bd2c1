//go:build linux

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
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

// waits is a context that says when it is waited for.
type waits struct {
	context.Context
	once sync.Once
	now  chan struct{}
}

func (w *waits) Done() <-chan struct{} {
	w.once.Do(func() { close(w.now) })
	return w.Context.Done()
}

// importDuring imports path, and lets meddle do something between the look at it and the copy.
func importDuring(t *testing.T, s *Store, path string, meddle func()) (File, error) {
	t.Helper()
	f, origin, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	held, err := flock.Lock(t.Context(), filepath.Join(s.dir, "making", digest(origin.key(path))+lockSuffix))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx := &waits{Context: t.Context(), now: make(chan struct{})}
	type result struct {
		file File
		err  error
	}
	done := make(chan result, 1)
	go func() {
		file, err := s.Import(ctx, path)
		done <- result{file, err}
	}()
	select {
	case <-ctx.now:
	case r := <-done:
		t.Fatalf("it did not wait: %+v", r)
	}
	meddle()
	held.Close()
	r := <-done
	return r.file, r.err
}

// TestImportOfWhatChanges: a file that another is renamed over is what it was when it was looked at, under its own key; one that is written to is refused, and can be imported again.
func TestImportOfWhatChanges(t *testing.T) {
	s, path := newStore(t), filepath.Join(t.TempDir(), "kernel")
	content := func(file File, want string) {
		t.Helper()
		if text, err := os.ReadFile(file.Path); err != nil || string(text) != want {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
	}
	write(t, path, "old")
	old, err := importDuring(t, s, path, func() { write(t, path, "new") })
	if err != nil {
		t.Fatal(err)
	}
	content(old, "old")
	renamed, err := s.Import(t.Context(), path)
	if err != nil || renamed.Key == old.Key {
		t.Fatalf("%+v, %v, of %+v", renamed, err, old)
	}
	content(renamed, "new")

	write(t, path, "before")
	file, err := importDuring(t, s, path, func() {
		if err := os.WriteFile(path, []byte("afterwards"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), path) {
		t.Errorf("written to: %+v, %v, want ErrBusy", file, err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, "files")); err != nil || len(entries) != 2 {
		t.Errorf("files %v, %v", entries, err)
	}
	if file, err = s.Import(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	content(file, "afterwards")
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
