//go:build linux

package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestRealLimits: what is used counts until it is destroyed, whoever made it, and the error names the limit.
func TestRealLimits(t *testing.T) {
	p := ring.Real(t)
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	if err := errors.Join(os.WriteFile(rootfs, []byte("x"), 0o600), os.Truncate(rootfs, 3<<20)); err != nil {
		t.Fatal(err)
	}
	small := microvm.Spec{Rootfs: rootfs, RootfsWritable: true, MemoryMiB: 100}
	for _, tc := range []struct {
		name   string
		limits Limits
		fit    int // how many of small
	}{
		{"Limits.VMs", Limits{VMs: 2}, 2},
		{"Limits.MemoryMiB", Limits{MemoryMiB: 399}, 3},
		{"Limits.DiskMiB", Limits{DiskMiB: 6}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testOptions(t, p, true)
			o.Kernel, o.Limits = kernelOf(t, tinyguest.Program{}), tc.limits
			var machines []*microvm.VM
			create := func(name string) error {
				rt, err := New(o) // each time as another process would
				if err != nil {
					t.Fatal(err)
				}
				defer rt.Close()
				vm, err := rt.Create(t.Context(), name, small)
				if err == nil {
					machines = append(machines, vm)
				}
				return err
			}
			for n := range tc.fit {
				if err := create("fits-" + string(rune('a'+n))); err != nil {
					t.Fatal(err)
				}
			}
			if err := create("one-more"); !errors.Is(err, microvm.ErrExhausted) || !strings.Contains(err.Error(), tc.name) {
				t.Errorf("one more: %v, want ErrExhausted of %s", err, tc.name)
			}
			rt, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer rt.Close()
			vm, err := rt.VM(t.Context(), "fits-a")
			if err != nil {
				t.Fatal(err)
			}
			if err := vm.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := create("one-more"); err != nil {
				t.Errorf("after one was destroyed: %v", err)
			}
		})
	}
}

// TestRealPrivateRootfs: a machine with a copy of its own needs the original no more.
func TestRealPrivateRootfs(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		rootfs := filepath.Join(t.TempDir(), "rootfs")
		if err := errors.Join(os.WriteFile(rootfs, []byte("x"), 0o600), os.Truncate(rootfs, 1<<20)); err != nil {
			t.Fatal(err)
		}
		vm, err := r.runtime.Create(t.Context(), "one", microvm.Spec{Rootfs: rootfs, RootfsWritable: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(rootfs); err != nil {
			t.Fatal(err)
		}
		r.start(vm)
		if got := diskMiB(must(r.driver.state.ReadRecord(vm.UID()))); got != 1 {
			t.Errorf("its disk counts %d MiB", got)
		}
		r.destroy(vm)
	})
}
