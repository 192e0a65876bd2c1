//go:build linux

package pager

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
)

// A working set is the order in which pages were first asked for: magic (8 bytes), size of a page (4), how many there are (4), their numbers in the memory (4 each), CRC-32 of it all (4).
// Numbers are little-endian.
const (
	setMagic    = "mvmwset1"
	setHeader   = 8 + 4 + 4
	maxRecorded = 1 << 20 // pages. What comes after is not recorded
)

// recording is the order of faults as it grows.
type recording struct {
	mu       sync.Mutex
	on       bool
	learning chan struct{} // until known is said. Nil where nothing is prefetched
	known    []uint32      // the working set that is prefetched meanwhile
	pages    []uint32
}

func (r *recording) add(page uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on && len(r.pages) < maxRecorded && page <= 1<<32-1 {
		r.pages = append(r.pages, uint32(page))
	}
}

// learn says that know will be called: a recording that is written down before would replace a set of which it only has a part.
func (r *recording) learn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.learning = make(chan struct{})
}

// know says what is prefetched: it is no news when it is asked for.
func (r *recording) know(pages []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = pages
	close(r.learning)
}

// stop returns what was recorded, and ok the first time only.
func (r *recording) stop() (pages []uint32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if learning := r.learning; learning != nil {
		r.mu.Unlock()
		<-learning
		r.mu.Lock()
	}
	ok, pages = r.on, r.pages
	r.on, r.pages = false, nil
	if len(r.known) > 0 {
		pages = renewed(r.known, pages)
	}
	return pages, ok
}

// renewed returns a working set with what was asked for beside it, or nil where that is less than the set has: what a machine does besides is not worth being prefetched for all, but a set that has
// less than half is one of a machine that ended early, or of another time.
func renewed(set, asked []uint32) []uint32 {
	sorted := slices.Sorted(slices.Values(set))
	all := slices.Clone(set)
	for _, n := range asked {
		if _, known := slices.BinarySearch(sorted, n); !known {
			all = append(all, n)
		}
	}
	if len(all) <= 2*len(set) {
		return nil
	}
	return all[:min(len(all), maxRecorded)]
}

// finishRecording writes the recording down, if there is one that is not yet. Who calls it while another does, waits.
func (p *Pager) finishRecording() error {
	p.finishing.Lock()
	defer p.finishing.Unlock()
	pages, ok := p.recording.stop()
	if !ok || len(pages) == 0 {
		return nil
	}
	return writeSet(p.config.Record, p.table.PageSize, pages)
}

// endRecording finishes the recording when its time is over.
func (p *Pager) endRecording() {
	select {
	case <-p.halting:
	case <-p.config.after(p.config.RecordFor):
		if err := p.finishRecording(); err != nil {
			p.log.Warn("the working set is not written down", "error", err)
		}
	}
}

// writePatience is how long another may take who writes the same set.
const writePatience = 10 * time.Second

// writeSet replaces a set by rename. Pagers of several machines may write that of one snapshot.
func writeSet(path string, pageSize uint64, pages []uint32) error {
	b := binary.LittleEndian.AppendUint32([]byte(setMagic), uint32(pageSize))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pages)))
	for _, n := range pages {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	ctx, cancel := context.WithTimeout(context.Background(), writePatience)
	defer cancel()
	f, err := flock.Lock(ctx, path+".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil { // of who was killed
		return err
	}
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// readSet reads a working set of pages of this size.
func readSet(path string, pageSize uint64) ([]uint32, error) {
	pages, size, err := openSet(path)
	if err == nil && size != pageSize {
		err = fmt.Errorf("%w: working set %s is of pages of %d bytes, the VM has pages of %d", microvm.ErrInvalid, path, size, pageSize)
	}
	if err != nil {
		return nil, err
	}
	return pages, nil
}

// openSet reads a working set, and says how large its pages are.
func openSet(path string) (pages []uint32, pageSize uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	const most = setHeader + 4*maxRecorded + 4
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, 0, err
	}
	if len(b) < setHeader+4 || len(b) > most || !bytes.HasPrefix(b, []byte(setMagic)) {
		return nil, 0, fmt.Errorf("%w: %s is no working set", microvm.ErrInvalid, path)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	pageSize, count := uint64(binary.LittleEndian.Uint32(b[8:])), int64(binary.LittleEndian.Uint32(b[12:]))
	if crc32.ChecksumIEEE(body) != sum || count*4 != int64(len(body)-setHeader) || pageSize == 0 {
		return nil, 0, fmt.Errorf("%w: working set %s is damaged", microvm.ErrInvalid, path)
	}
	pages = make([]uint32, count)
	for i := range pages {
		pages[i] = binary.LittleEndian.Uint32(body[setHeader+4*i:])
	}
	return pages, pageSize, nil
}

// fits says whether a working set can be of a memory of this size.
func fits(pages []uint32, pageSize uint64, memory int64) error {
	for _, n := range pages {
		if uint64(n) >= uint64(memory)/pageSize {
			return fmt.Errorf("%w: the working set is of another memory: it has page %d, the memory has %d", microvm.ErrInvalid, n, uint64(memory)/pageSize)
		}
	}
	return nil
}
