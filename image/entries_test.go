//go:build linux

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// hole is a tar of one sparse file, in the old form of GNU tar: all of it a hole, which costs the tar nothing.
func hole(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "hole", Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatGNU}), w.Close()); err != nil {
		t.Fatal(err)
	}
	h := b.Bytes()
	h[156] = tar.TypeGNUSparse
	for _, at := range []int{386, 483} { // where the only piece of data is, which has no bytes, and the size: in the form for large numbers
		h[at] = 0x80
		for i := range 8 {
			h[at+4+i] = byte(size >> (56 - 8*i))
		}
	}
	copy(h[398:], "00000000000\x00")
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// cancelling cancels once it was read to its end.
type cancelling struct {
	r      *bytes.Reader
	cancel func()
}

func (c cancelling) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.r.Len() == 0 {
		c.cancel()
	}
	return n, err
}

// TestEntriesOfHoles ends with its context within a hole too, where there is nothing to read.
func TestEntriesOfHoles(t *testing.T) {
	const size = 64 << 20
	content := hole(t, size)
	if n, err := io.Copy(io.Discard, newEntryReader(t.Context(), bytes.NewReader(content), flatten.Limits{}.WithDefaults())); err != nil || n < size {
		t.Errorf("%d bytes, %v; want all of the hole", n, err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	in := cancelling{bytes.NewReader(content[:512]), func() { cancel(stopped) }}
	if n, err := io.Copy(io.Discard, newEntryReader(ctx, in, flatten.Limits{}.WithDefaults())); !errors.Is(err, stopped) || n >= size/2 {
		t.Errorf("%d bytes, %v; want the context's cause before the hole is over", n, err)
	}
}

func headers(t testing.TB, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEntriesAreBounded(t *testing.T) {
	limits := flatten.Limits{Files: 10, Metadata: 1000}.WithDefaults()
	files := func(n int, form string) (all []tar.Header) {
		for i := range n {
			all = append(all, tar.Header{Name: fmt.Sprintf(form, i), Typeflag: tar.TypeReg})
		}
		return all
	}
	xattr := func(n int) tar.Header {
		return tar.Header{Name: "f", Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{xattrPrefix + "user.a": strings.Repeat("x", n)}}
	}
	target := func(n int) tar.Header {
		return tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("x", n)}
	}
	for name, c := range map[string]struct{ fits, tooMuch []tar.Header }{
		"files":                    {files(10, "%d"), files(11, "%d")},
		"directories that are":     {append([]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}}, files(9, "d/%d")...), append([]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}}, files(10, "d/%d")...)},
		"directories that are not": {files(5, "d%d/f"), files(6, "d%d/f")},
		"a deep file":              {files(1, strings.Repeat("d/", 9)+"%d"), files(1, strings.Repeat("d/", 10)+"%d")},
		"a file again and again":   {files(10, "f%.0d"), files(11, "f%.0d")},
		"names":                    {files(4, strings.Repeat("n", 200)+"%d"), files(5, strings.Repeat("n", 200)+"%d")},
		"attributes":               {[]tar.Header{xattr(900)}, []tar.Header{xattr(1000)}},
		"targets":                  {[]tar.Header{target(900)}, []tar.Header{target(1000)}},
	} {
		if _, err := io.Copy(io.Discard, newEntryReader(t.Context(), bytes.NewReader(headers(t, c.fits...)), limits)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := io.Copy(io.Discard, newEntryReader(t.Context(), bytes.NewReader(headers(t, c.tooMuch...)), limits)); !errors.Is(err, ErrLimit) {
			t.Errorf("%s, one more: %v, want ErrLimit", name, err)
		}
	}
}

// TestEntriesFitTheDisk refuses a file before any of its content is copied.
func TestEntriesFitTheDisk(t *testing.T) {
	limits := flatten.Limits{Bytes: 3 * blockSize}.WithDefaults()
	two := func(size int64) io.Reader { // the first takes two blocks
		first := hole(t, blockSize+1)
		return io.MultiReader(bytes.NewReader(first[:512]), bytes.NewReader(hole(t, size)))
	}
	if n, err := io.Copy(io.Discard, newEntryReader(t.Context(), two(blockSize), limits)); err != nil || n < 2*blockSize {
		t.Errorf("what is left: %d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, newEntryReader(t.Context(), two(blockSize+1), limits)); !errors.Is(err, ErrLimit) || n >= 2*blockSize+4<<10 {
		t.Errorf("more than is left: %d bytes, %v; want ErrLimit and none of it", n, err)
	}
}

func TestFromTarIsBounded(t *testing.T) {
	dir := t.TempDir()
	if _, err := FromTar(t.Context(), bytes.NewReader(hole(t, 1<<20)), filepath.Join(dir, "base")); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, "base")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	in := cancelling{bytes.NewReader(hole(t, maxBytes+1)[:512]), cancel} // no wait for it to be written
	if _, err := FromTar(ctx, in, filepath.Join(dir, "base")); !errors.Is(err, ErrLimit) {
		t.Errorf("a file larger than any: %v, want ErrLimit", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
