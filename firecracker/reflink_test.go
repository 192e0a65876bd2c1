//go:build linux

package firecracker

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/loopfs"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestRealDisksShareBlocks: with the state directory on a file system that can, the disk of a machine, of its snapshot and of what is restored from it are the same blocks; on one that can't, each
// costs its data. The image comes from another file system: it is copied once, into the store.
func TestRealDisksShareBlocks(t *testing.T) {
	p := ring.Real(t)
	if !loopfs.Private(t) {
		return
	}
	const size = 16 << 20
	content := make([]byte, size)
	rand.Read(content) // never fails
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	if err := os.WriteFile(rootfs, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, shares := range map[string]bool{loopfs.XFS: true, loopfs.Ext4: false} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("TMPDIR", loopfs.Mount(t, kind, 2048))
			bothWays(t, p, func(t *testing.T, r *rig) {
				r.spec = microvm.Spec{Rootfs: rootfs, RootfsWritable: true}
				vm := r.create("one")
				r.start(vm)
				info := r.snapshot(vm, "warm", nil)
				clone := r.restore("one/warm", "two", nil)
				copied, shared := int64(size), int64(0)
				if shares {
					copied, shared = 0, size
				}
				if info.Copied != copied {
					t.Errorf("the snapshot copied %d bytes, want %d", info.Copied, copied)
				}
				if made := r.info(clone).Copied; made != copied {
					t.Errorf("the restore copied %d bytes, want %d", made, copied)
				}
				manifest := must(r.driver.snaps.Read(info.UID))
				taken := r.driver.snaps.Path(manifest, snapstore.Disk)
				for _, path := range []string{r.driver.diskPath(vm.UID()), taken, r.driver.diskPath(clone.UID())} {
					if got := loopfs.Shared(t, path); got != shared {
						t.Errorf("%s: %d bytes are shared, want %d", path, got, shared)
					}
					if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s has another content, %v", path, err)
					}
				}
			})
		})
	}
}
