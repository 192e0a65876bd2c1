//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// EmptyExt4 makes path an empty ext4 of so many MiB, sparse, with mke2fs. It is for preparing: machines get clones of it.
func EmptyExt4(ctx context.Context, path string, sizeMiB int) error {
	mke2fs, err := Find("mke2fs")
	if err != nil {
		return err
	}
	size := int64(sizeMiB) << 20
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// The journal stays: a layer must survive power loss. Tables are zero already in a sparse file.
	cmd := exec.CommandContext(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
		"-J", "size="+strconv.Itoa(journalMiB(sizeMiB)), path)
	if sizeMiB < 64 {
		cmd.Args = append(cmd.Args[:len(cmd.Args)-3], path) // mke2fs chooses, or leaves the journal out
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("mke2fs: %w: %s", err, out), os.Remove(path))
	}
	return nil
}

// journalMiB returns a journal size that costs little and is never the smallest.
func journalMiB(sizeMiB int) int { return min(max(4, sizeMiB/64), 32) }

// The magic number of an ext4's superblock, and where it is.
const (
	offMagic = 1024 + 0x38
	magic    = "\x53\xef"
)

// Inspect says how large a file is, in bytes, and whether an ext4 begins with it.
func Inspect(path string) (size int64, isExt4 bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	if !info.Mode().IsRegular() {
		return 0, false, fmt.Errorf("%s is no regular file", path)
	}
	found := make([]byte, len(magic))
	if _, err := f.ReadAt(found, offMagic); err != nil && err != io.EOF {
		return 0, false, err
	}
	return info.Size(), string(found) == magic, nil
}

// GrowExt4 makes the ext4 in a file so many MiB large, and one that can be written to, with e2fsck, which resize2fs asks for, tune2fs and resize2fs. It is
// for preparing: machines get clones of it.
func GrowExt4(ctx context.Context, path string, sizeMiB int) error {
	size, _, err := Inspect(path)
	if err != nil {
		return err
	}
	if size > int64(sizeMiB)<<20 {
		return fmt.Errorf("%s has %d bytes, more than %d MiB", path, size, sizeMiB)
	}
	if err := os.Truncate(path, int64(sizeMiB)<<20); err != nil {
		return err
	}
	const corrected = 1 // e2fsck(8): errors were corrected
	if err := run(ctx, corrected, "e2fsck", "-f", "-p", path); err != nil {
		return err
	}
	if err := run(ctx, 0, "tune2fs", "-O", "^read-only", path); err != nil { // of a base image, which nobody was to write to
		return err
	}
	return run(ctx, 0, "resize2fs", path)
}

// run runs a program of e2fsprogs, which may end with a status up to most.
func run(ctx context.Context, most int, name string, args ...string) error {
	program, err := Find(name)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() && exit.ExitCode() <= most {
		return nil
	}
	if err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%s: %w: %s", name, err, out))
	}
	return nil
}

// Find looks for a program where administrators' programs are, which is not on everybody's PATH.
func Find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (apt-get install e2fsprogs)", name)
}
