// Package fakekernel makes what distributions ship of a kernel, for tests: the image, its modules, and the package of both.
//
// There are only four types: a [Module] is one of a tree, a [Package] is a .deb of [File]s, and an archive of [Member]s. [Vmlinux] and [BzImage] are images; [Gzip] and its like
// pack what is in them.
package fakekernel

import (
	"encoding/binary"
	"fmt"

	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// Vmlinux returns an ELF file that says of itself what Linux does, and would boot.
func Vmlinux(release string) []byte {
	return tinyguest.Kernel(tinyguest.Program{Text: fmt.Sprintf("Linux version %s (nobody@nowhere) (cc) #1 SMP\n", release)})
}

// Offsets in a bzImage's header (Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1
	offHeaderMagic   = 0x202
	offKernelVersion = 0x20e
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
	setupSects       = 3
	payloadOffset    = 256
)

// BzImage returns an image of x86_64 with a payload, which is compressed already and has its trailer.
func BzImage(release string, payload []byte) []byte {
	image := make([]byte, (setupSects+1)*512+payloadOffset)
	image[offSetupSects] = setupSects
	copy(image[offHeaderMagic:], "HdrS")
	copy(image[0x400:], release+" (nobody@nowhere) #1 SMP\x00")
	binary.LittleEndian.PutUint16(image[offKernelVersion:], 0x400-0x200)
	binary.LittleEndian.PutUint32(image[offPayloadOffset:], payloadOffset)
	binary.LittleEndian.PutUint32(image[offPayloadLength:], uint32(len(payload)))
	return append(image, payload...)
}
