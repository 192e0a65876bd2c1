package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

func TestRelease(t *testing.T) {
	const release = "6.1.0-56-cloud-amd64"
	elsewhere := strings.Repeat("x", 300<<10) + "Linux version %s (%s)\x00Linux version \x00Linux version 5 (\x00" // formats and words come first in a real one too
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"vmlinux":                  {fakekernel.Vmlinux(release), release},
		"bzImage":                  {fakekernel.BzImage(release, []byte("packed")), release},
		"arm64 Image":              {[]byte(strings.Repeat("\x00", 56) + "ARM\x64" + "Linux version 6.6.1 (a@b)"), "6.6.1"},
		"a format before it":       {[]byte("\x7fELFLinux version %s (%s)\x00Linux version 6.6.2 (a@b)"), "6.6.2"},
		"the longest":              {fakekernel.Vmlinux(strings.Repeat("6", 64)), strings.Repeat("6", 64)},
		"longer":                   {fakekernel.Vmlinux(strings.Repeat("6", 65)), ""},
		"a bzImage without one":    {fakekernel.BzImage("", []byte("packed")), ""},
		"a few instructions":       {tinyguest.Kernel(tinyguest.Program{Text: "tiny"}), ""},
		"the banner cut":           {[]byte("\x7fELF" + elsewhere[:300<<10] + "Linux version 6.1.0"), ""},
		"nothing":                  {nil, ""},
		"behind what is none":      {[]byte(elsewhere), "5"},
		"a header beyond its file": {fakekernel.BzImage(release, nil)[:0x400], ""},
	} {
		path := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(path, c.image, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Release(path)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	if _, err := Release(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestReleaseAcrossReads puts the banner where one read ends and the next begins.
func TestReleaseAcrossReads(t *testing.T) {
	text := []byte("Linux version 6.1.0-56-cloud-amd64 (nobody@nowhere)")
	const read = 1 << 20
	for before := read - len(text) - 1; before <= read+1; before++ {
		image := append(bytes.Repeat([]byte{'L'}, before), text...)
		if got, ok, err := bannerRelease(bytes.NewReader(image)); got != "6.1.0-56-cloud-amd64" || !ok || err != nil {
			t.Fatalf("behind %d bytes: %q, %v, %v", before, got, ok, err)
		}
	}
}
