//go:build linux

package pager

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
)

const (
	maxRegions = 512
	hugePage   = 2 << 20
	topAddress = 1 << 57 // of user space, on any architecture
)

// errHandshake is of a VMM that says what no well-behaved one does.
var errHandshake = errors.New("the VMM's handshake is refused")

// region is a range of a VMM's address space that is guest memory.
type region struct {
	Base   uint64 `json:"base"` // Address in the VMM.
	Size   uint64 `json:"size"`
	Offset uint64 `json:"offset"` // In the source.
}

// table says where a VMM's memory is. The regions are sorted, and no two overlap.
type table struct {
	PageSize uint64   `json:"page_size"`
	Regions  []region `json:"regions"`
}

// mapping is a region as Firecracker says it.
type mapping struct {
	Base   *uint64 `json:"base_host_virt_addr"`
	Size   *uint64 `json:"size"`
	Offset *uint64 `json:"offset"`
	// PageSize is what versions from 1.10 say, in bytes. Others say PageSizeKiB alone, some of them in bytes whatever its name, and those before 1.7 neither.
	PageSize    uint64 `json:"page_size"`
	PageSizeKiB uint64 `json:"page_size_kib"`
}

func (m mapping) pageSize() (uint64, error) {
	size := m.PageSize
	if size == 0 {
		size = m.PageSizeKiB
		if size == 4 || size == hugePage>>10 {
			size <<= 10
		}
	}
	switch size {
	case 0:
		return uint64(os.Getpagesize()), nil
	case uint64(os.Getpagesize()), hugePage:
		return size, nil
	}
	return 0, fmt.Errorf("%w: pages of %d bytes", errHandshake, size)
}

// parseTable reads what a VMM says of its memory, which must be within a source of this size.
func parseTable(text []byte, sourceSize int64) (table, error) {
	var mappings []mapping
	if err := json.Unmarshal(text, &mappings); err != nil {
		return table{}, fmt.Errorf("%w: %w", errHandshake, err)
	}
	var t table
	for _, m := range mappings {
		if m.Base == nil || m.Size == nil || m.Offset == nil {
			return table{}, fmt.Errorf("%w: a region without address, size or offset", errHandshake)
		}
		pageSize, err := m.pageSize()
		if err != nil {
			return table{}, err
		}
		if t.PageSize != 0 && t.PageSize != pageSize {
			return table{}, fmt.Errorf("%w: pages of %d and of %d bytes", errHandshake, t.PageSize, pageSize)
		}
		t.PageSize = pageSize
		t.Regions = append(t.Regions, region{*m.Base, *m.Size, *m.Offset})
	}
	return t, t.check(sourceSize)
}

// check sorts the regions, and refuses what no memory can be.
func (t table) check(sourceSize int64) error {
	if len(t.Regions) == 0 || len(t.Regions) > maxRegions {
		return fmt.Errorf("%w: %d regions", errHandshake, len(t.Regions))
	}
	if t.PageSize != uint64(os.Getpagesize()) && t.PageSize != hugePage {
		return fmt.Errorf("%w: pages of %d bytes", errHandshake, t.PageSize)
	}
	for _, r := range t.Regions {
		switch {
		case r.Size == 0 || (r.Base|r.Size|r.Offset)%t.PageSize != 0:
			return fmt.Errorf("%w: region %+v is not of whole pages of %d bytes", errHandshake, r, t.PageSize)
		case r.Base > topAddress || r.Size > topAddress-r.Base:
			return fmt.Errorf("%w: region %+v is beyond all addresses", errHandshake, r)
		case r.Offset > math.MaxInt64 || r.Size > uint64(sourceSize) || r.Offset > uint64(sourceSize)-r.Size:
			return fmt.Errorf("%w: region %+v is beyond the memory's %d bytes", errHandshake, r, sourceSize)
		}
	}
	byOffset := slices.Clone(t.Regions)
	slices.SortFunc(byOffset, func(a, b region) int { return cmp.Compare(a.Offset, b.Offset) })
	slices.SortFunc(t.Regions, func(a, b region) int { return cmp.Compare(a.Base, b.Base) })
	for i := 1; i < len(t.Regions); i++ {
		if before, r := t.Regions[i-1], t.Regions[i]; before.Base+before.Size > r.Base {
			return fmt.Errorf("%w: regions %+v and %+v overlap", errHandshake, before, r)
		}
		if before, r := byOffset[i-1], byOffset[i]; before.Offset+before.Size > r.Offset {
			return fmt.Errorf("%w: regions %+v and %+v are the same memory", errHandshake, before, r)
		}
	}
	return nil
}

// find returns the region that an address is in.
func (t table) find(address uint64) (region, bool) {
	n := sort.Search(len(t.Regions), func(i int) bool { return t.Regions[i].Base > address }) - 1
	if n < 0 || address-t.Regions[n].Base >= t.Regions[n].Size {
		return region{}, false
	}
	return t.Regions[n], true
}

// page returns a page by an address in it.
func (t table) page(address uint64) (page, bool) {
	address -= address % t.PageSize
	r, ok := t.find(address)
	return page{address, r.Offset + address - r.Base}, ok
}

// at returns a page by its place in the source.
func (t table) at(offset uint64) (page, bool) {
	for _, r := range t.Regions {
		if offset >= r.Offset && offset-r.Offset < r.Size {
			return page{r.Base + offset - r.Offset, offset}, true
		}
	}
	return page{}, false
}

// end returns the end of what the regions have of the source.
func (t table) end() (end uint64) {
	for _, r := range t.Regions {
		end = max(end, r.Offset+r.Size)
	}
	return end
}

// page is one page of guest memory: where it is in the VMM, and in the source.
type page struct{ address, offset uint64 }
