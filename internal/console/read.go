//go:build linux

package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// ReadOptions say what Open reads.
type ReadOptions struct {
	Tail int // How many bytes before the end to begin at. 0 is all that is kept.
	// Ended is closed when the run is over and all is drained. Nil reads what is there and ends.
	Ended <-chan struct{}
}

// Open reads the log of a console. With Ended it goes on until that is closed, or until ctx ends, which Read returns as its cause.
func Open(ctx context.Context, dir string, o ReadOptions) (io.ReadCloser, error) {
	r := &reader{dir: dir, ended: o.Ended}
	if o.Ended != nil {
		if err := r.follow(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.begin(int64(o.Tail)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

type reader struct {
	dir   string
	ended <-chan struct{}
	ctx   context.Context

	next  []*os.File // what is read before the log itself
	file  *os.File   // what is read now
	again bool       // file is to be read once more before next
	over  bool       // the run is over: what is there now is all
	woken *os.File   // inotify; nil when not following
	once  sync.Once
	quit  chan struct{}
}

// follow watches the directory, so that a read of an unfinished log can wait.
func (r *reader) follow(ctx context.Context) error {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("inotify: %w (fs.inotify.max_user_instances may be too low)", err)
	}
	r.woken, r.ctx, r.quit = os.NewFile(uintptr(fd), "inotify"), ctx, make(chan struct{})
	if _, err := syscall.InotifyAddWatch(fd, r.dir, syscall.IN_MODIFY|syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		return errors.Join(fmt.Errorf("watch %s: %w", r.dir, err), r.woken.Close())
	}
	go func() { // ends with Close at the latest
		select {
		case <-r.ended:
		case <-ctx.Done():
		case <-r.quit:
		}
		r.woken.SetReadDeadline(time.Now())
	}()
	return nil
}

// begin opens what there is and goes to where the tail begins.
func (r *reader) begin(tail int64) error {
	var total int64
	for _, path := range []string{old(r.dir), log(r.dir)} {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.next = append(r.next, f)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		total += info.Size()
	}
	if tail <= 0 {
		return nil
	}
	for skip := total - tail; skip > 0 && len(r.next) > 0; {
		info, err := r.next[0].Stat()
		if err != nil {
			return err
		}
		if skip < info.Size() || len(r.next) == 1 {
			_, err := r.next[0].Seek(min(skip, info.Size()), io.SeekStart)
			return err
		}
		skip -= info.Size()
		r.next[0].Close()
		r.next = r.next[1:]
	}
	return nil
}

// Read reads the log. It waits only while following.
func (r *reader) Read(p []byte) (int, error) {
	for {
		over := r.over
		n, err := r.readFile(p)
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		if r.advance() {
			continue
		}
		if r.woken == nil || over {
			return 0, io.EOF
		}
		if err := r.wait(); err != nil {
			return 0, err
		}
	}
}

func (r *reader) readFile(p []byte) (int, error) {
	r.again = false
	if r.file == nil {
		return 0, io.EOF
	}
	return r.file.Read(p)
}

// advance goes on to the file after the one that is read to its end: false when there is none.
func (r *reader) advance() bool {
	if len(r.next) > 0 && !r.again {
		r.replace(r.next[0])
		r.next = r.next[1:]
		return true
	}
	f, err := os.OpenFile(log(r.dir), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	if r.file != nil && sameFile(r.file, f) {
		f.Close()
		return false
	}
	if r.file != nil && r.woken == nil { // the log was rotated: its successor is newer than this reader
		f.Close()
		return false
	}
	if r.file != nil { // it may have grown between its end and the making of its successor: read it once more
		r.next = append(r.next, f)
		r.again = true
		return true
	}
	r.replace(f)
	return true
}

func (r *reader) replace(f *os.File) {
	if r.file != nil {
		r.file.Close()
	}
	r.file = f
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// wait waits for a change, or the run's end, or the context's.
func (r *reader) wait() error {
	buffer := make([]byte, 4096)
	_, err := r.woken.Read(buffer)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	select {
	case <-r.ended:
		r.over = true
		return nil
	default:
	}
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	return os.ErrClosed
}

// Close ends reading, also a Read that waits.
func (r *reader) Close() error {
	r.once.Do(func() {
		if r.woken != nil {
			close(r.quit)
			r.woken.Close()
		}
		for _, f := range append(r.next, r.file) {
			if f != nil {
				f.Close()
			}
		}
	})
	return nil
}
