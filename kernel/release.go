package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const (
	banner     = "Linux version " // begins linux_banner (init/version.c), which every kernel prints first
	maxRelease = 64               // __NEW_UTS_LEN (include/uapi/linux/utsname.h)

	offKernelVersion = 0x20e // in a bzImage's header: where its release is, less 0x200 (Documentation/arch/x86/boot.rst)
)

// Release returns the release of the kernel in a file, such as "6.1.0-56-cloud-amd64": what uname(2) says in it, and what the directory of its modules is named after. The file
// is a vmlinux or an arm64 Image, whose read-only data hold the banner that Linux prints first, or a bzImage, whose header names the release. ErrFormat when it says none.
func Release(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 128<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	if release, ok := headerRelease(head[:n]); ok {
		return release, nil
	}
	release, ok, err := bannerRelease(io.MultiReader(bytes.NewReader(head[:n]), f))
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s does not say its release", ErrFormat, path)
	}
	return release, err
}

// headerRelease reads the release in a bzImage's header: a string that ends with NUL, which begins with it.
func headerRelease(image []byte) (string, bool) {
	if len(image) < offPayloadLength+4 || string(image[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return "", false
	}
	offset := int(binary.LittleEndian.Uint16(image[offKernelVersion:]))
	if offset == 0 || offset+0x200 >= len(image) {
		return "", false
	}
	return firstWord(image[offset+0x200:])
}

// bannerRelease looks for the banner: "Linux version RELEASE (BUILDER) …".
func bannerRelease(r io.Reader) (string, bool, error) {
	const longest = len(banner) + maxRelease + len(" (")
	window := make([]byte, 0, 1<<20)
	for {
		n, err := io.ReadFull(r, window[len(window):cap(window)])
		window = window[:len(window)+n]
		for rest := window; ; {
			at := bytes.Index(rest, []byte(banner))
			if at < 0 {
				break
			}
			rest = rest[at+len(banner):]
			if release, ok := firstWord(rest); ok {
				return release, true, nil
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		window = window[:copy(window, window[len(window)-longest:])] // it may begin here
	}
}

// firstWord returns what comes before " (" when that can be a release.
func firstWord(text []byte) (string, bool) {
	word, _, ok := bytes.Cut(text[:min(len(text), maxRelease+len(" ("))], []byte(" ("))
	for _, c := range word {
		ok = ok && c > ' ' && c < 0x7f && c != '/' && c != '%'
	}
	return string(word), ok && len(word) > 0
}
