//go:build linux

// Package console keeps what a guest writes to its serial console.
//
// There are only three functions. [Create] makes the console of a run, a FIFO that is the VMM's standard output. [Drain] moves what comes out of it to a capped
// log. [Open] reads that log, also while it grows.
//
//	DIR/console.fifo   the FIFO; the VMM holds it open for reading and writing, so that nobody's absence blocks it
//	DIR/console.log    the newest part, at most 512 KiB
//	DIR/console.old    the part before that
//	DIR/console.lock   flocked by the one process that drains
//
// # Caveats
//
// While nobody drains the FIFO keeps the first MiB, or less where the host allows less, and the rest is lost: Drain marks the place. What is in
// the FIFO when the VMM ends and nobody drains is lost too.
//
// The text is the guest's: it may hold anything, also what looks like the mark.
package console

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

const (
	pipeSize = 1 << 20
	half     = 512 << 10 // two of these are what is kept
	lost     = "\n[microvm: console output was lost here]\n"
)

func fifo(dir string) string { return filepath.Join(dir, "console.fifo") }
func log(dir string) string  { return filepath.Join(dir, "console.log") }
func old(dir string) string  { return filepath.Join(dir, "console.old") }

// Create makes the console of a new run in place of the last run's, and returns the end that becomes the VMM's standard output. The caller closes it once the VMM
// has it. Nobody else may use it: Firecracker makes the open file non-blocking.
func Create(dir string) (*os.File, error) {
	for _, path := range []string{fifo(dir), log(dir), old(dir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := unix.Mkfifo(fifo(dir), 0o600); err != nil {
		return nil, err
	}
	// Both ends, so that neither this open nor a write without a reader blocks.
	f, err := os.OpenFile(fifo(dir), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if _, err := unix.SetPipeSize(f, pipeSize); err != nil && !errors.Is(err, syscall.EPERM) {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
