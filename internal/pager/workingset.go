//go:build linux

package pager

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
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
	mu    sync.Mutex
	on    bool
	pages []uint32
}

func (r *recording) add(page uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on && len(r.pages) < maxRecorded && page <= 1<<32-1 {
		r.pages = append(r.pages, uint32(page))
	}
}

// stop returns what was recorded, and ok the first time only.
func (r *recording) stop() (pages []uint32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ok, pages = r.on, r.pages
	r.on, r.pages = false, nil
	return pages, ok
}

// finishRecording writes the recording down, if there is one that is not yet.
func (p *Pager) finishRecording() error {
	pages, ok := p.recording.stop()
	if !ok || len(pages) == 0 {
		return nil
	}
	return writeSet(p.config.Record, p.table.PageSize, pages)
}

func writeSet(path string, pageSize uint64, pages []uint32) error {
	b := binary.LittleEndian.AppendUint32([]byte(setMagic), uint32(pageSize))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pages)))
	for _, n := range pages {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return record.Replace(path, binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), false)
}

// readSet reads a working set of pages of this size.
func readSet(path string, pageSize uint64) ([]uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = setHeader + 4*maxRecorded + 4
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if len(b) < setHeader+4 || len(b) > most || !bytes.HasPrefix(b, []byte(setMagic)) {
		return nil, fmt.Errorf("%w: %s is no working set", microvm.ErrInvalid, path)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	size, count := uint64(binary.LittleEndian.Uint32(b[8:])), int64(binary.LittleEndian.Uint32(b[12:]))
	if crc32.ChecksumIEEE(body) != sum || count*4 != int64(len(body)-setHeader) {
		return nil, fmt.Errorf("%w: working set %s is damaged", microvm.ErrInvalid, path)
	}
	if size != pageSize {
		return nil, fmt.Errorf("%w: working set %s is of pages of %d bytes, the VM has pages of %d", microvm.ErrInvalid, path, size, pageSize)
	}
	pages := make([]uint32, count)
	for i := range pages {
		pages[i] = binary.LittleEndian.Uint32(body[setHeader+4*i:])
	}
	return pages, nil
}
