//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// storeFiles returns the names of what the store has.
func (r *rig) storeFiles() []string {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.options.StateDir, "store", "files", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

// TestRealGrownRootfs: a size is prepared once, each machine has a disk of its own, and the original stays as it was.
func TestRealGrownRootfs(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		rootfs := filepath.Join(t.TempDir(), "rootfs.ext4")
		if err := disk.EmptyExt4(t.Context(), rootfs, 16); err != nil {
			t.Fatal(err)
		}
		original, err := os.ReadFile(rootfs)
		if err != nil {
			t.Fatal(err)
		}
		inodes, stored := map[uint64]bool{}, 0
		for i, sizeMiB := range []int{48, 48, 16, 0} { // the last two need no preparing
			vm, err := r.runtime.Create(t.Context(), "machine-"+string(rune('a'+i)), microvm.Spec{Rootfs: rootfs, RootfsWritable: true, RootfsMiB: sizeMiB})
			if err != nil {
				t.Fatal(err)
			}
			defer r.destroy(vm)
			if i > 0 && len(r.storeFiles()) != stored {
				t.Errorf("%d files in the store, %d before", len(r.storeFiles()), stored)
			}
			stored = len(r.storeFiles())
			own := r.driver.diskPath(vm.UID())
			mode, stat := look(t, own)
			if want := max(sizeMiB, 16); stat.Size != int64(want)<<20 || diskMiB(must(r.driver.state.ReadRecord(vm.UID()))) != want {
				t.Errorf("%d bytes, counted as %d MiB, want %d", stat.Size, diskMiB(must(r.driver.state.ReadRecord(vm.UID()))), want)
			}
			if inodes[stat.Ino] || stat.Nlink != 1 || mode != 0o600 {
				t.Errorf("%s: mode %v, %d names, its inode is another's: %v", own, mode, stat.Nlink, inodes[stat.Ino])
			}
			inodes[stat.Ino] = true
			r.start(vm)
		}
		for _, path := range r.storeFiles() {
			if _, stat := look(t, path); inodes[stat.Ino] {
				t.Errorf("%s of the store is a machine's to write to", path)
			}
		}
		if now, err := os.ReadFile(rootfs); err != nil || !bytes.Equal(now, original) {
			t.Errorf("the original has changed: %v", err)
		}
	})
}

// TestRealRootfsIsNotGrown: what makes no sense is refused before anything is touched.
func TestRealRootfsIsNotGrown(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		dir := t.TempDir()
		good, odd, garbage := filepath.Join(dir, "good"), filepath.Join(dir, "odd"), newDisk(t, "garbage")
		if err := errors.Join(disk.EmptyExt4(t.Context(), good, 16), disk.EmptyExt4(t.Context(), odd, 16), os.Truncate(odd, 16<<20+512)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			rootfs  string
			sizeMiB int
			says    string
		}{
			{good, 15, "invalid Spec.RootfsMiB 15: must be at least the 16 that " + good + " has"}, {odd, 16, "at least the 17"}, {garbage, 16, "needs an ext4"},
			{dir + "/none", 16, "Spec.Rootfs: open " + dir + "/none"}, {dir, 16, "Spec.Rootfs: " + dir + " is no regular file"},
		} {
			_, err := r.runtime.Create(t.Context(), "one", microvm.Spec{Rootfs: c.rootfs, RootfsWritable: true, RootfsMiB: c.sizeMiB})
			if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s at %d MiB: %v, want ErrInvalid that says %q", c.rootfs, c.sizeMiB, err, c.says)
			}
		}
		if files := r.storeFiles(); len(files) > 0 {
			t.Errorf("the store has %q", files)
		}
		vm, err := r.runtime.Create(t.Context(), "one", microvm.Spec{Rootfs: odd, RootfsWritable: true, RootfsMiB: 17})
		if err != nil {
			t.Fatal(err)
		}
		r.destroy(vm)
	})
}

// TestRealTrim: what a file system does not use is given back, of the machine's own disk only; of one that is not known nothing is.
func TestRealTrim(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		rootfs := filepath.Join(t.TempDir(), "rootfs.ext4")
		if err := disk.EmptyExt4(t.Context(), rootfs, 16); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(rootfs, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(bytes.Repeat([]byte("x"), 1<<20), 14<<20) // what was there once
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		_, original := look(t, rootfs)
		for name, c := range map[string]struct {
			spec  microvm.Spec
			freed int64
			err   error
		}{
			"ext4":     {microvm.Spec{Rootfs: rootfs, RootfsWritable: true}, 1 << 20, nil},
			"shared":   {microvm.Spec{Rootfs: rootfs}, 0, nil},
			"diskless": {tiny, 0, nil},
			"garbage":  {microvm.Spec{Rootfs: newDisk(t, "garbage"), RootfsWritable: true}, 0, microvm.ErrUnsupported},
		} {
			vm, err := r.runtime.Create(t.Context(), "one", c.spec)
			if err != nil {
				t.Fatal(err)
			}
			if freed, err := vm.Trim(t.Context()); !errors.Is(err, c.err) || freed < c.freed || c.freed == 0 && freed > 0 {
				t.Errorf("%s: %d, %v; want %d or more, %v", name, freed, err, c.freed, c.err)
			}
			r.start(vm)
			r.destroy(vm)
		}
		if _, now := look(t, rootfs); now.Blocks != original.Blocks {
			t.Error("the original was trimmed")
		}
	})
}
