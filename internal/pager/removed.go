//go:build linux

package pager

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// removed says which pages a guest has given up. It is in a file, which the next pager reads.
type removed struct {
	pageSize uint64
	memory   []byte
	words    []atomic.Uint64
}

func removedPath(dir string) string { return filepath.Join(dir, "removed") }

// openRemoved makes the file, or takes the one that another pager has left. It has a bit for each page of size bytes.
func openRemoved(dir string, size, pageSize uint64, fresh bool) (*removed, error) {
	flags := os.O_RDWR
	if fresh {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(removedPath(dir), flags, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	words := (size/pageSize + 63) / 64
	if !fresh {
		info, err := f.Stat()
		if err == nil && info.Size() != int64(words*8) {
			err = fmt.Errorf("%s has %d bytes, and not %d", f.Name(), info.Size(), words*8)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := unix.Allocate(f, int64(words*8)); err != nil { // or a full file system would be a signal later
		return nil, err
	}
	memory, err := unix.MapShared(f, int(words*8))
	if err != nil {
		return nil, err
	}
	return &removed{pageSize, memory, unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&memory[0])), words)}, nil
}

// add notes a page, and says whether it is new.
func (r *removed) add(offset uint64) bool {
	n := offset / r.pageSize
	return r.words[n/64].Or(1<<(n%64))&(1<<(n%64)) == 0
}

func (r *removed) has(offset uint64) bool {
	n := offset / r.pageSize
	return r.words[n/64].Load()&(1<<(n%64)) != 0
}

func (r *removed) close() error { return unix.Unmap(r.memory) }
