//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// store is an xfs in a file, to be mounted at a directory. Nobody else makes or mounts it until it is closed.
type store struct {
	host  host
	dir   string
	image string
	under *os.File // The directory, which the mount hides.
}

func lockStore(ctx context.Context, h host, dir string) (*store, error) {
	under, err := flock.Dir(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &store{host: h, dir: dir, image: dir + ".xfs", under: under}, nil
}

func (s *store) Close() error { return s.under.Close() }

// minStoreMiB is the smallest that mkfs.xfs makes, and some more.
const minStoreMiB = 320

// make makes the file. It has its name when it is whole; what an interrupted one left is made anew. Its space is allocated: a sparse one would give machines I/O errors once others have filled the disk.
func (s *store) make(ctx context.Context, sizeMiB int) (err error) {
	if sizeMiB, err = s.size(sizeMiB); err != nil {
		return err
	}
	part := s.image + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	if err := unix.Allocate(f, int64(sizeMiB)<<20); err != nil {
		return fmt.Errorf("%d MiB for %s: %w", sizeMiB, s.image, err)
	}
	if err := s.host.run(ctx, "mkfs.xfs", "-q", "-K", "-m", "reflink=1", part); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, s.image); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(s.image))
}

// size returns the store's in MiB. 0 means a half of what is free.
func (s *store) size(sizeMiB int) (int, error) {
	system, err := s.host.fileSystem(filepath.Dir(s.image))
	if err != nil {
		return 0, err
	}
	free := int(system.FreeBytes >> 20)
	if sizeMiB == 0 {
		sizeMiB = free / 2
	}
	if sizeMiB < minStoreMiB || sizeMiB > free {
		return 0, fmt.Errorf("%s of %d MiB: must be of %d at least, and %d are free", s.image, sizeMiB, minStoreMiB, free)
	}
	return sizeMiB, nil
}

// mount mounts the file at the directory, with the directory's mode and owner. It is taken off again unless it is what it was made for, and hides nothing that has come into the directory meanwhile.
func (s *store) mount(ctx context.Context) (err error) {
	info, err := os.Lstat(s.image)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", s.image)
	}
	if err := s.host.run(ctx, "mount", "-t", "xfs", "-o", "loop", s.image, s.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.host.run(context.WithoutCancel(ctx), "umount", s.dir))
		}
	}()
	if can, err := s.host.reflink(s.dir); err != nil || !can {
		return errors.Join(err, fmt.Errorf("files of %s can't share blocks", s.image))
	}
	hidden, err := s.under.ReadDir(-1)
	if err != nil {
		return err
	}
	if len(hidden) > 0 {
		var names []string
		for _, entry := range hidden {
			names = append(names, entry.Name())
		}
		return fmt.Errorf("somebody has put %s into %s meanwhile (end what uses it, and run this again)", strings.Join(names, ", "), s.dir)
	}
	return s.adopt()
}

// adopt gives the mount's root the mode and owner of the directory that it hides.
func (s *store) adopt() error {
	info, err := s.under.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return errors.Join(os.Chown(s.dir, int(stat.Uid), int(stat.Gid)), os.Chmod(s.dir, info.Mode().Perm()))
}
