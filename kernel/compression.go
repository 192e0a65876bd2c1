package kernel

import (
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// maxWindow bounds what a decompressor looks back on in bytes, and so its memory: the strongest settings that kernels are packed with take as much.
const maxWindow = 128 << 20

// decompressor returns a reader of what r holds in a form: "gzip", "xz", "zstd", "lz4" (with the legacy frames of kernels), or "" for none. Of several streams behind each
// other it is the first.
func decompressor(form string, r io.Reader) (io.ReadCloser, error) {
	switch form {
	case "":
		return io.NopCloser(r), nil
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case "xz": // also with the filter for x86, which kernels are packed with
		z, err := xz.NewReader(r, maxWindow)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		return io.NopCloser(z), nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case "lz4":
		return io.NopCloser(lz4.NewReader(r)), nil
	}
	return nil, fmt.Errorf("%w: compressed with %s (gzip, xz, zstd and lz4 are known)", ErrFormat, form)
}

// readAtMost reads to the end of what r holds in a form: at most so many bytes, else it is an error.
func readAtMost(form string, r io.Reader, limit int64) ([]byte, error) {
	z, err := decompressor(form, r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	content, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return content, nil
}
