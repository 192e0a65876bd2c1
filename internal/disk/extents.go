//go:build linux

package disk

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Extent is a range of a file that holds data.
type Extent struct{ Begin, End int64 }

// Extents looks for the data in the first size bytes of a file: no two extents touch, and what is between them reads as zeros. An error is the last that it yields.
func Extents(f *os.File, size int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for at := int64(0); at < size; {
			begin, err := unix.NextData(f, at)
			if errors.Is(err, syscall.ENXIO) || err == nil && begin >= size {
				return
			}
			if err != nil {
				yield(Extent{}, fmt.Errorf("find data of %s: %w", f.Name(), err))
				return
			}
			end, err := unix.NextHole(f, begin)
			if err != nil {
				yield(Extent{}, fmt.Errorf("find hole of %s: %w", f.Name(), err))
				return
			}
			at = min(end, size)
			if !yield(Extent{begin, at}, nil) {
				return
			}
		}
	}
}
