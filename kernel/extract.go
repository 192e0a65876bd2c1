package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// ErrFormat is returned for a file that is no kernel image of a known form.
var ErrFormat = errors.New("not a known form of kernel")

// maxKernel bounds an uncompressed kernel in bytes.
const maxKernel = 512 << 20

// Offsets in a bzImage's header (Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1
	offHeaderMagic   = 0x202
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
	offArm64Magic    = 0x38
)

// Extract returns the kernel that Firecracker boots: the ELF file within an x86_64 bzImage, whatever it is compressed with. An ELF file and an arm64 Image are returned as they
// are. ErrFormat for anything else.
func Extract(image []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(image, []byte("\x7fELF")):
		return image, nil
	case len(image) > offArm64Magic+4 && string(image[offArm64Magic:offArm64Magic+4]) == "ARM\x64":
		return image, nil
	case len(image) > offPayloadLength+4 && string(image[offHeaderMagic:offHeaderMagic+4]) == "HdrS":
	default:
		return nil, fmt.Errorf("%w: neither ELF, bzImage nor arm64 Image", ErrFormat)
	}
	setup := uint64(image[offSetupSects])
	if setup == 0 {
		setup = 4
	}
	begin := (setup+1)*512 + uint64(binary.LittleEndian.Uint32(image[offPayloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if length < 8 || begin > uint64(len(image)) || length > uint64(len(image))-begin {
		return nil, fmt.Errorf("%w: the payload is outside of the file", ErrFormat)
	}
	kernel, err := decompress(image[begin : begin+length])
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%w: the payload is no ELF file", ErrFormat)
	}
	return kernel, nil
}

// decompress recognises the payload by its magic. All but gzip carry the kernel's length behind them, in 4 bytes.
func decompress(payload []byte) ([]byte, error) {
	packed := bytes.NewReader(payload[:len(payload)-4])
	switch {
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrFormat, err)
		}
		r.Multistream(false)
		return readAll("gzip", r)
	case bytes.HasPrefix(payload, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		r, err := xz.NewReader(packed)
		if err != nil {
			return nil, fmt.Errorf("%w: xz: %w", ErrFormat, err)
		}
		return readAll("xz", r)
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(packed, zstd.WithDecoderMaxMemory(maxKernel))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrFormat, err)
		}
		defer r.Close()
		return readAll("zstd", r)
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		return readAll("lz4", lz4.NewReader(packed))
	}
	return nil, fmt.Errorf("%w: payload begins with % x (gzip, xz, zstd and lz4 are known)", ErrFormat, payload[:6])
}

func readAll(form string, r io.Reader) ([]byte, error) {
	kernel, err := io.ReadAll(io.LimitReader(r, maxKernel+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, form, err)
	}
	if len(kernel) > maxKernel {
		return nil, fmt.Errorf("%w: %s: larger than %d bytes", ErrFormat, form, maxKernel)
	}
	return kernel, nil
}
