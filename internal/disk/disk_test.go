//go:build linux

package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sparse makes a file with data at its places and holes between.
func sparse(t *testing.T, size int64, data map[int64]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for at, text := range data {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCloneKeepsHoles(t *testing.T) {
	for name, src := range map[string]string{
		"data at both ends": sparse(t, 64<<20, map[int64]string{0: "begin", 32 << 20: "middle", 64<<20 - 3: "end"}),
		"only a hole":       sparse(t, 16<<20, nil),
		"empty":             sparse(t, 0, nil),
		"no block's length": sparse(t, 1<<20+17, map[int64]string{1 << 20: "x"}),
	} {
		dst := filepath.Join(t.TempDir(), "clone")
		if _, err := Clone(t.Context(), dst, src); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dst)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want the same %d", name, len(got), err, len(want))
		}
		info, err := os.Stat(dst)
		if err != nil {
			t.Fatal(err)
		}
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Mode() != 0o600 || used > 1<<20 {
			t.Errorf("%s: %v, %d bytes of disk", name, info.Mode(), used)
		}
	}
}

// looks is a context that ends when it is looked at for the nth time.
type looks struct {
	context.Context
	n int
}

func (c *looks) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestCloneCanBeLeft between two extents, and within a large one. Nothing of it is left.
func TestCloneCanBeLeft(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, 2*chunk+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]string{"extents": sparse(t, 64<<20, map[int64]string{0: "one", 16 << 20: "two", 32 << 20: "three"}), "large": large} {
		dst := filepath.Join(t.TempDir(), "clone")
		c, err := Clone(&looks{context.Background(), 3}, dst, src)
		if err = errors.Join(err, os.Remove(dst)); err != nil {
			t.Errorf("%s: with three looks it is not made: %v", name, err)
		}
		if c.Reflinked { // which is done at once
			continue
		}
		if _, err := Clone(&looks{context.Background(), 2}, dst, src); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
		if _, err := os.Lstat(dst); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: half a clone is left: %v", name, err)
		}
	}
}

// TestCloneRefuses what stands in its way, and leaves it.
func TestCloneRefuses(t *testing.T) {
	src, dir := sparse(t, 100, map[int64]string{0: "new"}), t.TempDir()
	taken, link := filepath.Join(dir, "taken"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(taken, []byte("precious"), 0o600), os.Symlink(taken, link)); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{taken, link} {
		if _, err := Clone(t.Context(), dst, src); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: %v, want ErrExist", dst, err)
		}
	}
	if text, err := os.ReadFile(taken); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := Clone(t.Context(), filepath.Join(dir, "new"), dir); err == nil {
		t.Error("a directory was cloned")
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed clone is left: %v", err)
	}
}

func TestEmptyExt4(t *testing.T) {
	for _, size := range []int{16, 64, 256} {
		path := filepath.Join(t.TempDir(), "layer")
		if err := EmptyExt4(t.Context(), path, size); errors.Is(err, os.ErrNotExist) {
			t.Logf("no mke2fs here: %v", err)
			return
		} else if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		superblock := make([]byte, 2)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.ReadAt(superblock, 1024+56)
		f.Close()
		if err != nil || superblock[0] != 0x53 || superblock[1] != 0xef || info.Size() != int64(size)<<20 {
			t.Errorf("%d MiB: size %d, magic %x, %v", size, info.Size(), superblock, err)
		}
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 8<<20 {
			t.Errorf("%d MiB: %d bytes of disk", size, used)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := EmptyExt4(ctx, path+"-2", size); !errors.Is(err, context.Canceled) {
			t.Errorf("without a context: %v", err)
		}
		if _, err := os.Lstat(path + "-2"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("half of it is left: %v", err)
		}
		if err := EmptyExt4(t.Context(), path, size); !errors.Is(err, os.ErrExist) {
			t.Errorf("over one that is there: %v", err)
		}
	}
}

// TestGrowExt4: it is as large as asked for, sound, and as sparse as before. What can't be grown is left as it is.
func TestGrowExt4(t *testing.T) {
	if _, err := Find("resize2fs"); err != nil {
		t.Log(err)
		return
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := EmptyExt4(t.Context(), path, 64); err != nil {
		t.Fatal(err)
	}
	if size, isExt4, err := Inspect(path); err != nil || size != 64<<20 || !isExt4 {
		t.Errorf("%d bytes, ext4 %v, %v", size, isExt4, err)
	}
	if err := GrowExt4(t.Context(), path, 32); err == nil {
		t.Error("it was made smaller")
	}
	if size, _, err := Inspect(path); err != nil || size != 64<<20 {
		t.Errorf("after a refusal: %d bytes, %v", size, err)
	}
	tool(t, "tune2fs", "-O", "read-only", path) // as base images are
	if err := GrowExt4(t.Context(), path, 1024); err != nil {
		t.Fatal(err)
	}
	if features := tool(t, "dumpe2fs", "-h", path); bytes.Contains(features, []byte("read-only")) {
		t.Errorf("it can't be written to:\n%s", features)
	}
	if err := run(t.Context(), 0, "e2fsck", "-f", "-n", path); err != nil {
		t.Error(err)
	}
	if size := fileSystemSize(t, path); size != 1024<<20 {
		t.Errorf("the file system has %d bytes", size)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != 1024<<20 || used > 16<<20 {
		t.Errorf("%d bytes, %d of disk", info.Size(), used)
	}
	garbage := sparse(t, 1<<20, map[int64]string{0: "garbage"})
	if _, isExt4, err := Inspect(garbage); err != nil || isExt4 {
		t.Errorf("garbage: ext4 %v, %v", isExt4, err)
	}
	if err := GrowExt4(t.Context(), garbage, 2); err == nil || !strings.Contains(err.Error(), "e2fsck") {
		t.Errorf("garbage: %v", err)
	}
	for _, bad := range []string{t.TempDir(), "/dev/null", path + ".none"} {
		if _, _, err := Inspect(bad); err == nil {
			t.Errorf("%s was inspected", bad)
		}
	}
}

// fileSystemSize reads the size of an ext4 in bytes from its superblock.
func fileSystemSize(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	superblock := make([]byte, 32)
	if _, err := f.ReadAt(superblock, 1024); err != nil {
		t.Fatal(err)
	}
	return int64(binary.LittleEndian.Uint32(superblock[4:])) << (10 + binary.LittleEndian.Uint32(superblock[24:]))
}
