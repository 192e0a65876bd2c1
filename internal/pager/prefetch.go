//go:build linux

package pager

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

const (
	groupBytes = 4 << 20   // of the working set whose order is given up for longer runs
	runBytes   = 256 << 10 // that are read and copied at once: while they are copied a fault waits
)

// run is some pages that follow each other.
type run struct{ offset, length uint64 }

// runsOf puts pages together. The order is kept, but for what is asked for at about the same time.
func runsOf(pages []uint32, pageSize uint64) (runs []run) {
	for group := range slices.Chunk(pages, max(1, int(groupBytes/pageSize))) {
		sorted := slices.Clone(group)
		slices.Sort(sorted)
		begin := len(runs)
		for _, n := range slices.Compact(sorted) {
			offset := uint64(n) * pageSize
			if last := len(runs) - 1; last >= begin && runs[last].offset+runs[last].length == offset && runs[last].length+pageSize <= max(runBytes, pageSize) {
				runs[last].length += pageSize
				continue
			}
			runs = append(runs, run{offset, pageSize})
		}
	}
	return runs
}

// prefetch copies the working set beside the faults. Nothing depends on it: what goes wrong is left to the faults.
func (p *Pager) prefetch() {
	begin := time.Now()
	pages, err := p.workingSet()
	p.recording.know(pages)
	if errors.Is(err, fs.ErrNotExist) && p.config.Record != "" { // this is who makes it
		return
	}
	if err == nil {
		runs := runsOf(pages, p.table.PageSize)
		p.serving.Go(func() { p.readAhead(runs) })
		err = p.prefetchRuns(runs)
	}
	if err != nil {
		p.log.Warn("the working set is not prefetched", "error", err)
		return
	}
	p.counters.prefetch.Store(int64(time.Since(begin)))
}

// workingSet returns the set that was recorded before, or nothing and why.
func (p *Pager) workingSet() ([]uint32, error) {
	pages, err := readSet(p.config.WorkingSet, p.table.PageSize)
	if err == nil {
		err = fits(pages, p.table.PageSize, p.source.Size())
	}
	if err != nil {
		return nil, err
	}
	return pages, nil
}

// readAhead has a disk read many runs at once, of which only one at a time is copied.
func (p *Pager) readAhead(runs []run) {
	f, ok := p.source.(*flat)
	if !ok {
		return
	}
	if _, err := readAhead(f, runs, p.halted); err != nil && !errors.Is(err, errHalted) {
		p.log.Warn("the working set is not read ahead", "error", err)
	}
}

func (p *Pager) prefetchRuns(runs []run) error {
	buffer := make([]byte, max(runBytes, p.table.PageSize))
	for _, r := range runs {
		first, ok := p.table.at(r.offset)
		last, ok2 := p.table.at(r.offset + r.length - p.table.PageSize)
		if !ok || !ok2 || last.address-first.address != r.length-p.table.PageSize { // it is of another memory, or spans two regions: left to the faults
			continue
		}
		data := buffer[:r.length]
		if n, err := p.source.ReadAt(data, int64(r.offset)); n < len(data) {
			return fmt.Errorf("read at offset %#x: %w", r.offset, err)
		}
		if err := p.fill(first, data); err != nil {
			return err
		}
	}
	return nil
}

// errHalted says that there is no more to do.
var errHalted = errors.New("the pager halts")

// fill copies pages that are missing, and leaves all others.
func (p *Pager) fill(at page, data []byte) error {
	size := p.table.PageSize
	for len(data) > 0 {
		n, err := p.push(at, data)
		switch {
		case n > 0:
			p.counters.prefetched.Add(uint64(n) / size)
		case err == nil, errors.Is(err, syscall.EEXIST): // given up, or there
			n = int(size)
		case errors.Is(err, syscall.EAGAIN):
			p.counters.deferred.Add(1)
			select {
			case <-p.halting:
				return errHalted
			case <-time.After(deferral):
			}
		default:
			return fmt.Errorf("fill the VM's memory at address %#x: %w", at.address, err)
		}
		at.address, at.offset, data = at.address+uint64(n), at.offset+uint64(n), data[n:]
	}
	return p.halted()
}

// halted returns errHalted when there is no more to do.
func (p *Pager) halted() error {
	select {
	case <-p.halting:
		return errHalted
	default:
		return nil
	}
}

// push copies pages up to the first that the guest has given up.
func (p *Pager) push(at page, data []byte) (int, error) {
	p.changing.RLock()
	defer p.changing.RUnlock()
	length := uint64(0)
	for length < uint64(len(data)) && !p.removed.has(at.offset+length) {
		length += p.table.PageSize
	}
	if length == 0 {
		return 0, nil
	}
	return unix.UserfaultCopy(p.uffd, at.address, data[:length])
}
