//go:build linux

package pager

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	microvm "github.com/tangle-network/microvm-runtime"
)

// A chunk file is a memory in pieces that can be read each for itself:
//
//	frame …   each a chunk, compressed by zstd; one of zeros has none
//	index     per chunk: where its frame begins (8 bytes), the frame's length (4), SHA-256 of what it holds (32)
//	trailer   size of the memory (8), of a chunk (4), number of chunks (4), where the index begins (8), SHA-256 of the index and of the trailer so far (32), magic (8)
//
// Numbers are little-endian. All chunks but the last are of the same size.
const (
	chunkMagic   = "mvmchnk1"
	entrySize    = 8 + 4 + sha256.Size
	trailerSize  = 8 + 4 + 4 + 8 + sha256.Size + 8
	trailerSums  = 8 + 4 + 4 + 8 // what is covered by the index's hash
	maxChunk     = 16 << 20
	maxChunks    = 1 << 22
	defaultChunk = 256 << 10
)

// chunk is an entry of the index.
type chunk struct {
	at     int64
	length int // 0 says that all of it is zero
	sum    [sha256.Size]byte
}

func (c chunk) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(c.at))
	b = binary.LittleEndian.AppendUint32(b, uint32(c.length))
	return append(b, c.sum[:]...)
}

// ChunkOptions say how a chunk file is written. Nil is the default.
type ChunkOptions struct {
	ChunkSize int // In bytes: a multiple of 4096, at most 16 MiB. What one fault costs to read. Optional: 256 KiB.
}

// WriteChunks writes size bytes of memory as a chunk file.
func WriteChunks(ctx context.Context, w io.Writer, memory io.ReaderAt, size int64, o *ChunkOptions) error {
	chunkSize := defaultChunk
	if o != nil && o.ChunkSize != 0 {
		chunkSize = o.ChunkSize
	}
	if chunkSize <= 0 || chunkSize > maxChunk || chunkSize%4096 != 0 || size <= 0 || (size-1)/int64(chunkSize) >= maxChunks {
		return fmt.Errorf("%w: %d bytes in chunks of %d", microvm.ErrInvalid, size, chunkSize)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	defer encoder.Close()
	var index []byte
	var written int64
	buffer, frame := make([]byte, chunkSize), []byte(nil)
	for at := int64(0); at < size; at += int64(chunkSize) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		plain := buffer[:min(int64(chunkSize), size-at)]
		if n, err := memory.ReadAt(plain, at); n < len(plain) {
			return fmt.Errorf("read memory: %w", err)
		}
		c := chunk{at: written, sum: sha256.Sum256(plain)}
		if !isZero(plain) {
			frame = encoder.EncodeAll(plain, frame[:0])
			if _, err := w.Write(frame); err != nil {
				return err
			}
			c.length = len(frame)
		}
		written += int64(c.length)
		index = append(index, c.encode()...)
	}
	return writeIndex(w, index, size, chunkSize, written)
}

func writeIndex(w io.Writer, index []byte, size int64, chunkSize int, at int64) error {
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(size))
	trailer = binary.LittleEndian.AppendUint32(trailer, uint32(chunkSize))
	trailer = binary.LittleEndian.AppendUint32(trailer, uint32(len(index)/entrySize))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(at))
	sum := sha256.Sum256(append(bytes.Clone(index), trailer...))
	trailer = append(append(trailer, sum[:]...), chunkMagic...)
	_, err := w.Write(index)
	if err == nil {
		_, err = w.Write(trailer)
	}
	return err
}

// isZero says whether there is nothing but zeros: each byte is zero and as the one before.
func isZero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// errChunks is of a file that is no chunk file, or is damaged.
var errChunks = errors.New("damaged, or no chunk file")

// readIndex reads and checks what a chunk file of so many bytes says of itself.
func readIndex(r io.ReaderAt, fileSize int64) (chunks []chunk, size int64, chunkSize int, err error) {
	trailer := make([]byte, trailerSize)
	if fileSize < trailerSize {
		return nil, 0, 0, fmt.Errorf("%w: %d bytes", errChunks, fileSize)
	}
	if n, err := r.ReadAt(trailer, fileSize-trailerSize); n < len(trailer) {
		return nil, 0, 0, err
	}
	size, chunkSize = int64(binary.LittleEndian.Uint64(trailer)), int(binary.LittleEndian.Uint32(trailer[8:]))
	count, at := int64(binary.LittleEndian.Uint32(trailer[12:])), int64(binary.LittleEndian.Uint64(trailer[16:]))
	switch {
	case string(trailer[trailerSize-len(chunkMagic):]) != chunkMagic:
		return nil, 0, 0, fmt.Errorf("%w: it does not end as one", errChunks)
	case chunkSize <= 0 || chunkSize > maxChunk || chunkSize%4096 != 0 || size <= 0 || count > maxChunks || count != (size-1)/int64(chunkSize)+1,
		at < 0 || at != fileSize-trailerSize-count*entrySize:
		return nil, 0, 0, fmt.Errorf("%w: %d bytes in %d chunks of %d, index at %d of %d", errChunks, size, count, chunkSize, at, fileSize)
	}
	index := make([]byte, count*entrySize, count*entrySize+trailerSums)
	if n, err := r.ReadAt(index, at); n < len(index) {
		return nil, 0, 0, err
	}
	if sum := sha256.Sum256(append(index, trailer[:trailerSums]...)); !bytes.Equal(sum[:], trailer[trailerSums:trailerSums+sha256.Size]) {
		return nil, 0, 0, fmt.Errorf("%w: its index is another than it was written with", errChunks)
	}
	for ; len(index) > 0; index = index[entrySize:] {
		c := chunk{at: int64(binary.LittleEndian.Uint64(index)), length: int(binary.LittleEndian.Uint32(index[8:]))}
		copy(c.sum[:], index[12:])
		if c.at < 0 || c.at > at || int64(c.length) > at-c.at || c.length > 2*maxChunk {
			return nil, 0, 0, fmt.Errorf("%w: a frame of %d bytes at %d", errChunks, c.length, c.at)
		}
		chunks = append(chunks, c)
	}
	return chunks, size, chunkSize, nil
}
