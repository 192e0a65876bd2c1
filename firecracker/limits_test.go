//go:build linux

package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestRealLimitsHoldNobodyUp: while the disk of one machine is made another is created, and the one that is not ready yet counts.
func TestRealLimitsHoldNobodyUp(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		rootfs := filepath.Join(t.TempDir(), "rootfs")
		if err := errors.Join(os.WriteFile(rootfs, []byte("x"), 0o600), os.Truncate(rootfs, 3<<20)); err != nil {
			t.Fatal(err)
		}
		r.options.Limits = Limits{VMs: 2, DiskMiB: 6}
		r.spec = microvm.Spec{Rootfs: rootfs, RootfsWritable: true}
		r.reopen()
		making, made := make(chan struct{}), make(chan struct{})
		first := true
		r.setHook(func(point string) error {
			if point == "create/disk:before" && first {
				first = false
				close(making)
				<-made
			}
			return nil
		})
		slow := make(chan error, 1)
		go func() {
			_, err := r.runtime.Create(t.Context(), "slow", r.spec)
			slow <- err
		}()
		<-making
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, quick := r.runtime.Create(ctx, "quick", r.spec)
		_, third := r.runtime.Create(ctx, "third", r.spec)
		close(made)
		if err := errors.Join(quick, <-slow); err != nil {
			t.Errorf("create: %v", err)
		}
		if !errors.Is(third, microvm.ErrExhausted) {
			t.Errorf("a third: %v, want ErrExhausted", third)
		}
	})
}

// TestRealCreateCanBeLeft while gigabytes are copied, and Close does not wait for them.
func TestRealCreateCanBeLeft(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{})
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	if err := os.WriteFile(rootfs, make([]byte, 65<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := microvm.Spec{Rootfs: rootfs, RootfsWritable: true}
	vm, err := r.runtime.Create(t.Context(), "one", spec) // the store has it
	if err != nil {
		t.Fatal(err)
	}
	r.destroy(vm)
	before := r.census()
	for name, leave := range map[string]func(cancel func()) error{
		"cancelled": func(cancel func()) error { cancel(); return context.Canceled },
		"closed": func(func()) error {
			r.driver.end() // as Close does
			return microvm.ErrClosed
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var want error
		r.setHook(func(point string) error {
			if point == "create/disk:before" {
				want = leave(cancel)
			}
			return nil
		})
		if _, err := r.runtime.Create(ctx, "one", spec); !errors.Is(err, want) || !strings.Contains(err.Error(), "disk") {
			t.Errorf("%s: create: %v, want %v while the disk is made", name, err, want)
		}
		cancel()
		r.setHook(nil)
		r.reopen()
		r.unchanged(before)
	}
}
