//go:build linux

package pager

import (
	"context"
	"errors"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// maxAhead is how many bytes of a memory are read ahead.
const maxAhead = 1 << 30

// ReadAhead has the kernel read what a working set names of a memory's flat file, in the set's order, for machines that map the file. What is in the kernel's cache already is left; nobody waits for the
// disk but as long as its queue is full. It returns how many bytes that are. fs.ErrNotExist says that there is no set, microvm.ErrInvalid that it is damaged, or of another memory.
func ReadAhead(ctx context.Context, set, memory string) (bytes uint64, err error) {
	pages, pageSize, err := openSet(set)
	if err != nil {
		return 0, err
	}
	f, err := openFlat(memory)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := fits(pages, pageSize, f.size); err != nil {
		return 0, err
	}
	return readAhead(f, runsOf(pages, pageSize), func() error { return context.Cause(ctx) })
}

func readAhead(f *flat, runs []run, halted func() error) (bytes uint64, err error) {
	for _, r := range runs {
		if bytes+r.length > maxAhead {
			break
		}
		if err := errors.Join(halted(), unix.ReadAhead(f.File, int64(r.offset), int64(r.length))); err != nil {
			return bytes, err
		}
		bytes += r.length
	}
	return bytes, nil
}
