package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
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
func Extract(image []byte) ([]byte, error) { return extract(image, maxKernel) }

func extract(image []byte, limit int64) ([]byte, error) {
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
	kernel, err := decompress(image[begin:begin+length], limit)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%w: the payload is no ELF file", ErrFormat)
	}
	return kernel, nil
}

// decompress recognises the payload by its magic. The kernel's length stands in the last 4 bytes: gzip has it there anyway, to the others it is appended
// (scripts/Makefile.lib).
func decompress(payload []byte, limit int64) ([]byte, error) {
	packed, trailer := payload[:len(payload)-4], payload[len(payload)-4:]
	form := ""
	for _, known := range []struct{ form, magic string }{
		{"gzip", "\x1f\x8b"}, {"xz", "\xfd7zXZ\x00"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"lz4", "\x02\x21\x4c\x18"},
	} {
		if bytes.HasPrefix(packed, []byte(known.magic)) {
			form = known.form
		}
	}
	switch form {
	case "":
		return nil, fmt.Errorf("%w: payload begins with % x (gzip, xz, zstd and lz4 are known)", ErrFormat, payload[:6])
	case "gzip":
		packed = payload
	}
	want := binary.LittleEndian.Uint32(trailer)
	if int64(want) > limit {
		return nil, fmt.Errorf("%w: the payload is a kernel of %d bytes, at most %d", ErrFormat, want, limit)
	}
	kernel, err := readAtMost(form, bytes.NewReader(packed), int64(want))
	if err != nil {
		return nil, fmt.Errorf("%w: payload: %w", ErrFormat, err)
	}
	if uint64(len(kernel)) != uint64(want) {
		return nil, fmt.Errorf("%w: the payload is a kernel of %d bytes, and was one of %d", ErrFormat, len(kernel), want)
	}
	return kernel, nil
}
