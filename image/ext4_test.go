//go:build linux

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ext4's times, as the kernel reads them (fs/ext4/ext4.h: ext4_decode_extra_time).
func TestExt4Time(t *testing.T) {
	for _, seconds := range []int64{0, 1, -1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<33 + 5, -1 << 31, 0x2_7fff_ffff} {
		written := uint64(ext4Time(time.Unix(seconds, 0)).Unix())
		if written >= 0x3_8000_0000 {
			t.Errorf("%d: the writer writes no more than that: %#x", seconds, written)
		}
		if read := int64(int32(uint32(written))) + int64(written>>32&3)<<32; read != seconds {
			t.Errorf("%d is read as %d", seconds, read)
		}
	}
	for seconds, want := range map[int64]int64{-1<<31 - 1: -1 << 31, 1 << 40: 0x2_7fff_ffff} {
		if got := ext4Time(time.Unix(seconds, 0)); !got.Equal(ext4Time(time.Unix(want, 0))) {
			t.Errorf("%d: %d", seconds, got.Unix())
		}
	}
}

// Where zeros are holes, a file holds what another one would.
func TestHolesAreWhatWasWritten(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := &holes{f: f}
	want := make([]byte, 40*blockSize)
	put := func(at int64, p []byte) {
		if _, err := h.Seek(at, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Write(p); err != nil {
			t.Fatal(err)
		}
		copy(want[at:], p)
	}
	data := bytes.Repeat([]byte("x"), 3*blockSize)
	put(0, make([]byte, 5*blockSize))
	put(7*blockSize+100, append(append(make([]byte, 2*blockSize), data...), make([]byte, blockSize+17)...))
	put(2*blockSize, data)
	put(3*blockSize, make([]byte, blockSize)) // zeros over data
	put(20*blockSize+1, []byte{0, 0, 1, 0})
	put(30*blockSize, make([]byte, 10*blockSize))
	if err := h.finish(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)+1)
	n, _ := f.ReadAt(got, 0)
	if n != len(want) || !bytes.Equal(got[:n], want) {
		for i := range want {
			if i >= n || got[i] != want[i] {
				t.Fatalf("%d bytes, and byte %d of block %d is another", n, i%blockSize, i/blockSize)
			}
		}
	}
	if size := allocated(f.Name()); size == 0 || size > 16*blockSize {
		t.Errorf("%d bytes on disk", size)
	}
}
