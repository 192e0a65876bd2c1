//go:build linux

package console

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// How long a process waits between attempts to become the drainer: while the VMM lives, when another process's end can't be foreseen, and once it has ended, when the
// drainer is about to be.
const (
	takeOverPause = 250 * time.Millisecond
	lastPause     = time.Millisecond
)

// Drain moves what comes out of the FIFO to the log, until the VMM has ended and all is moved, or ctx ends; also then it moves what is in the FIFO. Where another
// process drains it waits for that one's end, and holds the FIFO so that nothing is lost between. Ended is closed when the VMM has ended. A console that is gone
// is no error.
func Drain(ctx context.Context, dir string, ended <-chan struct{}) error {
	in, err := os.OpenFile(fifo(dir), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer in.Close()
	lock, err := hold(ctx, dir, ended)
	if err != nil {
		return ignoreGone(err)
	}
	defer lock.Close()
	stop := context.AfterFunc(ctx, func() { in.SetReadDeadline(time.Now()) })
	defer stop()
	out := &ring{dir: dir}
	defer out.close()
	err = out.move(in)
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = out.sweep(in)
	}
	return ignoreGone(err)
}

// hold becomes the drainer. When ctx ends it tries once more: the drainer before may have left at the same time.
func hold(ctx context.Context, dir string, ended <-chan struct{}) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "console.lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	last := false
	for pause := takeOverPause; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		if last {
			return nil, errors.Join(os.ErrNotExist, f.Close())
		}
		select {
		case <-ctx.Done():
			last = true
		case <-ended:
			ended, pause = nil, lastPause
		case <-time.After(pause):
		}
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// ring is the log: two files, of which the older is replaced when the newer is full.
type ring struct {
	dir  string
	file *os.File
	size int64
}

// move copies from the FIFO until it has no writer any more. What a full FIFO could not take before is marked.
func (r *ring) move(in *os.File) error {
	left := -1 // bytes until the mark
	if size, fill, err := unix.PipeFill(in); err == nil && fill >= size-4096 {
		left = fill
	}
	return r.copy(in, left)
}

// sweep copies what is in the FIFO now, and waits for nothing: with the last holder's end it would be lost.
func (r *ring) sweep(in *os.File) error {
	_, fill, err := unix.PipeFill(in)
	if err != nil {
		return err
	}
	if err := in.SetReadDeadline(time.Time{}); err != nil { // it has passed
		return err
	}
	return r.copy(io.LimitReader(in, int64(fill)), -1)
}

// copy copies to the end, with the mark behind so many bytes; -1 is none.
func (r *ring) copy(in io.Reader, left int) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.Read(buffer)
		part := buffer[:n]
		if left >= 0 && n >= left {
			if err := r.write(part[:left], []byte(lost)); err != nil {
				return err
			}
			part, left = part[left:], -1
		} else if left >= 0 {
			left -= n
		}
		if werr := r.write(part); werr != nil {
			return werr
		}
		if err != nil {
			return err
		}
	}
}

func (r *ring) write(parts ...[]byte) error {
	for _, part := range parts {
		if len(part) == 0 {
			continue
		}
		if err := r.open(); err != nil {
			return err
		}
		n, err := r.file.Write(part)
		r.size += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// open opens the log, or begins a new one when it is full. A full disk is the caller's error; the guest is not held up by it, its FIFO fills.
func (r *ring) open() error {
	if r.file != nil && r.size < half {
		return nil
	}
	if r.file != nil {
		r.file.Close()
		r.file = nil
		if err := os.Rename(log(r.dir), old(r.dir)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(log(r.dir), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.size = f, info.Size()
	return nil
}

func (r *ring) close() {
	if r.file != nil {
		r.file.Close()
	}
}
