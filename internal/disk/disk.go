//go:build linux

// Package disk copies files that are mostly holes, and makes empty file systems for writable layers.
//
// There are only a few functions: [Clone] and [LinkOrCopy] copy, [EmptyExt4] and [GrowExt4] prepare file systems,
// [Find] finds the programs that they do it with, and [TrimExt4] makes holes of what a file system does not use. [Extents] finds what is no hole. [Sync], [SyncData], [SyncDir] and [MakeDir] make what
// was done survive power loss.
//
// # Caveats
//
// What Clone returns shares blocks with its source where the file system can (xfs, btrfs); elsewhere (ext4) it costs the source's data.
package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Cloned says how a clone was made.
type Cloned struct {
	Reflinked bool
	Copied    int64 // Bytes of data that were copied; 0 when reflinked.
}

// Clone makes dst, which must not exist, a private copy of src with mode 0600: by reflink, else by copying the data and keeping the holes. When it returns
// an error there is no dst.
func Clone(ctx context.Context, dst, src string) (c Cloned, err error) {
	in, err := os.Open(src)
	if err != nil {
		return c, err
	}
	defer in.Close()
	return CloneFile(ctx, dst, in)
}

// CloneFile is Clone of an open file, whatever its path has come to mean.
func CloneFile(ctx context.Context, dst string, in *os.File) (c Cloned, err error) {
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return c, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(dst))
		}
	}()
	if unix.Reflink(out, in) == nil {
		return Cloned{Reflinked: true}, nil
	}
	c.Copied, err = copyData(ctx, out, in)
	return c, err
}

// copyData copies the extents that hold data and leaves the rest holes.
func copyData(ctx context.Context, out, in *os.File) (copied int64, err error) {
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return 0, err
	}
	for extent, err := range Extents(in, info.Size()) {
		if err != nil {
			return copied, err
		}
		for at := extent.Begin; at < extent.End; at += chunk {
			n, err := copyChunk(ctx, out, in, at, min(chunk, extent.End-at))
			copied += n
			if err != nil {
				return copied, err
			}
		}
	}
	return copied, nil
}

// chunk is how much is copied between two looks at the context: at most some tenths of a second's work.
const chunk = 64 << 20

// copyChunk lets the kernel copy: os.File's ReadFrom uses copy_file_range(2). What is copied is on its way to the disk then, so that a flush at the end does not take the time of it all.
func copyChunk(ctx context.Context, out, in *os.File, at, length int64) (n int64, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	defer unix.StartWriting(out, at, length) // an error comes again when it is flushed
	if _, err := in.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	if _, err := out.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	return io.CopyN(out, in, length)
}

// LinkOrCopy makes dst another name of src, or a copy with src's mode where no link can be made.
func LinkOrCopy(ctx context.Context, dst, src string) error {
	err := os.Link(src, dst)
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EMLINK) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if _, err := Clone(ctx, dst, src); err != nil {
		return err
	}
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	return os.Chmod(dst, info.Mode().Perm())
}

// Overlay writes the data of the file over, which is mostly holes, to the same places of the file at path. The files are of one size.
func Overlay(ctx context.Context, path, over string) (err error) {
	in, err := os.Open(over)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = copyData(ctx, out, in)
	return err
}

// Used returns how many bytes of its file system's a file has; 0 where there is none.
func Used(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
