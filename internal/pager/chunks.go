//go:build linux

package pager

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// cachedChunks is how many chunks are kept as they were read last: neighbours of a page are asked for soon.
const cachedChunks = 16

// chunks is a chunk file as a source. Each chunk is checked against its hash when it is read.
type chunks struct {
	file      io.ReaderAt
	closer    io.Closer
	index     []chunk
	size      int64
	chunkSize int
	decoder   *zstd.Decoder

	mu     sync.Mutex
	cached []*cachedChunk // the one that was asked for last is last
}

// cachedChunk is one that is being read, or was.
type cachedChunk struct {
	number int64
	ready  chan struct{}
	plain  []byte
	err    error
}

func openChunks(path string) (Source, error) {
	f, err := openFlat(path)
	if err != nil {
		return nil, err
	}
	s, err := NewChunks(f, f.size)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// NewChunks returns a source of a chunk file of so many bytes, wherever that is. When it is an io.Closer it is closed with the source.
func NewChunks(file io.ReaderAt, fileSize int64) (Source, error) {
	index, size, chunkSize, err := readIndex(file, fileSize)
	if err != nil {
		return nil, err
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(uint64(chunkSize)))
	if err != nil {
		return nil, err
	}
	c := &chunks{file: file, index: index, size: size, chunkSize: chunkSize, decoder: decoder}
	c.closer, _ = file.(io.Closer)
	return c, nil
}

func (c *chunks) Size() int64 { return c.size }
func (c *chunks) Slow() bool  { return true }

// ReadAt reads from as many chunks as it must.
func (c *chunks) ReadAt(b []byte, at int64) (n int, err error) {
	for n < len(b) {
		if at+int64(n) >= c.size {
			return n, io.EOF
		}
		number := (at + int64(n)) / int64(c.chunkSize)
		plain, err := c.chunk(number)
		if err != nil {
			return n, fmt.Errorf("chunk %d: %w", number, err)
		}
		n += copy(b[n:], plain[at+int64(n)-number*int64(c.chunkSize):])
	}
	return n, nil
}

// chunk returns what a chunk holds. Who asks for one that is being read waits for it.
func (c *chunks) chunk(number int64) ([]byte, error) {
	c.mu.Lock()
	n := slices.IndexFunc(c.cached, func(k *cachedChunk) bool { return k.number == number })
	if n >= 0 {
		k := c.cached[n]
		c.cached = append(slices.Delete(c.cached, n, n+1), k)
		c.mu.Unlock()
		<-k.ready
		return k.plain, k.err
	}
	k := &cachedChunk{number: number, ready: make(chan struct{})}
	if c.cached = append(c.cached, k); len(c.cached) > cachedChunks {
		c.cached = slices.Delete(c.cached, 0, 1)
	}
	c.mu.Unlock()
	k.plain, k.err = c.read(number)
	close(k.ready)
	if k.err != nil { // the next who asks tries again
		c.mu.Lock()
		c.cached = slices.DeleteFunc(c.cached, func(other *cachedChunk) bool { return other == k })
		c.mu.Unlock()
	}
	return k.plain, k.err
}

func (c *chunks) read(number int64) ([]byte, error) {
	entry := c.index[number]
	size := int(min(int64(c.chunkSize), c.size-number*int64(c.chunkSize)))
	if entry.length == 0 {
		return make([]byte, size), nil
	}
	frame := make([]byte, entry.length)
	if n, err := c.file.ReadAt(frame, entry.at); n < len(frame) {
		return nil, err
	}
	plain, err := c.decoder.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errChunks, err)
	}
	if len(plain) != size || sha256.Sum256(plain) != entry.sum {
		return nil, fmt.Errorf("%w: it is another than it was written with", errChunks)
	}
	return plain, nil
}

// Close closes the file too.
func (c *chunks) Close() error {
	c.decoder.Close()
	if c.closer == nil {
		return nil
	}
	return c.closer.Close()
}
