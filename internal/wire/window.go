package wire

import (
	"errors"
	"io"
	"math/bits"
	"sync"
)

// ErrOffset is returned for an offset that a stream does not have: it was acknowledged already, or never written.
var ErrOffset = errors.New("offset is not in the stream")

// Buffer is the part of a stream that its reader has not acknowledged: at most Window bytes. Its writer waits when it is full, so a stalled reader blocks the
// writer and nothing is lost; its reader may begin again from any offset that is not acknowledged.
type Buffer struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte // ring, of a power of two of bytes: it grows to the Window as it must
	acked  uint64 // offset of the oldest byte that is kept
	end    uint64 // offset behind the newest byte
	ended  bool   // no more will be written
	closed bool   // nobody reads any more: what is written is dropped
}

// NewBuffer returns the empty buffer of a stream that begins at an offset: what was before is not kept.
func NewBuffer(offset uint64) *Buffer {
	b := &Buffer{acked: offset, end: offset}
	b.change.L = &b.mu
	return b
}

// Write appends p, waiting for acknowledgements as it must.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	written := 0
	for len(p) > 0 {
		for b.end-b.acked == Window && !b.closed {
			b.change.Wait()
		}
		if b.closed {
			return written, io.ErrClosedPipe
		}
		fits := min(len(p), int(Window-(b.end-b.acked)))
		b.grow(int(b.end-b.acked) + fits)
		at := b.at(b.end)
		n := min(fits, len(b.data)-at)
		copy(b.data[at:], p[:n])
		p, written, b.end = p[n:], written+n, b.end+uint64(n)
		b.change.Broadcast()
	}
	return written, nil
}

// at returns where a byte of the stream is in the ring.
func (b *Buffer) at(offset uint64) int { return int(offset % uint64(len(b.data))) }

// grow makes room for n bytes, at most Window: most streams are short, and many may wait for their reader.
func (b *Buffer) grow(n int) {
	if n <= len(b.data) {
		return
	}
	before := b.data
	b.data = make([]byte, max(4<<10, 1<<bits.Len(uint(n-1))))
	for offset := b.acked; offset < b.end; {
		from := int(offset % uint64(len(before)))
		part := before[from:min(len(before), from+int(b.end-offset))]
		offset += uint64(copy(b.data[b.at(offset):], part))
	}
}

// End says that nothing more will be written.
func (b *Buffer) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.change.Broadcast()
}

// Close lets writers go on, to no effect, and ends readers.
func (b *Buffer) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.ended = true, true
	b.change.Broadcast()
}

// Wake makes waiting readers look at their stop again.
func (b *Buffer) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change.Broadcast()
}

// ReadAt copies what there is from the offset on into p, waiting until there is something. io.EOF when the stream ends there; io.ErrClosedPipe when stop says so.
func (b *Buffer) ReadAt(p []byte, offset uint64, stop func() bool) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case stop != nil && stop():
			return 0, io.ErrClosedPipe
		case offset < b.acked || offset > b.end:
			return 0, ErrOffset
		case offset < b.end:
			at := b.at(offset)
			n := min(len(p), int(b.end-offset), len(b.data)-at)
			copy(p, b.data[at:at+n])
			return n, nil
		case b.ended:
			return 0, io.EOF
		}
		b.change.Wait()
	}
}

// Ack drops what is before the offset.
func (b *Buffer) Ack(offset uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if offset > b.end {
		return ErrOffset
	}
	if offset > b.acked {
		b.acked = offset
		b.change.Broadcast()
	}
	return nil
}

// Kept returns the offsets of the oldest byte that is kept, and of the one behind the newest.
func (b *Buffer) Kept() (begin, end uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acked, b.end
}

// Fits says whether Write would take n bytes without waiting.
func (b *Buffer) Fits(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end-b.acked+uint64(n) <= Window
}

// Closed says whether Close was called, which a reader can't tell from End.
func (b *Buffer) Closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}
