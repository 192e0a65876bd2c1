//go:build linux

package pager

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
)

// flat is a file as large as the memory. It is read, not mapped: a file that is cut or can't be read is an error then, and no signal.
type flat struct {
	*os.File
	size int64
}

func openFlat(path string) (*flat, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no regular file", microvm.ErrInvalid, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &flat{f, info.Size()}, nil
}

func (f *flat) Size() int64 { return f.size }
func (f *flat) Slow() bool  { return false }
