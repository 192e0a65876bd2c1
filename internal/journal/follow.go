//go:build linux

package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// Follow returns what is appended to the journal at path from this call on, until ctx ends or the iteration is left. Descriptors are held until
// then; when the iteration never begins, until ctx ends. Its directory must exist.
func Follow(ctx context.Context, path string) (iter.Seq2[microvm.Event, error], error) {
	changes, err := notify(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	f, err := openEnd(path)
	if err != nil {
		return nil, errors.Join(err, changes.Close())
	}
	follower := &follower{path: path, changes: changes, file: f}
	stop := context.AfterFunc(ctx, func() { // ends a read that waits
		changes.Close()
		f.Close()
	})
	return func(yield func(microvm.Event, error) bool) {
		defer func() {
			stop()
			changes.Close()
			follower.file.Close()
		}()
		for {
			if !follower.drain(ctx, yield) {
				return
			}
			if err := follower.wait(); err != nil {
				if ctx.Err() == nil {
					yield(microvm.Event{}, err)
				}
				return
			}
		}
	}, nil
}

// notify watches a directory. The descriptor is non-blocking, so that Close ends a Read.
func notify(dir string) (*os.File, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w (fs.inotify.max_user_instances may be too low)", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MODIFY|syscall.IN_CREATE|syscall.IN_MOVED_FROM); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", dir, err), f.Close())
	}
	return f, nil
}

func openEnd(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type follower struct {
	path    string
	changes *os.File
	file    *os.File
	partial []byte // the beginning of a line whose end is not yet read
}

// drain tells all there is, in this journal and in its successors. False when the iteration was left.
func (w *follower) drain(ctx context.Context, yield func(microvm.Event, error) bool) bool {
	for {
		if !w.read(ctx, yield) {
			return false
		}
		if flock.Current(w.file, w.path) {
			return true
		}
		next, err := w.successor(ctx)
		if err == nil && !w.read(ctx, yield) { // what was written between its end and its renaming
			next.Close()
			return false
		}
		if errors.Is(err, ErrLost) && !yield(microvm.Event{}, err) {
			return false
		}
		if next == nil {
			return yield(microvm.Event{}, err) && false
		}
		w.file.Close()
		w.file, w.partial = next, nil
	}
}

// successor opens the journal after the present one. While it holds the lock of the newest nobody renames any. With ErrLost it is the oldest there is.
func (w *follower) successor(ctx context.Context) (*os.File, error) {
	newest, err := flock.Lock(ctx, w.path)
	if err != nil {
		return nil, err
	}
	defer newest.Close()
	oldest := w.path
	for n := range keptOld + 1 {
		name := numbered(w.path, n)
		if flock.Current(w.file, name) {
			return os.OpenFile(numbered(w.path, max(n-1, 0)), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		}
		if _, err := os.Lstat(name); err == nil {
			oldest = name
		}
	}
	f, err := os.OpenFile(oldest, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	return f, errors.Join(ErrLost, err)
}

func (w *follower) read(ctx context.Context, yield func(microvm.Event, error) bool) bool {
	lines := bufio.NewReader(w.file)
	for ctx.Err() == nil {
		part, err := lines.ReadBytes('\n')
		w.partial = append(w.partial, part...)
		if err == io.EOF {
			return true
		}
		if err != nil {
			return ctx.Err() == nil && yield(microvm.Event{}, err) && false
		}
		var event microvm.Event
		err = json.Unmarshal(bytes.TrimSpace(w.partial), &event)
		w.partial = nil
		if err == nil && !yield(event, nil) {
			return false
		}
	}
	return false
}

// wait waits until something happens beside the journal, or to it.
func (w *follower) wait() error {
	buffer := make([]byte, 4096)
	_, err := w.changes.Read(buffer)
	return err
}
