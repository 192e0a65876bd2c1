//go:build linux

package firecracker

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// TestHungVMMCostsADeadline: who waits for its VMM keeps nobody for ever from ending the machine.
func TestHungVMMCostsADeadline(t *testing.T) {
	r := rigOf(t, fakeOptions(t, fakevmm.Faults{}))
	r.spec.Drives = []microvm.Drive{{Path: newDisk(t, "a"), ReadOnly: true}}
	verbs := map[string]func(*microvm.VM) error{
		"pause": func(vm *microvm.VM) error { return vm.Pause(t.Context()) },
		"update": func(vm *microvm.VM) error {
			return vm.Update(t.Context(), microvm.Change{DriveLimit: map[int]microvm.RateLimit{0: {OpsPerSecond: 7}}})
		},
	}
	for name := range verbs {
		r.start(r.create(name))
	}
	hang := fakevmm.Faults{Requests: map[string]fakevmm.Fault{"PATCH /vm": {Hang: true}, "PATCH /drives/{drive_id}": {Hang: true}}}
	if err := fakevmm.Inject(r.options.Firecracker, hang); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for name, verb := range verbs {
		waiting.Go(func() {
			vm := r.named(name)
			if err := verb(vm); !errors.Is(err, microvm.ErrNoAnswer) {
				t.Errorf("%s = %v", name, err)
			}
			if exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil || exit.Reason != microvm.ReasonForced {
				t.Errorf("Stop after %s = %+v, %v", name, exit, err)
			}
		})
	}
	waiting.Wait()
}

// TestFollowerHearsOfClose: the end of the runtime is not that of the run.
func TestFollowerHearsOfClose(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	rt := mustNew(t, o)
	vm, err := rt.Create(t.Context(), "machine", microvm.Spec{Diskless: true})
	if err == nil {
		err = vm.Start(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	reader, err := vm.Console(t.Context(), &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, reader)
		ended <- err
	}()
	if err := rt.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, microvm.ErrClosed) {
		t.Errorf("the follower ends with %v", err)
	}
}

// TestLimitsCountNoRest: what an interrupted create or destroy left is no machine.
func TestLimitsCountNoRest(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	o.Limits.VMs = 1
	d, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	rt := microvm.New(d)
	defer rt.Close()
	rest, err := d.state.Create(t.Context(), state.NewUID())
	if err != nil {
		t.Fatal(err)
	}
	if err := rest.WriteRecord(state.Record{UID: rest.UID(), Phase: state.PhaseCreating}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Create(t.Context(), "one", microvm.Spec{Diskless: true}); !errors.Is(err, microvm.ErrExhausted) {
		t.Errorf("beside one that is being made: %v", err)
	}
	rest.Unlock()
	if _, err := rt.Create(t.Context(), "one", microvm.Spec{Diskless: true}); err != nil {
		t.Errorf("beside the rest of one: %v", err)
	}
}

// TestRealNoInodes: where no file can be made any more a machine can be looked at and ended.
func TestRealNoInodes(t *testing.T) {
	p := ring.Real(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=64m,nr_inodes=600"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	o := testOptions(t, p, false)
	o.StateDir, o.JailDir, o.Kernel = filepath.Join(dir, "state"), filepath.Join(dir, "jails"), kernelOf(t, tinyguest.Program{Text: marker})
	vm := func(rt *microvm.Runtime) *microvm.VM {
		vm, err := rt.VM(t.Context(), "machine")
		if err != nil {
			t.Fatal(err)
		}
		return vm
	}
	rt := mustNew(t, o)
	made, err := rt.Create(t.Context(), "machine", tiny)
	if err == nil {
		err = made.Start(t.Context(), nil)
	}
	if err == nil {
		err = rt.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.Mkdir(filler, 0o700); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = os.Symlink("nowhere", filepath.Join(filler, time.Now().Format("150405.000000000")))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	rt = mustNew(t, o)
	if info, err := vm(rt).Info(t.Context()); err != nil || info.State != microvm.StateRunning {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := vm(rt).Destroy(t.Context()); err != nil {
		t.Errorf("Destroy = %v", err)
	}
	if err := os.RemoveAll(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := Purge(t.Context(), o); err != nil {
		t.Error(err)
	}
}
