//go:build linux

package firecracker

import (
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestRealRestore: a machine is written down, others go on where it was.
func TestRealRestore(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		vm := r.create("one")
		r.start(vm)
		info, err := vm.Snapshot(within(t), "warm", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("stood %v, %d bytes", info.Stood, info.MemoryBytes)
		if info.Name != "one/warm" || info.Kind != microvm.SnapshotFull || info.Stood <= 0 || info.Problem != "" {
			t.Errorf("snapshot %+v", info)
		}
		if got := r.info(vm); got.State != microvm.StateRunning {
			t.Errorf("the machine is %s", got.State)
		}
		begin := time.Now()
		clone, _, err := r.runtime.Restore(within(t), "one/warm", "two", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("restored in %v", time.Since(begin))
		if got := r.info(clone); got.State != microvm.StateRunning || got.Name != "two" {
			t.Errorf("the clone is %+v", got)
		}
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err == nil || !strings.Contains(err.Error(), "two") {
			t.Errorf("deleted while a machine runs from it: %v", err)
		}
		r.destroy(vm)
		r.destroy(clone)
		if err := r.runtime.DeleteSnapshot(within(t), "one/warm"); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
	})
}
