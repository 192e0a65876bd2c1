//go:build linux

package loan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// sector is the least that a disk can have, in bytes.
const sector = 512

// Thing is a regular file or a block device. It is open by name only: whatever happens to its path, it stays the same thing.
type Thing struct {
	Path  string
	Block bool
	Size  int64 // Bytes of a regular file.

	file *os.File
	stat syscall.Stat_t
}

// Open finds out what is at a path. microvm.ErrInvalid when that is nothing that can be a disk.
func Open(path string) (*Thing, error) {
	f, err := os.OpenFile(path, unix.O_PATH|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	for _, nothing := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.EACCES} {
		if errors.Is(err, nothing) {
			return nil, fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
		}
	}
	if err != nil {
		return nil, err
	}
	t := &Thing{Path: path, file: f}
	if err := t.look(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *Thing) look() error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	t.stat = *info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case mode.IsRegular() && info.Size() < sector:
		return fmt.Errorf("%w: %s has less than a sector of %d bytes", microvm.ErrInvalid, t.Path, sector)
	case mode.IsRegular():
		t.Size = info.Size()
	case mode.Type() == os.ModeDevice:
		t.Block = true
	case mode.Type() == os.ModeSymlink:
		target, _ := filepath.EvalSymlinks(t.Path)
		return fmt.Errorf("%w: %s is a symbolic link (name what it leads to: %s)", microvm.ErrInvalid, t.Path, target)
	default:
		return fmt.Errorf("%w: %s is neither a regular file nor a block device", microvm.ErrInvalid, t.Path)
	}
	return nil
}

// File returns the descriptor, which is of the thing's name only.
func (t *Thing) File() *os.File { return t.file }

// Close closes the descriptor.
func (t *Thing) Close() error { return t.file.Close() }

// Same says whether both are one thing, under whatever names.
func (t *Thing) Same(other *Thing) bool {
	if t.Block || other.Block {
		return t.Block && other.Block && t.stat.Rdev == other.stat.Rdev
	}
	return t.stat.Dev == other.stat.Dev && t.stat.Ino == other.stat.Ino
}

// InUse says whether the host itself uses a block device: microvm.ErrBusy. Of a file that can't be told.
func (t *Thing) InUse() error {
	if !t.Block {
		return nil
	}
	f, err := os.OpenFile(t.proc(), os.O_RDONLY|syscall.O_EXCL|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: the host uses %s (is it mounted?)", microvm.ErrBusy, t.Path)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", microvm.ErrInvalid, t.Path, errors.Unwrap(err))
	}
	return f.Close()
}

// possession is whose a file is, and who may do what with it.
type possession struct {
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	Mode uint32 `json:"mode"`
}

func (t *Thing) possession() possession {
	return possession{UID: int(t.stat.Uid), GID: int(t.stat.Gid), Mode: t.stat.Mode & 0o7777}
}

// give changes whose the file is. Meanwhile nobody but its owner can do anything with it: a mode that the old owner chose means something else for a new one.
func (t *Thing) give(to possession) error {
	if t.possession() == to {
		return nil
	}
	err := errors.Join(syscall.Chmod(t.proc(), 0o600), os.Chown(t.proc(), to.UID, to.GID), syscall.Chmod(t.proc(), to.Mode))
	if err != nil {
		return fmt.Errorf("give %s to user %d: %w", t.Path, to.UID, err)
	}
	return t.look()
}

// proc returns a path that leads to the thing, whatever happens to its name.
func (t *Thing) proc() string { return fmt.Sprintf("/proc/self/fd/%d", t.file.Fd()) }
