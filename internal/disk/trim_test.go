//go:build linux

package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tool runs a program of e2fsprogs and returns its output; "" where they are not installed.
func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	program, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	var failure bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v %s%s", name, args, err, out, failure.Bytes())
	}
	return out
}

// usedDisk makes an ext4 of 32 MiB with files kept and gone, of 4 MiB each, of which the second was removed: what it had is still in the disk's file.
func usedDisk(t testing.TB, blockSize int) (path string, kept []byte) {
	t.Helper()
	files := t.TempDir()
	kept, gone := make([]byte, 4<<20), make([]byte, 4<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(kept)
	random.Read(gone)
	if err := errors.Join(os.WriteFile(files+"/kept", kept, 0o600), os.WriteFile(files+"/gone", gone, 0o600)); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 32<<20)); err != nil {
		t.Fatal(err)
	}
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", fmt.Sprint(blockSize), "-d", files, path)
	tool(t, "debugfs", "-w", "-R", "rm /gone", path)
	return path, kept
}

func used(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestTrimExt4: what was removed is given back, what is there stays, and once is enough.
func TestTrimExt4(t *testing.T) {
	if _, err := Find("debugfs"); err != nil {
		t.Log(err)
		return
	}
	for _, blockSize := range []int{1024, 4096} {
		path, kept := usedDisk(t, blockSize)
		before := used(t, path)
		freed, err := TrimExt4(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if after := used(t, path); freed != before-after || freed < 3<<20 || after < 4<<20 {
			t.Errorf("blocks of %d: %d bytes of disk, %d before, %d are said to be freed", blockSize, after, before, freed)
		}
		if got := tool(t, "debugfs", "-R", "cat /kept", path); !bytes.Equal(got, kept) {
			t.Errorf("blocks of %d: the file that is there has changed", blockSize)
		}
		tool(t, "e2fsck", "-f", "-n", path)
		if freed, err := TrimExt4(t.Context(), path); err != nil || freed != 0 {
			t.Errorf("blocks of %d: again: %d, %v", blockSize, freed, err)
		}
	}
}

// TestTrimExt4Refuses what it does not understand, and leaves it.
func TestTrimExt4Refuses(t *testing.T) {
	if _, err := Find("debugfs"); err != nil {
		t.Log(err)
		return
	}
	path, _ := usedDisk(t, 4096)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	word := func(at int, value uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[superblockAt+at:], value) }
	}
	or := func(at int, bits uint32) func([]byte) {
		return func(b []byte) {
			word(at, binary.LittleEndian.Uint32(b[superblockAt+at:])|bits)(b)
		}
	}
	for name, c := range map[string]struct {
		spoil func([]byte)
		says  string
	}{
		"as it is":             {func([]byte) {}, ""},
		"no magic":             {func(b []byte) { b[offMagic] = 0 }, "no ext4"},
		"journal not replayed": {or(offIncompat, incompatRecover), "not unmounted"},
		"not clean":            {func(b []byte) { b[superblockAt+offState] = 0 }, "not unmounted"},
		"errors":               {func(b []byte) { b[superblockAt+offState] |= stateErrors }, "has errors"},
		"meta_bg":              {or(offIncompat, 0x10), "features"},
		"of the future":        {or(offIncompat, 1<<30), "features"},
		"clusters":             {or(offROCompat, roBigalloc), "features"},
		"huge blocks":          {word(offLogBlock, 0xffffffff), "features"},
		"larger than its file": {word(offBlocks, 1<<31), "makes no sense"},
		"of no blocks":         {word(offBlocks, 0), "makes no sense"},
		"negative":             {word(offBlocksHigh, 1<<31), "makes no sense"},
		"odd groups":           {word(offPerGroup, 8), "makes no sense"},
		"odd beginning":        {word(offFirstBlock, 1<<20), "makes no sense"},
		"huge descriptors":     {func(b []byte) { binary.LittleEndian.PutUint16(b[superblockAt+offGroupSize:], 65535) }, "makes no sense"},
		"bitmap outside":       {func(b []byte) { binary.LittleEndian.PutUint32(b[4096+offBitmap:], 1<<30) }, "outside of the disk"},
		"bitmap in nothing":    {func(b []byte) { binary.LittleEndian.PutUint32(b[4096+offBitmap:], 0) }, "outside of the disk"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := bytes.Clone(whole)
			c.spoil(disk)
			path := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(path, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			freed, err := TrimExt4(t.Context(), path)
			if c.says == "" {
				if err != nil || freed == 0 {
					t.Errorf("%d, %v", freed, err)
				}
				return
			}
			if !errors.Is(err, ErrTrim) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d, %v, want ErrTrim that says %q", freed, err, c.says)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, disk) {
				t.Errorf("it was changed: %v", err)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		link, fifo := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "fifo")
		if err := errors.Join(os.Symlink(path, link), syscall.Mkfifo(fifo, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{link, fifo, t.TempDir(), path + ".none"} {
			if _, err := TrimExt4(t.Context(), bad); err == nil {
				t.Errorf("%s was trimmed", bad)
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := TrimExt4(ctx, path); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}

// FuzzTrimExt4: whatever a guest makes of its disk, nothing breaks, and the file has its size.
func FuzzTrimExt4(f *testing.F) {
	head := func(size int) []byte {
		b := make([]byte, size)
		copy(b[offMagic:], magic)
		b[superblockAt+offState] = stateClean
		for at, value := range map[int]uint32{offBlocks: 64, offFirstBlock: 1, offPerGroup: 8192} {
			binary.LittleEndian.PutUint32(b[superblockAt+at:], value)
		}
		binary.LittleEndian.PutUint32(b[2048+offBitmap:], 3)
		return b
	}
	f.Add(head(64 << 10))
	f.Add(head(4 << 10))
	f.Add([]byte("no file system"))
	f.Fuzz(func(t *testing.T, disk []byte) {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		freed, err := TrimExt4(t.Context(), path)
		if freed < 0 || freed > int64(len(disk))+4096 || err != nil && freed != 0 {
			t.Errorf("%d, %v", freed, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != int64(len(disk)) {
			t.Errorf("%v, %v", info, err)
		}
	})
}
