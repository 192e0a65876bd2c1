//go:build linux

package firecracker

import (
	"errors"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestRealMovedVMM: one that somebody moved to another cgroup lives. It is not taken for one that has ended, nor started once more; where it was again it can be stopped, and Destroy ends it anywhere.
func TestRealMovedVMM(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		before := r.census()
		vm := r.create("one")
		move := func(to string) {
			t.Helper()
			leaf := must(r.driver.slice.Leaf(to))
			defer (*leaf).Close()
			if err := (*leaf).Add(r.info(vm).PID); err != nil {
				t.Fatal(err)
			}
			r.reopen()
			vm = *must(r.runtime.VM(t.Context(), "one"))
		}
		elsewhere := *must(r.driver.slice.NewLeaf("elsewhere"))
		defer elsewhere.Remove()
		for _, back := range []bool{true, false} {
			r.start(vm)
			pid, home := r.info(vm).PID, r.options.Slice+"/"+vm.UID()
			move("elsewhere")
			info := r.listed(vm.UID())
			if info.State != microvm.StateRunning || info.PID != pid || !strings.Contains(info.Problem, home) || !strings.Contains(info.Problem, elsewhere.Path()) {
				t.Errorf("listed as %s, process %d, %s", info.State, info.PID, info.Problem)
			}
			_, stop := vm.Stop(t.Context(), &microvm.StopOptions{Force: true})
			for verb, err := range map[string]error{"start": vm.Start(t.Context(), nil), "stop": stop} {
				if !errors.Is(err, microvm.ErrBusy) || !strings.Contains(err.Error(), home) || !strings.Contains(err.Error(), elsewhere.Path()) {
					t.Errorf("%s: %v, want ErrBusy that names both places", verb, err)
				}
			}
			if pids, err := elsewhere.Procs(); err != nil || !slices.Contains(pids, pid) {
				t.Errorf("processes %v, %v: it does not live", pids, err)
			}
			if back {
				move(vm.UID())
				if exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil || exit.Reason != microvm.ReasonForced {
					t.Errorf("stop where it was: %+v, %v", exit, err)
				}
			}
		}
		r.destroy(vm)
		if r.lives(vm.UID()) {
			t.Error("its VMM lives")
		}
		if err := elsewhere.Remove(); err != nil {
			t.Error(err)
		}
		r.unchanged(before)
	})
}
