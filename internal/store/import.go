//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// Import returns the store's copy of a regular file, making it when the file is new or has changed. microvm.ErrInvalid when path is no
// regular file that can be read, microvm.ErrBusy when it is written to meanwhile. See Make.
func (s *Store) Import(ctx context.Context, path string) (File, error) {
	f, before, err := open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	return s.Make(ctx, before.key(path), func(temp string) error {
		if _, err := disk.CloneFile(ctx, temp, f); err != nil {
			return err
		}
		after, err := look(f)
		if err == nil && after != before {
			err = fmt.Errorf("%w: %s was written to while it was imported (import it again)", microvm.ErrBusy, path)
		}
		return err
	})
}

// origin is what a file is known by.
type origin struct {
	device, inode uint64
	size, written int64 // in bytes; in ns since 1970
}

func (o origin) key(path string) string {
	return fmt.Sprintf("import\x00%s\x00%d\x00%d\x00%d\x00%d", path, o.device, o.inode, o.size, o.written)
}

// open opens a file to import. What it returns is of one file, whatever is renamed over its path meanwhile.
func open(path string) (*os.File, origin, error) {
	invalid := func(err error) (*os.File, origin, error) {
		return nil, origin{}, fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	info, err := os.Stat(path) // before it is opened: that does something to some devices
	if err != nil {
		return invalid(err)
	}
	if !info.Mode().IsRegular() {
		return invalid(fmt.Errorf("%s is no regular file", path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return invalid(err)
	}
	if err != nil { // which is not the file's fault, as when there are too many
		return nil, origin{}, err
	}
	o, err := look(f)
	if err == nil && o.size == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		f.Close()
		return invalid(err)
	}
	return f, o, nil
}

func look(f *os.File) (origin, error) {
	info, err := f.Stat()
	if err != nil {
		return origin{}, err
	}
	if !info.Mode().IsRegular() {
		return origin{}, fmt.Errorf("%w: %s is no regular file", fs.ErrInvalid, f.Name())
	}
	stat := info.Sys().(*syscall.Stat_t)
	return origin{device: stat.Dev, inode: stat.Ino, size: stat.Size, written: stat.Mtim.Nano()}, nil
}
