package flatten

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// What can be wrong with layers.
var (
	// ErrMalformed is returned for layers that no extractor could extract.
	ErrMalformed = errors.New("malformed")
	// ErrLimit is returned for layers that are larger than allowed.
	ErrLimit = errors.New("larger than allowed")
	// ErrDigest is returned for content that its digest doesn't fit.
	ErrDigest = errors.New("content does not fit its digest")
)

// Layer is a tar: plain or compressed by gzip or zstd, which its first bytes tell.
type Layer struct {
	// Open returns the layer from its beginning. It is called once for Read, and once more for Walk where the layer has content that is left.
	Open func() (io.ReadCloser, error)
	// DiffID is "sha256:" and the sha256 of the uncompressed tar. Optional: nothing is checked.
	DiffID string
	// Plain says that names which begin with ".wh." are names like others.
	Plain bool
	// Volatile says that others may change the layer meanwhile, so that Walk has to check it as Read does.
	Volatile bool
}

const (
	maxWindow  = 128 << 20 // Of zstd, in bytes: what its longest mode asks for.
	readBuffer = 256 << 10
)

// Decompress returns the uncompressed content of r, and whether it was compressed.
func Decompress(r io.Reader) (plain io.ReadCloser, compressed bool, err error) {
	b := bufio.NewReaderSize(r, readBuffer)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	begins := func(with string) bool { return bytes.HasPrefix(magic, []byte(with)) }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(b)
		return z, true, err
	case begins("\x28\xb5\x2f\xfd"), len(magic) >= 4 && magic[0]&0xf0 == 0x50 && begins(string(magic[:1])+"\x2a\x4d\x18"): // a frame, or one to skip first
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, true, err
		}
		return d.IOReadCloser(), true, nil
	}
	return io.NopCloser(b), false, nil
}

// stream is a layer being read: hashed, counted and held to a limit.
type stream struct {
	source *source
	plain  io.ReadCloser
	hash   hash.Hash // Nil where nothing is checked.
	diffID string
	left   int64 // What may still be read of all layers, in bytes.
	report func(n int)
}

func (l Layer) open(ctx context.Context, left int64, check bool, report func(n int)) (*stream, error) {
	raw, err := l.Open()
	if err != nil {
		return nil, err
	}
	source := &source{ctx: ctx, raw: raw}
	plain, _, err := Decompress(source)
	if err != nil {
		return nil, errors.Join(source.blame(err), raw.Close())
	}
	s := &stream{source: source, plain: plain, left: left, report: report}
	if check && l.DiffID != "" {
		s.hash, s.diffID = sha256.New(), l.DiffID
	}
	return s, nil
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left < 0 {
		return 0, fmt.Errorf("%w: the layers' tars", ErrLimit)
	}
	if int64(len(p)) > s.left+1 {
		p = p[:s.left+1] // one byte beyond the limit tells
	}
	n, err := s.plain.Read(p)
	s.left -= int64(n)
	if s.hash != nil {
		s.hash.Write(p[:n])
	}
	if n > 0 {
		s.report(n)
	}
	if err != nil && err != io.EOF {
		err = s.source.blame(err)
	}
	return n, err
}

// end reads what follows the tar's end, which its hash has too, and compares the hash.
func (s *stream) end() error {
	if s.hash == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	if sum := "sha256:" + hex.EncodeToString(s.hash.Sum(nil)); sum != s.diffID {
		return fmt.Errorf("%w: uncompressed it is %s, not %s", ErrDigest, sum, s.diffID)
	}
	return nil
}

func (s *stream) Close() error { return errors.Join(s.plain.Close(), s.source.raw.Close()) }

// source is what a layer is read from, until a context ends.
type source struct {
	ctx context.Context
	raw io.ReadCloser
	err error // Its own, not its content's.
}

func (s *source) Read(p []byte) (n int, err error) {
	if s.ctx.Err() != nil {
		s.err = context.Cause(s.ctx)
		return 0, s.err
	}
	n, err = s.raw.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame says whose fault an error of the decompressor is.
func (s *source) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
