//go:build linux

package firecracker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// cutRig is a rig whose state directory is on an ext4 in a file. cut is a power cut: what is on that disk by now is all there is afterwards.
func cutRig(t *testing.T, bare bool) (r *rig, cut func()) {
	t.Helper()
	o := testOptions(t, ring.Real(t), bare)
	o.Kernel = kernelOf(t, tinyguest.Program{Text: marker + "\n"})
	image := filepath.Join(t.TempDir(), "disk")
	command(t, "truncate", "-s", "96M", image)
	command(t, "mke2fs", "-q", "-F", "-t", "ext4", image)
	mount := func() {
		t.Helper()
		command(t, "mount", "-o", "loop", image, o.StateDir)
	}
	unmount := func() {
		t.Helper()
		if err := syscall.Unmount(o.StateDir, 0); err != nil {
			t.Error(err)
		}
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	mount()
	t.Cleanup(func() {
		if _, err := Purge(context.Background(), o); err != nil {
			t.Error(err)
		}
		unmount()
	})
	r = &rig{t: t, options: o}
	r.reopen()
	t.Cleanup(func() { r.runtime.Close() })
	return r, func() {
		t.Helper()
		command(t, "cp", "--sparse=always", image, image+".cut")
		r.runtime.Close()
		unmount()
		image += ".cut"
		mount()
		r.reopen()
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v %s", name, args, err, out)
	}
}

// TestRealPowerCut: a machine that Create has returned is whole after a power cut, with its disk, its user and its name; so is what its guest wrote before Stop returned, and a machine that is destroyed has not come
// back to life.
func TestRealPowerCut(t *testing.T) {
	bareAndJailed(t, func(t *testing.T, bare bool) {
		r, cut := cutRig(t, bare)
		written := bytes.Repeat([]byte("guest"), 100_000)
		rootfs := filepath.Join(t.TempDir(), "rootfs")
		if err := os.WriteFile(rootfs, bytes.Repeat([]byte("rootfs"), 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
		r.spec = microvm.Spec{Rootfs: rootfs, RootfsWritable: true}
		find := func() *microvm.VM {
			t.Helper()
			vm, err := r.runtime.VM(t.Context(), "one")
			if err != nil {
				t.Fatal(err)
			}
			return vm
		}
		r.create("one")
		cut()
		vm := find()
		record := *must(r.driver.state.ReadRecord(vm.UID()))
		for path, want := range map[string]string{r.driver.diskPath(vm.UID()): rootfs, record.Files.Kernel: r.options.Kernel} {
			same(t, path, *must(os.ReadFile(want)))
		}
		if leases, err := r.driver.slots.Leases(); err != nil || !bare && leases[0] != vm.UID() {
			t.Errorf("leases %v, %v", leases, err)
		}
		r.start(vm)
		disk := r.driver.diskPath(vm.UID())
		if err := os.WriteFile(disk, written, 0o600); err != nil { // as its VMM would
			t.Fatal(err)
		}
		if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		cut()
		vm = find()
		same(t, disk, written)
		if info := r.info(vm); info.State != microvm.StateStopped && info.State != microvm.StateCreated {
			t.Errorf("state %s", info.State)
		}
		r.start(vm)
		r.destroy(vm)
		cut()
		infos, err := r.runtime.List(t.Context(), nil)
		if err != nil || len(infos) > 0 && infos[0].State != microvm.StateDestroying {
			t.Errorf("after it was destroyed: %+v, %v", infos, err)
		}
		if _, err := r.runtime.VM(t.Context(), "one"); !errors.Is(err, microvm.ErrNotFound) {
			t.Errorf("its name: %v", err)
		}
	})
}

func same(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v, are not the %d that they were", path, len(got), err, len(want))
	}
}

// TestRealDamagedExit: the record of how a run ended is not flushed. One that a power cut tore costs that knowledge, and nothing else.
func TestRealDamagedExit(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		for _, size := range []int64{0, 10} {
			r.start(vm)
			if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(r.driver.state.Machine(vm.UID()), "exit.json")
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			info := r.listed(vm.UID())
			if info.State != microvm.StateStopped || info.Exit == nil || info.Exit.Reason != microvm.ReasonUnknown || len(info.Exit.Evidence) != 1 || !bytes.Contains([]byte(info.Exit.Evidence[0]), []byte(path)) {
				t.Errorf("it is %s, %+v: %s", info.State, info.Exit, info.Problem)
			}
			if exit, err := vm.Stop(t.Context(), nil); err != nil || exit.Reason != microvm.ReasonUnknown {
				t.Errorf("stop: %+v, %v", exit, err)
			}
		}
		r.start(vm)
		r.destroy(vm)
	})
}
