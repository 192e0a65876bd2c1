//go:build linux

package pager

import (
	"errors"
	"fmt"
	"sort"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// diff is a file that holds some of the memory, over a source of all of it. What it holds is known by its holes, which are looked for once.
type diff struct {
	*flat
	below Source
	data  []disk.Extent // sorted, none touches another
}

// openDiff takes below over, unless it returns an error.
func openDiff(path string, below Source) (*diff, error) {
	f, err := openFlat(path)
	if err != nil {
		return nil, err
	}
	d := &diff{flat: f, below: below}
	if f.size != below.Size() {
		err = fmt.Errorf("%w: the diff is of %d bytes, what it lies over of %d", microvm.ErrInvalid, f.size, below.Size())
	} else {
		d.data, err = extentsOf(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func extentsOf(f *flat) (data []disk.Extent, err error) {
	for extent, err := range disk.Extents(f.File, f.size) {
		if err != nil {
			return nil, err
		}
		data = append(data, extent)
	}
	return data, nil
}

// ReadAt reads each range from where it is.
func (d *diff) ReadAt(b []byte, at int64) (n int, err error) {
	for n < len(b) {
		from, length := d.upTo(at + int64(n))
		part := b[n:min(len(b), n+int(min(length, int64(len(b)))))]
		var got int
		if from {
			got, err = d.flat.ReadAt(part, at+int64(n))
		} else {
			got, err = d.below.ReadAt(part, at+int64(n))
		}
		if n += got; got < len(part) {
			return n, err
		}
	}
	return n, nil
}

// upTo says whether the diff holds what is at an offset, and for how many bytes it stays so.
func (d *diff) upTo(at int64) (held bool, length int64) {
	n := sort.Search(len(d.data), func(i int) bool { return d.data[i].End > at })
	switch {
	case n == len(d.data):
		return false, 1 << 62
	case at < d.data[n].Begin:
		return false, d.data[n].Begin - at
	}
	return true, d.data[n].End - at
}

func (d *diff) Slow() bool   { return d.below.Slow() }
func (d *diff) Close() error { return errors.Join(d.flat.Close(), d.below.Close()) }
