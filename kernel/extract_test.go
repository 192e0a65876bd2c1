package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// packs are the forms of a payload, each with what the kernel's build appends.
var packs = map[string]func([]byte) []byte{
	"gzip": fakekernel.Gzip, // has the size itself
	"xz":   func(b []byte) []byte { return fakekernel.WithSize(fakekernel.XZ(b), len(b)) },
	"zstd": func(b []byte) []byte { return fakekernel.WithSize(fakekernel.Zstd(b), len(b)) },
	"lz4":  func(b []byte) []byte { return fakekernel.WithSize(fakekernel.LZ4(b), len(b)) },
}

// largeKernel has more than one block of each form.
func largeKernel() []byte {
	return append(fakekernel.Vmlinux(testRelease), bytes.Repeat([]byte("a kernel of some size\n"), 9<<20/22)...)
}

func TestExtract(t *testing.T) {
	for size, vmlinux := range map[string][]byte{"small": fakekernel.Vmlinux(testRelease), "large": largeKernel()} {
		for form, pack := range packs {
			got, err := Extract(fakekernel.BzImage(testRelease, pack(vmlinux)))
			if err != nil || !bytes.Equal(got, vmlinux) {
				t.Errorf("%s, %s: %d bytes, %v; want %d", size, form, len(got), err, len(vmlinux))
			}
		}
	}
	old := fakekernel.BzImage(testRelease, nil)
	old[offSetupSects] = 0 // four sectors, as the oldest had
	old = append(append(old, make([]byte, 512)...), packs["gzip"](fakekernel.Vmlinux(testRelease))...)
	binary.LittleEndian.PutUint32(old[offPayloadLength:], uint32(len(packs["gzip"](fakekernel.Vmlinux(testRelease)))))
	if got, err := Extract(old); err != nil || !bytes.Equal(got, fakekernel.Vmlinux(testRelease)) {
		t.Errorf("no number of sectors: %d bytes, %v", len(got), err)
	}
	for name, image := range map[string][]byte{"an ELF file": fakekernel.Vmlinux(testRelease), "an arm64 Image": arm64Image()} {
		if got, err := Extract(image); err != nil || !bytes.Equal(got, image) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func arm64Image() []byte {
	image := make([]byte, 4096)
	copy(image[offArm64Magic:], "ARM\x64")
	return image
}

// callingKernel is full of calls, whose targets xz's filter for x86 makes absolute.
func callingKernel() []byte {
	kernel := tinyguest.Kernel(tinyguest.Program{Text: "calls\n"})
	for i := range 500 {
		kernel = append(kernel, 0x90, 0xe8)
		kernel = binary.LittleEndian.AppendUint32(kernel, uint32(4096-6*i))
	}
	return kernel
}

// TestExtractFiltered unpacks what the build of x86_64 kernels makes: testdata/x86.xz is callingKernel by `xz --check=crc32 --x86 --lzma2=dict=32MiB` (scripts/xz_wrap.sh).
func TestExtractFiltered(t *testing.T) {
	packed, err := os.ReadFile("testdata/x86.xz")
	if err != nil {
		t.Fatal(err)
	}
	want := callingKernel()
	got, err := Extract(fakekernel.BzImage(testRelease, fakekernel.WithSize(packed, len(want))))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestExtractRefuses(t *testing.T) {
	vmlinux := fakekernel.Vmlinux(testRelease)
	outside := func(offset int, value uint32) []byte {
		image := fakekernel.BzImage(testRelease, packs["gzip"](vmlinux))
		binary.LittleEndian.PutUint32(image[offset:], value)
		return image
	}
	for name, image := range map[string][]byte{
		"nothing":                 nil,
		"text":                    []byte(strings.Repeat("hello ", 1000)),
		"a script":                []byte("#!/bin/sh\n"),
		"a payload of nothing":    fakekernel.BzImage(testRelease, nil),
		"a payload of a word":     fakekernel.BzImage(testRelease, []byte("1234567")),
		"another compression":     fakekernel.BzImage(testRelease, []byte("BZh91AY&SY\x00\x00\x00\x00")),
		"no ELF file in it":       fakekernel.BzImage(testRelease, packs["gzip"]([]byte("a text, and long enough"))),
		"another size":            fakekernel.BzImage(testRelease, fakekernel.WithSize(fakekernel.Zstd(vmlinux), len(vmlinux)-1)),
		"its payload begins late": outside(offPayloadOffset, 1<<20),
		"its payload wraps":       outside(offPayloadOffset, 1<<32-1),
		"its payload ends late":   outside(offPayloadLength, 1<<32-1),
		"its payload is nothing":  outside(offPayloadLength, 0),
	} {
		if got, err := Extract(image); !errors.Is(err, ErrFormat) || got != nil {
			t.Errorf("%s: %d bytes, %v; want ErrFormat", name, len(got), err)
		}
	}
}

// TestExtractCut extracts from beginnings of images, whole as files and cut as payloads.
func TestExtractCut(t *testing.T) {
	vmlinux := fakekernel.Vmlinux(testRelease)
	for form, pack := range packs {
		payload := pack(vmlinux)
		image := fakekernel.BzImage(testRelease, payload)
		for n := 0; n < len(image); n += 1 + n/15 {
			if _, err := Extract(image[:n]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %d of %d bytes of the image: %v, want ErrFormat", form, n, len(image), err)
			}
		}
		for n := 0; n < len(payload); n += 1 + n/15 {
			if _, err := Extract(fakekernel.BzImage(testRelease, payload[:n])); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %d of %d bytes of the payload: %v, want ErrFormat", form, n, len(payload), err)
			}
		}
	}
}

// TestExtractSpoiled changes each bit of payloads: the kernel is what it was, or there is none.
func TestExtractSpoiled(t *testing.T) {
	vmlinux := tinyguest.Kernel(tinyguest.Program{})
	for form, pack := range packs {
		payload := pack(vmlinux)
		for at := 0; at < len(payload); at += 1 + at/40 {
			spoiled := bytes.Clone(payload)
			spoiled[at] ^= 1 << (at % 8)
			got, err := Extract(fakekernel.BzImage(testRelease, spoiled))
			differs := !bytes.Equal(got, vmlinux) && form != "lz4" // whose legacy frame has no sum
			if err == nil && differs || err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("%s, byte %d: another kernel of %d bytes, %v", form, at, len(got), err)
			}
		}
	}
}

// extractCosts extracts, and returns how many bytes it has allocated: all that it needs. What decompressors keep for the next stream is dropped before, and the collector, which
// would drop it at any time, does not run meanwhile. No test of this package runs beside another.
func extractCosts(image []byte, limit int64) (took uint64, err error) {
	runtime.GC()
	runtime.GC() // a sync.Pool outlives the first
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = extract(image, limit)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// TestExtractIsBounded gives a kernel no more memory than a few times its limit, however large it says or turns out to be.
func TestExtractIsBounded(t *testing.T) {
	const limit = 1 << 20
	bomb := append([]byte("\x7fELF"), make([]byte, 16<<20)...)
	small := append([]byte("\x7fELF"), make([]byte, limit-4)...)
	for form, pack := range packs {
		if form == "xz" { // the test's writer makes nothing smaller
			continue
		}
		if got, err := extract(fakekernel.BzImage(testRelease, pack(small)), limit); err != nil || !bytes.Equal(got, small) {
			t.Errorf("%s: a kernel of the limit: %d bytes, %v", form, len(got), err)
		}
		image := fakekernel.BzImage(testRelease, pack(bomb))
		if took, err := extractCosts(image, limit); !errors.Is(err, ErrFormat) || took > 32<<20 {
			t.Errorf("%s: %v, and it took %d bytes", form, err, took)
		}
	}
}

// TestExtractBelievesTheSize unpacks no more than the payload says that there is, and nothing where that is more than a kernel may have.
func TestExtractBelievesTheSize(t *testing.T) {
	const limit, said = 16 << 20, 1 << 10
	kernel := append([]byte("\x7fELF"), make([]byte, limit-4)...)
	large := append([]byte("\x7fELF"), make([]byte, limit)...)
	own := map[string]uint64{"gzip": 1 << 20, "zstd": 9 << 20, "lz4": 25 << 20} // what each has for itself, of any stream: zstd a window, lz4 three blocks of the legacy frame
	for form, pack := range packs {
		if form == "xz" { // the test's writer makes nothing smaller
			continue
		}
		if got, err := extract(fakekernel.BzImage(testRelease, pack(kernel)), limit); err != nil || !bytes.Equal(got, kernel) {
			t.Errorf("%s: the size that it says: %d bytes, %v", form, len(got), err)
		}
		liar := pack(kernel)
		binary.LittleEndian.PutUint32(liar[len(liar)-4:], said)
		for what, payload := range map[string][]byte{"says less": liar, "says too much": pack(large)} {
			if took, err := extractCosts(fakekernel.BzImage(testRelease, payload), limit); !errors.Is(err, ErrFormat) || took > own[form] {
				t.Errorf("%s, %s: %v, and it took %d bytes", form, what, err, took)
			}
		}
	}
}

func FuzzExtract(f *testing.F) {
	vmlinux := tinyguest.Kernel(tinyguest.Program{})
	for _, pack := range packs {
		f.Add(fakekernel.BzImage(testRelease, pack(vmlinux)))
	}
	f.Add(vmlinux)
	f.Add(arm64Image())
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, image []byte) {
		got, err := extract(image, limit)
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v, want ErrFormat", err)
		}
		if err == nil && len(got) > max(limit, len(image)) {
			t.Errorf("%d bytes of an image of %d", len(got), len(image))
		}
	})
}
