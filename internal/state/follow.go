//go:build linux

package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Follower tells whose run's record is replaced, by whatever process. It holds one descriptor.
type Follower struct {
	dir     *Dir
	changes *os.File // inotify

	mu   sync.Mutex
	uids map[int32]string // of the machines that are followed, by the kernel's number of each
}

// Follow returns a Follower of no machine.
func (d *Dir) Follow() (*Follower, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC) // non-blocking: Close ends a Next
	if err != nil {
		return nil, fmt.Errorf("inotify: %w (fs.inotify.max_user_instances may be too low)", err)
	}
	return &Follower{dir: d, changes: os.NewFile(uintptr(fd), "inotify"), uids: map[int32]string{}}, nil
}

// Add follows a machine, also one that is followed already: no replacement after its return is missed. fs.ErrNotExist when it was never started in this boot.
func (f *Follower) Add(uid string) error {
	dir := f.dir.Volatile(uid)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.control(func(fd int) error {
		number, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO|syscall.IN_ONLYDIR)
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("watch %s: fs.inotify.max_user_watches is too low", dir)
		}
		if err != nil {
			return &os.PathError{Op: "watch", Path: dir, Err: err}
		}
		f.uids[int32(number)] = uid
		return nil
	})
}

// Remove follows a machine no more.
func (f *Follower) Remove(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for number, of := range f.uids {
		if of == uid {
			delete(f.uids, number)
			f.control(func(fd int) error { //nolint // its directory may be gone, and the kernel's number with it
				_, err := syscall.InotifyRmWatch(fd, uint32(number))
				return err
			})
		}
	}
}

func (f *Follower) control(do func(fd int) error) error {
	raw, err := f.changes.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(failed, err)
}

// Next waits until records are replaced and returns whose; all that are followed when that were too many for the kernel. It ends with an error when Close is called.
func (f *Follower) Next() ([]string, error) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := f.changes.Read(buffer)
		if err != nil {
			return nil, err
		}
		if uids := f.changed(buffer[:n]); len(uids) > 0 {
			return uids, nil
		}
	}
}

// changed reads what the kernel has written (inotify(7)).
func (f *Follower) changed(text []byte) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]bool{}
	for len(text) >= syscall.SizeofInotifyEvent {
		number, mask := int32(binary.NativeEndian.Uint32(text)), binary.NativeEndian.Uint32(text[4:])
		end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(text[12:]))
		name, _, _ := strings.Cut(string(text[syscall.SizeofInotifyEvent:end]), "\x00")
		uid, followed := f.uids[number]
		switch {
		case mask&syscall.IN_Q_OVERFLOW != 0:
			return slices.Collect(maps.Values(f.uids))
		case mask&syscall.IN_IGNORED != 0: // its directory is gone
			delete(f.uids, number)
		case followed && name == filepath.Base(f.dir.runFile(uid)):
			found[uid] = true
		}
		text = text[end:]
	}
	return slices.Sorted(maps.Keys(found))
}

// Close ends it, and a Next that waits.
func (f *Follower) Close() error { return f.changes.Close() }
